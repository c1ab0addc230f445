"""The stand-in for EBS, seen through boto3: instances, volumes, and fast snapshot restore."""

from pathlib import Path
from typing import Any

from standin.ebs import Delays, Quotas
from tests.contract.ebs_standin.conftest import (
    OTHER_ZONE,
    ZONE,
    Account,
    account,
    full_image,
    ids,
    refused,
    row,
)


@row("instances")
def test_instances_are_found_by_id_tag_and_state(aws: Account) -> None:
    def found(**asked: Any) -> list[str]:
        reservations = aws.ec2.describe_instances(**asked)["Reservations"]
        return [each["InstanceId"] for one in reservations for each in one["Instances"]]

    stopped = aws.cloud.add_instance(tags={"Name": "db"}, state="stopped")
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    named = [{"Name": "tag:Name", "Values": ["db"]}]
    assert found() == found(Filters=named) == [aws.instance, stopped]
    assert found(Filters=named + running) == [aws.instance]
    assert found(InstanceIds=[stopped]) == [stopped]
    [one] = aws.ec2.describe_instances(InstanceIds=[aws.instance])["Reservations"][0]["Instances"]
    assert one["RootDeviceName"] == "/dev/xvda"
    assert [each["Ebs"]["VolumeId"] for each in one["BlockDeviceMappings"]] == [aws.volume, aws.root]
    for _ in range(5):
        aws.cloud.add_instance()
    pages = aws.ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
    assert [len(page["Reservations"]) for page in pages] == [5, 2]
    with refused("InvalidParameterCombination"):
        found(InstanceIds=[stopped], MaxResults=5)
    with refused("InvalidInstanceID.NotFound"):
        found(InstanceIds=["i-00"])
    with refused("InvalidInstanceID.Malformed"):
        found(InstanceIds=["db"])


@row("volumes")
def test_volumes_are_found_by_id_and_attachment_in_pages(aws: Account) -> None:
    free = aws.cloud.add_volume(None, image=aws.image)

    def found(**asked: Any) -> list[str]:
        return ids(aws.ec2.describe_volumes(**asked)["Volumes"], "VolumeId")

    attached = [{"Name": "attachment.instance-id", "Values": [aws.instance]}]
    device = [{"Name": "attachment.device", "Values": ["/dev/sdf"]}]
    assert found() == [aws.volume, aws.root, free]
    assert found(Filters=attached) == [aws.volume, aws.root]
    assert found(Filters=attached + device) == found(VolumeIds=[aws.volume]) == [aws.volume]
    assert found(Filters=[{"Name": "status", "Values": ["available"]}]) == [free]
    [volume] = aws.ec2.describe_volumes(VolumeIds=[aws.root])["Volumes"]
    assert (volume["State"], volume["Size"]) == ("in-use", 1)
    assert volume["Attachments"][0]["Device"] == "/dev/xvda"
    for _ in range(4):
        aws.cloud.add_volume(None, image=aws.image)
    pages = aws.ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5})
    assert [len(page["Volumes"]) for page in pages] == [5, 2]
    with refused("InvalidVolume.NotFound"):
        found(VolumeIds=["vol-00"])


@row("created")
def test_a_volume_is_made_from_a_snapshot(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(volume=30)) as aws:
        snapshot_id = aws.snapshot()
        tags = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
        made = aws.new_volume(SnapshotId=snapshot_id, Size=2, TagSpecifications=tags, Iops=4000)
        assert (made["State"], made["Size"], made["SnapshotId"]) == ("creating", 2, snapshot_id)
        assert (made["Iops"], made["Throughput"], made["Encrypted"]) == (4000, 125, False)
        aws.cloud.clock.advance(30)
        assert aws.volume_state(made["VolumeId"]) == "available"
        image = aws.cloud.volume_image(made["VolumeId"])
        with image.open("rb") as file:
            assert file.read(8 << 20) == aws.image.read_bytes()
        assert image.stat().st_size == 2 << 30
        empty = aws.new_volume(Size=1, VolumeType="gp2")
        assert (empty["Iops"], empty["SnapshotId"]) == (100, "")


@row("refused")
def test_a_volume_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(snapshot=50)) as aws:
        image = aws.make_image("large.img", {}, size=3 << 30)
        large = aws.ec2.create_snapshot(VolumeId=aws.cloud.add_volume(None, image=image))["SnapshotId"]
        with refused("IncorrectState"):
            aws.new_volume(SnapshotId=large)
        aws.cloud.clock.advance(50)
        with refused("InvalidParameterValue"):
            aws.new_volume(SnapshotId=large, Size=2)
        with refused("InvalidSnapshot.NotFound"):
            aws.new_volume(SnapshotId="snap-00")
        with refused("InvalidZone.NotFound"):
            aws.new_volume(SnapshotId=large, AvailabilityZone="us-east-1z")
        with refused("MissingParameter"):
            aws.new_volume()
        with refused("MissingParameter"):
            aws.new_volume(Size=10, VolumeType="io2")
        for asked in (
            {"VolumeType": "gp2", "Iops": 3000},
            {"VolumeType": "io2", "Iops": 100, "Throughput": 125},
        ):
            with refused("InvalidParameterCombination"):
                aws.new_volume(Size=10, **asked)
        for wrong in ({"Iops": 100}, {"Throughput": 3000}, {"VolumeType": "st1"}, {"VolumeType": "gp9"}):
            with refused("InvalidParameterValue"):
                aws.new_volume(**{"Size": 10} | wrong)
        assert aws.new_volume(SnapshotId=large)["Size"] == 3


@row("idempotent")
def test_the_same_client_token_gives_the_same_volume(aws: Account) -> None:
    first = aws.new_volume(Size=1, ClientToken="t")["VolumeId"]
    assert aws.new_volume(Size=1, ClientToken="t")["VolumeId"] == first
    assert aws.new_volume(Size=1)["VolumeId"] != first
    with refused("IdempotentParameterMismatch"):
        aws.new_volume(Size=2, ClientToken="t")


@row("encrypted")
def test_encryption_is_inherited_and_a_bad_key_shows_later(tmp_path: Path) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/k"
    with account(tmp_path, delays=Delays(volume=5)) as aws:
        volume = aws.cloud.add_volume(None, image=aws.image, encrypted=True, kms_key_id=key)
        snapshot_id = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        assert aws.described(snapshot_id)["KmsKeyId"] == key
        made = aws.new_volume(SnapshotId=snapshot_id)
        assert (made["Encrypted"], made["KmsKeyId"]) == (True, key)
        assert aws.new_volume(Size=1, Encrypted=True)["KmsKeyId"].endswith(":alias/aws/ebs")
        assert aws.new_volume(Size=1, Encrypted=True, KmsKeyId="k")["KmsKeyId"] == key
        with refused("InvalidParameterDependency"):
            aws.new_volume(Size=1, KmsKeyId="k")
        aws.cloud.disable_key(key)
        bad = aws.new_volume(SnapshotId=snapshot_id)
        assert bad["State"] == "creating"
        aws.cloud.clock.advance(5)
        assert aws.volume_state(bad["VolumeId"]) == "error"


@row("initialized")
def test_initialization_at_a_provisioned_rate_is_told_and_bounded(tmp_path: Path) -> None:
    quotas = Quotas(initialization_rate=400)
    with account(tmp_path, quotas=quotas, delays=Delays(initialization_report=0.001)) as aws:
        snapshot_id = full_image(aws, 800)

        def progress(volume_id: str) -> dict[str, Any] | None:
            [status] = aws.ec2.describe_volume_status(VolumeIds=[volume_id])["VolumeStatuses"]
            assert status["VolumeStatus"]["Status"] == "ok"
            details = status.get("InitializationStatusDetails")
            return dict(details) if details else None

        made = aws.new_volume(SnapshotId=snapshot_id, VolumeInitializationRate=200)["VolumeId"]
        assert progress(made) is None
        with refused("ResourceLimitExceeded"):
            aws.new_volume(SnapshotId=snapshot_id, VolumeInitializationRate=300)
        aws.cloud.clock.advance(0.5)
        told = {"InitializationType": "provisioned-rate", "Progress": 25}
        assert progress(made) == told | {"EstimatedTimeToCompleteInSeconds": 2}
        aws.cloud.clock.advance(1.5)
        assert progress(made) == told | {"Progress": 100, "EstimatedTimeToCompleteInSeconds": 0}
        aws.new_volume(SnapshotId=snapshot_id, VolumeInitializationRate=300)
        lazy = aws.new_volume(SnapshotId=snapshot_id)["VolumeId"]
        aws.cloud.clock.advance(1)
        assert progress(lazy) == {"InitializationType": "default", "Progress": 15}
        assert progress(aws.new_volume(Size=1)["VolumeId"]) is None
        with refused("InvalidParameterValue"):
            aws.new_volume(SnapshotId=snapshot_id, VolumeInitializationRate=99)
        with refused("InvalidParameterCombination"):
            aws.new_volume(Size=1, VolumeInitializationRate=100)


@row("attached")
def test_a_volume_is_attached_within_its_zone(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(volume=1, attach=10)) as aws:
        made = aws.new_volume(Size=1)["VolumeId"]
        far = aws.new_volume(Size=1, AvailabilityZone=OTHER_ZONE)["VolumeId"]

        def attach(volume_id: str, device: str = "/dev/sdz") -> Any:
            return aws.ec2.attach_volume(VolumeId=volume_id, InstanceId=aws.instance, Device=device)

        with refused("IncorrectState"):
            attach(made)
        aws.cloud.clock.advance(1)
        with refused("InvalidVolume.ZoneMismatch"):
            attach(far)
        with refused("InvalidParameterValue"):
            attach(made, "/dev/sdf")
        assert attach(made)["State"] == "attaching"
        [volume] = aws.ec2.describe_volumes(VolumeIds=[made])["Volumes"]
        assert (volume["State"], volume["Attachments"][0]["State"]) == ("in-use", "attaching")
        aws.cloud.clock.advance(10)
        [volume] = aws.ec2.describe_volumes(VolumeIds=[made])["Volumes"]
        assert volume["Attachments"][0]["State"] == "attached"
        with refused("VolumeInUse"):
            attach(made, "/dev/sdy")
        aws.ec2.detach_volume(VolumeId=made)
        assert aws.volume_state(made) == "available"
        aws.cloud.set_instance_state(aws.instance, "terminated")
        with refused("IncorrectState"):
            attach(made)


@row("removed")
def test_only_a_volume_that_is_not_attached_is_deleted(aws: Account) -> None:
    with refused("VolumeInUse"):
        aws.ec2.delete_volume(VolumeId=aws.volume)
    made = aws.new_volume(Size=1)["VolumeId"]
    image = aws.cloud.volume_image(made)
    aws.ec2.delete_volume(VolumeId=made)
    assert not image.exists()
    with refused("InvalidVolume.NotFound"):
        aws.ec2.delete_volume(VolumeId=made)
    aws.cloud.detach(aws.volume)
    aws.ec2.delete_volume(VolumeId=aws.volume)
    assert aws.image.exists()


def fast_state(aws: Account, snapshot_id: str) -> str:
    filters = [{"Name": "snapshot-id", "Values": [snapshot_id]}]
    found = aws.ec2.describe_fast_snapshot_restores(Filters=filters)["FastSnapshotRestores"]
    return str(found[0]["State"]) if found else ""


def enable_fast(aws: Account, *snapshots: str) -> Any:
    return aws.ec2.enable_fast_snapshot_restores(AvailabilityZones=[ZONE], SourceSnapshotIds=list(snapshots))


@row("fast")
def test_fast_restore_is_enabled_an_hour_a_tebibyte(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(enable_fast_restore=10)) as aws:
        volume = aws.cloud.add_volume(None, image=aws.image, size_gib=512)
        snapshot_id = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        [enabled] = enable_fast(aws, snapshot_id)["Successful"]
        assert enabled["State"] == "enabling"
        aws.cloud.clock.advance(10)
        assert fast_state(aws, snapshot_id) == "optimizing"
        aws.cloud.clock.advance(1799)
        assert fast_state(aws, snapshot_id) == "optimizing"
        aws.cloud.clock.advance(1)
        assert fast_state(aws, snapshot_id) == "enabled"
        asked = {"AvailabilityZones": [ZONE], "SourceSnapshotIds": [snapshot_id]}
        [disabled] = aws.ec2.disable_fast_snapshot_restores(**asked)["Successful"]
        assert disabled["State"] == "disabling"
        aws.cloud.clock.advance(10)
        assert fast_state(aws, snapshot_id) == "disabled"
        enable_fast(aws, snapshot_id)
        aws.ec2.delete_snapshot(SnapshotId=snapshot_id)
        assert fast_state(aws, snapshot_id) == ""


@row("fast-limits")
def test_what_cannot_be_restored_fast_is_told_beside_what_can(tmp_path: Path) -> None:
    with account(tmp_path, quotas=Quotas(fast_restores=1)) as aws:
        vast = aws.cloud.add_volume(None, image=aws.image, size_gib=17_000)
        large = aws.ec2.create_snapshot(VolumeId=vast)["SnapshotId"]
        first, second = aws.snapshot(), aws.snapshot()
        answer = enable_fast(aws, large, first, second, "snap-00")
        assert ids(answer["Successful"], "SnapshotId") == [first]
        codes = {
            each["SnapshotId"]: each["FastSnapshotRestoreStateErrors"][0]["Error"]["Code"]
            for each in answer["Unsuccessful"]
        }
        assert codes == {
            large: "InvalidParameterValue",
            second: "ResourceLimitExceeded",
            "snap-00": "InvalidSnapshot.NotFound",
        }


@row("fast-credits")
def test_a_volume_is_restored_fast_where_there_is_a_credit(aws: Account) -> None:
    volume = aws.cloud.add_volume(None, image=aws.image, size_gib=1024)
    snapshot_id = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    enable_fast(aws, snapshot_id)

    def fast(**asked: Any) -> bool:
        made = aws.new_volume(SnapshotId=snapshot_id, **asked)["VolumeId"]
        [described] = aws.ec2.describe_volumes(VolumeIds=[made])["Volumes"]
        return bool(described["FastRestored"])

    aws.cloud.clock.advance(3600)
    assert fast_state(aws, snapshot_id) == "enabled"
    assert not fast()
    aws.cloud.clock.advance(3600)
    assert not fast(AvailabilityZone=OTHER_ZONE)
    assert not fast(VolumeInitializationRate=100)
    assert [fast(), fast()] == [True, False]
