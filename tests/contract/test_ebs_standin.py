"""The stand-in for EBS, seen through boto3: each row of its list of behaviours has a test of that name."""

import base64
import hashlib
import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import standin.ebs
from standin.ebs import UNLIMITED, Delays, EbsStandin, Paging, Quotas
from standin.ebs.images import BLOCK_BYTES, clone
from tests.support.busy_volumes import reflink_folder
from tests.support.loop_mounts import needs_loop_mounts

T = TypeVar("T", bound=Callable[..., None])

ROWS: set[str] = set()
ZONE, OTHER_ZONE = "us-east-1a", "us-east-1b"


def row(*names: str) -> Callable[[T], T]:
    """Marks a test of these rows."""
    ROWS.update(names)
    return lambda test: test


class Account:
    """A stand-in, its two clients, an instance with a data volume and a root volume."""

    def __init__(self, cloud: EbsStandin, folder: Path, clients: ExitStack) -> None:
        self.cloud = cloud
        self.folder = folder
        self._clients = clients
        self.ec2, self.ebs = self.client("ec2"), self.client("ebs")
        self.image = self.make_image("data.img", {0: b"a", 3: b"b", 5: b"c"})
        self.instance = cloud.add_instance(tags={"Name": "db"})
        self.volume = cloud.add_volume(self.instance, image=self.image, device="/dev/sdf", tags={"of": "db"})
        root = self.make_image("root.img", {1: b"r"})
        self.root = cloud.add_volume(self.instance, image=root, device="/dev/xvda", root=True)

    def client(self, service: Any) -> Any:
        config = Config(
            retries={"total_max_attempts": 1}, parameter_validation=False, connect_timeout=5, read_timeout=20
        )
        made = boto3.client(
            service,
            endpoint_url=self.cloud.endpoint,
            region_name=self.cloud.region,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=config,
        )
        return self._clients.enter_context(closing(made))

    def make_image(self, name: str, blocks: dict[int, bytes], size: int = 8 << 20) -> Path:
        image = self.folder / name
        with image.open("xb") as file:
            file.truncate(size)
        self.write(blocks, image)
        return image

    def write(self, blocks: dict[int, bytes], image: Path | None = None) -> None:
        with (image or self.image).open("r+b") as file:
            for index, byte in blocks.items():
                file.seek(index * BLOCK_BYTES)
                file.write(byte * BLOCK_BYTES)

    def snapshot(self, **more: Any) -> str:
        """A snapshot of the data volume; its id."""
        self.cloud.clock.advance(60)
        specification = {"InstanceId": self.instance, "ExcludeBootVolume": True}
        [made] = self.ec2.create_snapshots(InstanceSpecification=specification, **more)["Snapshots"]
        return str(made["SnapshotId"])

    def described(self, snapshot_id: str) -> dict[str, Any]:
        [one] = self.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        return dict(one)

    def listed(self, snapshot_id: str, **more: Any) -> list[int]:
        blocks = self.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, **more)["Blocks"]
        return [block["BlockIndex"] for block in blocks]

    def token(self, snapshot_id: str, index: int) -> str:
        page = self.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, StartingBlockIndex=index)
        return str(page["Blocks"][0]["BlockToken"])

    def block(self, snapshot_id: str, index: int, token: str | None = None) -> bytes:
        token = token or self.token(snapshot_id, index)
        answer = self.ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token)
        return bytes(answer["BlockData"].read())

    def changes(self, second: str, first: str | None = None, **more: Any) -> dict[int, set[str]]:
        """The sides that have a token, by changed block; of one page."""
        asked = {"FirstSnapshotId": first} if first else {}
        page = self.ebs.list_changed_blocks(SecondSnapshotId=second, **asked, **more)
        return {
            each["BlockIndex"]: {name[0] for name in each if name.endswith("Token")}
            for each in page["ChangedBlocks"]
        }

    def new_volume(self, **asked: Any) -> dict[str, Any]:
        return dict(self.ec2.create_volume(**{"AvailabilityZone": ZONE, "VolumeType": "gp3"} | asked))

    def volume_state(self, volume_id: str) -> str:
        [volume] = self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
        return str(volume["State"])


@contextmanager
def account(folder: Path, **terms: Any) -> Iterator[Account]:
    """Time stands still in it."""
    cloud = EbsStandin(folder / "cloud", frozen_clock=True, **terms)
    with ExitStack() as clients, cloud:
        yield Account(cloud, folder, clients)


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Account]:
    with account(tmp_path) as opened:
        yield opened


@contextmanager
def refused(code: str, reason: str | None = None, status: int | None = None) -> Iterator[None]:
    """The block gets this error."""
    with pytest.raises(ClientError) as caught:
        yield
    answer: Any = caught.value.response
    assert answer["Error"]["Code"] == code, answer
    if reason:
        assert answer["Reason"] == reason
    if status:
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == status


def ids(items: list[dict[str, Any]], name: str) -> list[str]:
    return [item[name] for item in items]


@row("pending")
def test_a_snapshot_is_pending_at_first_and_has_the_bytes_of_the_request(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(snapshot=100)) as aws:
        specification = {"InstanceId": aws.instance, "ExcludeBootVolume": True}
        [made] = aws.ec2.create_snapshots(InstanceSpecification=specification)["Snapshots"]
        assert (made["State"], made["Progress"], made["VolumeSize"]) == ("pending", "", 1)
        assert made["StartTime"] == datetime(2026, 1, 1, tzinfo=UTC)
        aws.write({0: b"z"})
        aws.cloud.clock.advance(40)
        assert aws.described(made["SnapshotId"])["Progress"] == "40%"
        aws.cloud.clock.advance(60)
        now = aws.described(made["SnapshotId"])
        assert (now["State"], now["Progress"]) == ("completed", "100%")
        assert now["FullSnapshotSizeInBytes"] == 3 * BLOCK_BYTES
        assert aws.block(made["SnapshotId"], 0) == b"a" * BLOCK_BYTES


@row("pending")
def test_the_response_says_pending_even_where_the_snapshot_is_done_at_once(aws: Account) -> None:
    made = aws.ec2.create_snapshot(VolumeId=aws.volume)
    assert (made["State"], made["Progress"]) == ("pending", "")
    assert aws.described(made["SnapshotId"])["State"] == "completed"


@row("excluded")
def test_each_attached_volume_is_in_the_set_that_is_not_excluded(aws: Account) -> None:
    other = aws.cloud.add_volume(aws.instance, image=aws.image, device="/dev/sdg")
    aws.cloud.add_volume(None, image=aws.image)

    def volumes(**specification: Any) -> list[str]:
        aws.cloud.clock.advance(60)
        asked = {"InstanceId": aws.instance, **specification}
        return ids(aws.ec2.create_snapshots(InstanceSpecification=asked)["Snapshots"], "VolumeId")

    assert volumes() == [aws.volume, other, aws.root]
    assert volumes(ExcludeBootVolume=True) == [aws.volume, other]
    assert volumes(ExcludeDataVolumeIds=[other]) == [aws.volume, aws.root]
    before = len(aws.cloud.snapshots())
    for wrong in ([aws.root], [other] * 41):
        with refused("InvalidParameterValue"):
            volumes(ExcludeDataVolumeIds=wrong)
    with refused("InvalidVolume.NotFound"):
        volumes(ExcludeDataVolumeIds=["vol-00"])
    with refused("InvalidInstanceID.NotFound"):
        volumes(InstanceId="i-00")
    assert len(aws.cloud.snapshots()) == before


@row("consistent")
def test_the_clones_of_a_call_are_made_within_one_pause_of_the_writers(tmp_path: Path) -> None:
    pauses = []

    @contextmanager
    def paused() -> Iterator[None]:
        before = len(list(tmp_path.glob("cloud/snap-*")))
        yield
        pauses.append(len(list(tmp_path.glob("cloud/snap-*"))) - before)

    with account(tmp_path, around_clones=paused) as aws:
        aws.ec2.create_snapshots(InstanceSpecification={"InstanceId": aws.instance})
    assert pauses == [2]


@needs_loop_mounts
def test_a_clone_on_a_file_system_with_reflinks_is_a_point_in_time_of_a_busy_file(tmp_path: Path) -> None:
    with reflink_folder(tmp_path) as folder, account(folder, quotas=UNLIMITED) as aws:
        stop, filled = threading.Event(), threading.Event()
        blocks = 16

        def keep_writing() -> None:  # the same number into one block after the other
            with aws.image.open("r+b", buffering=0) as file:
                number = 0
                while not stop.is_set():
                    number += 1
                    for index in range(blocks):
                        file.seek(index * BLOCK_BYTES)
                        file.write(number.to_bytes(8, "big"))
                    filled.set()

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            assert filled.wait(30)
            made = [aws.snapshot() for _ in range(5)]
        finally:
            stop.set()
            writer.join()
        for snapshot in aws.cloud.snapshots():
            assert snapshot.atomic
        for snapshot_id in made:
            numbers = [int.from_bytes(aws.block(snapshot_id, at)[:8], "big") for at in range(blocks)]
            assert numbers == sorted(numbers, reverse=True)
            assert numbers[0] - numbers[-1] <= 1


@row("tagged")
def test_the_snapshots_of_a_set_have_the_tags_asked_for_and_those_of_their_volume(aws: Account) -> None:
    tags = {"ResourceType": "snapshot", "Tags": [{"Key": "run", "Value": "1"}]}
    plain = aws.snapshot(TagSpecifications=[tags])
    copied = aws.snapshot(TagSpecifications=[tags], CopyTagsFromSource="volume")
    assert aws.described(plain)["Tags"] == [{"Key": "run", "Value": "1"}]
    assert aws.described(copied)["Tags"] == [{"Key": "of", "Value": "db"}, {"Key": "run", "Value": "1"}]
    many = [{"Key": str(number), "Value": ""} for number in range(51)]
    with refused("TagLimitExceeded"):
        aws.snapshot(TagSpecifications=[{"ResourceType": "snapshot", "Tags": many}])
    for wrong in ({"ResourceType": "volume", "Tags": []}, tags | {"Tags": [{"Key": "aws:x", "Value": ""}]}):
        with refused("InvalidParameterValue"):
            aws.snapshot(TagSpecifications=[wrong])


@row("repeated")
def test_the_same_call_again_makes_another_set(aws: Account) -> None:
    assert aws.snapshot() != aws.snapshot()
    assert len(aws.cloud.snapshots()) == 2


@row("rates")
def test_a_volume_is_snapshotted_once_in_fifteen_seconds(aws: Account) -> None:
    aws.snapshot()
    aws.cloud.clock.advance(14)
    with refused("SnapshotCreationPerVolumeRateExceeded"):
        aws.ec2.create_snapshot(VolumeId=aws.volume)
    with refused("SnapshotCreationPerVolumeRateExceeded"):
        aws.ec2.create_snapshots(InstanceSpecification={"InstanceId": aws.instance})
    aws.cloud.clock.advance(1)
    aws.ec2.create_snapshot(VolumeId=aws.volume)
    aws.ec2.create_snapshot(VolumeId=aws.root)


@row("rates")
def test_only_so_many_snapshots_are_pending_at_a_time(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(snapshot=10_000), quotas=Quotas(pending_snapshots=6)) as aws:
        for _ in range(5):
            aws.snapshot()
        with refused("ConcurrentSnapshotLimitExceeded"):
            aws.snapshot()
        aws.ec2.create_snapshot(VolumeId=aws.root)
        with refused("PendingSnapshotLimitExceeded"):
            aws.snapshot()
        aws.cloud.clock.advance(10_000)
        aws.snapshot()


@row("described")
def test_snapshots_are_found_by_owner_id_and_filter(aws: Account) -> None:
    def found(**asked: Any) -> list[str]:
        return ids(aws.ec2.describe_snapshots(**asked)["Snapshots"], "SnapshotId")

    def filtered(name: str, *values: str) -> list[str]:
        return found(Filters=[{"Name": name, "Values": list(values)}])

    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "run", "Value": "night[1]"}]}]
    first, second = aws.snapshot(TagSpecifications=tags), aws.snapshot(Description="two")
    assert found() == found(OwnerIds=["self"]) == found(OwnerIds=["123456789012"]) == [first, second]
    assert found(OwnerIds=["amazon"]) == []
    assert found(SnapshotIds=[second]) == [second]
    assert filtered("tag:run", "other", "night[1]") == filtered("tag-key", "run") == [first]
    assert filtered("tag:run", "n?ght*") == [first]
    assert filtered("tag:run", "night") == []
    assert filtered("description", "two") == [second]
    assert filtered("status", "completed") == filtered("volume-id", aws.volume) == [first, second]
    assert filtered("status", "pending", "error") == []
    with refused("InvalidParameterValue"):
        filtered("no-such-filter", "x")
    with refused("InvalidSnapshot.NotFound"):
        found(SnapshotIds=[first, "snap-00"])
    with refused("InvalidSnapshotID.Malformed"):
        found(SnapshotIds=["snap"])


@row("described")
def test_snapshots_come_in_pages(aws: Account) -> None:
    made = [aws.snapshot() for _ in range(12)]
    pages = list(aws.ec2.get_paginator("describe_snapshots").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["Snapshots"]) for page in pages] == [5, 5, 2]
    assert [each for page in pages for each in ids(page["Snapshots"], "SnapshotId")] == made
    with refused("InvalidParameterValue"):
        aws.ec2.describe_snapshots(MaxResults=4)
    with refused("InvalidParameterValue"):
        aws.ec2.describe_snapshots(NextToken="no token")


@row("ended")
def test_a_snapshot_can_end_badly_with_a_message(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(snapshot=100)) as aws:
        snapshot_id = aws.snapshot()
        aws.cloud.doom_snapshot(snapshot_id, "The key is not there")
        assert aws.described(snapshot_id)["State"] == "pending"
        assert "StateMessage" not in aws.described(snapshot_id)
        aws.cloud.clock.advance(100)
        ended = aws.described(snapshot_id)
        assert (ended["State"], ended["StateMessage"]) == ("error", "The key is not there")
        other = aws.snapshot()
        aws.cloud.end_snapshot(other, "recoverable", "in the bin")
        assert aws.described(other)["State"] == "recoverable"
        for each in (snapshot_id, other):
            with refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404):
                aws.listed(each)


@row("eventual")
def test_a_new_snapshot_may_not_show_at_once(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(describe=5)) as aws:
        snapshot_id = aws.snapshot()
        assert aws.ec2.describe_snapshots()["Snapshots"] == []
        with refused("InvalidSnapshot.NotFound"):
            aws.described(snapshot_id)
        aws.cloud.clock.advance(5)
        assert aws.described(snapshot_id)["SnapshotId"] == snapshot_id


@row("deleted")
def test_a_snapshot_is_deleted_unless_it_is_locked_or_in_use(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(snapshot=1000)) as aws:
        snapshot_id = aws.snapshot()
        aws.cloud.use_snapshot(snapshot_id, "ami-1")
        with refused("InvalidSnapshot.InUse"):
            aws.ec2.delete_snapshot(SnapshotId=snapshot_id)
        aws.cloud.use_snapshot(snapshot_id, None)
        aws.cloud.lock_snapshot(snapshot_id, 60)
        with refused("OperationNotPermitted"):
            aws.ec2.delete_snapshot(SnapshotId=snapshot_id)
        aws.cloud.clock.advance(60)
        aws.ec2.delete_snapshot(SnapshotId=snapshot_id)
        with refused("InvalidSnapshot.NotFound"):
            aws.ec2.delete_snapshot(SnapshotId=snapshot_id)
        with refused("ResourceNotFoundException"):
            aws.listed(snapshot_id)
        assert list((tmp_path / "cloud").iterdir()) == []


@row("kept")
def test_later_snapshots_keep_what_a_deleted_one_had(aws: Account) -> None:
    first = aws.snapshot()
    aws.write({3: b"\0", 7: b"d"})
    second = aws.snapshot()
    aws.ec2.delete_snapshot(SnapshotId=first)
    assert aws.listed(second) == [0, 3, 5, 7]
    assert aws.block(second, 0) == b"a" * BLOCK_BYTES


@row("tags")
def test_tags_are_added_and_overwritten(aws: Account) -> None:
    snapshot_id = aws.snapshot()
    tags = [{"Key": "a", "Value": "1"}, {"Key": "of", "Value": "new"}]
    aws.ec2.create_tags(Resources=[snapshot_id, aws.volume, aws.instance], Tags=tags)
    assert aws.described(snapshot_id)["Tags"] == tags
    [volume] = aws.ec2.describe_volumes(VolumeIds=[aws.volume])["Volumes"]
    assert volume["Tags"] == [{"Key": "of", "Value": "new"}, {"Key": "a", "Value": "1"}]
    with refused("InvalidVolume.NotFound"):
        aws.ec2.create_tags(Resources=[snapshot_id, "vol-00"], Tags=[{"Key": "b", "Value": ""}])
    assert aws.described(snapshot_id)["Tags"] == tags


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


@row("completed")
def test_only_completed_snapshots_are_served(tmp_path: Path) -> None:
    with account(tmp_path, delays=Delays(snapshot=10, readable=3)) as aws:
        snapshot_id = aws.snapshot()
        for seconds in (0, 10, 2):
            aws.cloud.clock.advance(seconds)
            with refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404):
                aws.listed(snapshot_id)
        assert aws.described(snapshot_id)["State"] == "completed"
        aws.cloud.clock.advance(1)
        assert aws.listed(snapshot_id) == [0, 3, 5]
        with refused("ValidationException", "INVALID_SNAPSHOT_ID", 400):
            aws.listed("snap-XYZ")


@row("archived")
def test_archived_snapshots_are_not_served(aws: Account) -> None:
    snapshot_id = aws.snapshot()
    token = aws.token(snapshot_id, 0)
    aws.cloud.archive_snapshot(snapshot_id)
    assert aws.described(snapshot_id)["StorageTier"] == "archive"
    with refused("ValidationException"):
        aws.listed(snapshot_id)
    with refused("ValidationException"):
        aws.block(snapshot_id, 0, token)
    aws.cloud.archive_snapshot(snapshot_id, "standard")
    assert aws.listed(snapshot_id) == [0, 3, 5]


@row("listed")
def test_only_written_blocks_are_listed_in_order(aws: Account) -> None:
    with aws.image.open("r+b") as file:
        file.seek(9 * BLOCK_BYTES - 1)
        file.write(b"x")  # the last byte of block 8
        file.seek(12 * BLOCK_BYTES)
        file.write(bytes(BLOCK_BYTES))  # allocated, but zeros as before
    page = aws.ebs.list_snapshot_blocks(SnapshotId=aws.snapshot())
    assert [block["BlockIndex"] for block in page["Blocks"]] == [0, 3, 5, 8]
    assert (page["VolumeSize"], page["BlockSize"]) == (1, 512 << 10)
    assert page["ExpiryTime"] == aws.cloud.clock.now() + timedelta(days=7)
    assert "NextToken" not in page
    for block in page["Blocks"]:
        assert re.fullmatch("[A-Za-z0-9+/=]{1,256}", block["BlockToken"])


@row("listed")
def test_a_block_that_was_overwritten_with_zeros_is_still_written(aws: Account) -> None:
    aws.snapshot()
    aws.write({3: b"\0", 4: b"\0"})
    assert aws.listed(aws.snapshot()) == [0, 3, 5]


def full_image(aws: Account, blocks: int) -> str:
    """A snapshot of a volume whose first blocks are all written."""
    image = aws.folder / "full.img"
    with image.open("xb") as file:
        file.truncate(blocks * BLOCK_BYTES)
        for index in range(blocks):
            file.seek(index * BLOCK_BYTES)
            file.write(b"x")
    volume = aws.cloud.add_volume(None, image=image, volume_id="vol-0f")
    return str(aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])


@row("limited")
def test_a_page_has_at_least_a_hundred_places_and_at_most_ten_thousand(aws: Account) -> None:
    snapshot_id = full_image(aws, 250)
    assert len(aws.listed(snapshot_id)) == 250
    assert len(aws.listed(snapshot_id, MaxResults=120)) == 120
    assert len(aws.listed(snapshot_id, MaxResults=7)) == 100
    assert len(aws.listed(snapshot_id, MaxResults=10_000)) == 250
    with refused("ValidationException", "INVALID_PARAMETER_VALUE"):
        aws.listed(snapshot_id, MaxResults=10_001)
    aws.cloud.paging.page_cap = 30
    assert len(aws.listed(snapshot_id, MaxResults=120)) == 30


@row("started")
def test_a_listing_starts_at_an_index_unless_it_goes_on(aws: Account) -> None:
    snapshot_id = full_image(aws, 250)
    assert aws.listed(snapshot_id, StartingBlockIndex=240) == list(range(240, 250))
    assert aws.listed(aws.snapshot(), StartingBlockIndex=1) == [3, 5]
    assert aws.listed(snapshot_id, StartingBlockIndex=99_999) == []
    token = aws.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100)["NextToken"]
    assert aws.listed(snapshot_id, NextToken=token, StartingBlockIndex=240)[0] == 100


@row("paged")
def test_pages_follow_each_other_for_an_hour(aws: Account) -> None:
    snapshot_id, other = full_image(aws, 250), aws.snapshot()
    first = aws.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100)
    second = aws.ebs.list_snapshot_blocks(
        SnapshotId=snapshot_id, MaxResults=150, NextToken=first["NextToken"]
    )
    assert [block["BlockIndex"] for block in second["Blocks"]] == list(range(100, 250))
    assert "NextToken" not in second
    for wrong, token in ((other, first["NextToken"]), (snapshot_id, "AAAA")):
        with refused("ValidationException", "INVALID_PAGE_TOKEN"):
            aws.listed(wrong, NextToken=token)
    aws.cloud.clock.advance(3599)
    assert aws.listed(snapshot_id, NextToken=first["NextToken"])[0] == 100
    aws.cloud.clock.advance(1)
    with refused("ValidationException", "INVALID_PAGE_TOKEN"):
        aws.listed(snapshot_id, NextToken=first["NextToken"])


@row("paged")
def test_a_page_may_be_empty_and_go_on(tmp_path: Path) -> None:
    with account(tmp_path, paging=Paging(empty_every=2)) as aws:
        snapshot_id = full_image(aws, 250)
        sizes, indexes = [], []
        asked: dict[str, Any] = {}
        while True:
            page = aws.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100, **asked)
            sizes.append(len(page["Blocks"]))
            indexes += [block["BlockIndex"] for block in page["Blocks"]]
            if "NextToken" not in page:
                break
            asked = {"NextToken": page["NextToken"]}
        assert sizes == [100, 0, 100, 0, 50]
        assert indexes == list(range(250))


@row("changed")
def test_changed_blocks_have_a_token_of_each_side_that_has_them(aws: Account) -> None:
    first = aws.snapshot()
    aws.write({3: b"B", 5: b"c", 7: b"new"[:1]})
    punch(aws.image, 0)
    second = aws.snapshot()
    assert aws.changes(second, first) == {0: {"F"}, 3: {"F", "S"}, 7: {"S"}}
    assert aws.changes(first, second) == {0: {"S"}, 3: {"F", "S"}, 7: {"F"}}
    page = aws.ebs.list_changed_blocks(SecondSnapshotId=second, FirstSnapshotId=first)
    [three] = [each for each in page["ChangedBlocks"] if each["BlockIndex"] == 3]
    assert aws.block(first, 3, three["FirstBlockToken"]) == b"b" * BLOCK_BYTES
    assert aws.block(second, 3, three["SecondBlockToken"]) == b"B" * BLOCK_BYTES
    assert (page["VolumeSize"], page["BlockSize"]) == (1, BLOCK_BYTES)


def punch(image: Path, index: int) -> None:
    """Trim a block: make a hole of it."""
    place = ["--offset", str(index * BLOCK_BYTES), "--length", str(BLOCK_BYTES)]
    subprocess.run(["fallocate", "--punch-hole", *place, image], check=True)


@row("changed-pages")
def test_a_page_of_changes_spans_written_blocks_and_may_be_empty(aws: Account) -> None:
    first = full_image(aws, 1000)
    image = aws.folder / "full.img"
    aws.write({999: b"y"}, image)
    aws.cloud.clock.advance(60)
    second = aws.ec2.create_snapshot(VolumeId="vol-0f")["SnapshotId"]
    pages = []
    asked: dict[str, Any] = {"FirstSnapshotId": first, "SecondSnapshotId": second, "MaxResults": 100}
    for _ in range(10):
        page = aws.ebs.list_changed_blocks(**asked)
        pages.append([each["BlockIndex"] for each in page["ChangedBlocks"]])
        asked["NextToken"] = page.get("NextToken")
    assert pages == [[]] * 9 + [[999]]
    assert asked["NextToken"] is None
    assert list(aws.changes(second, first, MaxResults=100, StartingBlockIndex=950)) == [999]


@row("unchanged")
def test_a_block_that_was_written_but_not_changed_may_be_reported(aws: Account) -> None:
    first = aws.snapshot()
    aws.write({3: b"B"})
    second = aws.snapshot()
    assert list(aws.changes(second, first)) == [3]
    aws.cloud.paging.unchanged_every = 2
    assert aws.changes(second, first) == {0: {"F", "S"}, 3: {"F", "S"}}


@row("related")
def test_only_snapshots_of_one_lineage_are_compared(aws: Account) -> None:
    first = aws.snapshot()
    copied = aws.new_volume(SnapshotId=first)["VolumeId"]
    aws.write({1: b"z"}, aws.cloud.volume_image(copied))
    child = aws.ec2.create_snapshot(VolumeId=copied)["SnapshotId"]
    assert aws.changes(child, first) == {1: {"S"}}
    root = aws.ec2.create_snapshot(VolumeId=aws.root)["SnapshotId"]
    with refused("ValidationException", "UNRELATED_SNAPSHOTS", 400):
        aws.changes(root, first)
    with refused("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"):
        aws.changes(first, "snap-00")


@row("all-changed")
def test_without_a_first_snapshot_all_blocks_are_changed(aws: Account) -> None:
    assert aws.changes(aws.snapshot()) == {0: {"S"}, 3: {"S"}, 5: {"S"}}


@row("block")
def test_a_block_comes_with_its_length_and_checksum(aws: Account) -> None:
    snapshot_id = aws.snapshot()
    token = aws.token(snapshot_id, 3)
    answer = aws.ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=3, BlockToken=token)
    data = answer["BlockData"].read()
    assert data == b"b" * BLOCK_BYTES
    assert answer["DataLength"] == BLOCK_BYTES
    assert answer["ChecksumAlgorithm"] == "SHA256"
    assert answer["Checksum"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert aws.cloud.calls.blocks_fetched == 1
    assert aws.cloud.calls.distinct_blocks == {(snapshot_id, 3)}


def test_a_block_at_the_end_of_an_odd_image_is_filled_with_zeros(aws: Account) -> None:
    image = aws.make_image("odd.img", {}, size=BLOCK_BYTES + 5)
    with image.open("r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(b"12345")
    snapshot_id = aws.ec2.create_snapshot(VolumeId=aws.cloud.add_volume(None, image=image))["SnapshotId"]
    assert aws.listed(snapshot_id) == [1]
    assert aws.block(snapshot_id, 1) == b"12345".ljust(BLOCK_BYTES, b"\0")


@row("token")
def test_a_token_is_good_for_its_block_of_its_snapshot_for_a_week(aws: Account) -> None:
    first, second = aws.snapshot(), aws.snapshot()
    token = aws.token(first, 3)
    for snapshot_id, index, wrong in ((first, 5, token), (second, 3, token), (first, 3, "AAAA")):
        with refused("ValidationException", "INVALID_BLOCK_TOKEN", 400):
            aws.block(snapshot_id, index, wrong)
    with refused("ValidationException", "INVALID_BLOCK"):
        aws.block(first, 2048, token)
    aws.cloud.clock.advance(7 * 86_400 - 1)
    aws.block(first, 3, token)
    aws.cloud.clock.advance(1)
    with refused("ValidationException", "INVALID_BLOCK_TOKEN"):
        aws.block(first, 3, token)
    aws.block(first, 3)


@row("throttled")
def test_requests_over_the_quotas_are_throttled_with_their_reason(tmp_path: Path) -> None:
    quotas = Quotas(get_per_snapshot=3, get_per_account=4, list_per_account=6)
    with account(tmp_path, quotas=quotas, throttle_by_clock=True) as aws:
        first, second = aws.snapshot(), aws.snapshot()
        tokens = {each: aws.token(each, 0) for each in (first, second)}
        aws.cloud.clock.advance(1)
        for _ in range(3):
            aws.block(first, 0, tokens[first])
        with refused("RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", 400):
            aws.block(first, 0, tokens[first])
        aws.block(second, 0, tokens[second])
        with refused("RequestThrottledException", "ACCOUNT_THROTTLED"):
            aws.block(second, 0, tokens[second])
        for _ in range(6):
            aws.listed(first)
        with refused("RequestThrottledException", "ACCOUNT_THROTTLED"):
            aws.listed(first)
        aws.cloud.clock.advance(1)
        aws.block(first, 0, tokens[first])
        assert aws.cloud.calls.errors("RequestThrottledException") == 3


def test_requests_to_ec2_can_be_limited_too(tmp_path: Path) -> None:
    with account(tmp_path, quotas=Quotas(ec2_per_account=2), throttle_by_clock=True) as aws:
        for _ in range(2):
            aws.ec2.describe_volumes()
        with refused("RequestLimitExceeded", status=503):
            aws.ec2.describe_volumes()


@row("denied")
def test_a_caller_without_permission_is_denied(aws: Account) -> None:
    aws.cloud.faults.deny("CreateSnapshots")
    aws.cloud.faults.deny_direct("ListSnapshotBlocks", times=1)
    for _ in range(2):
        with refused("UnauthorizedOperation", status=403):
            aws.snapshot()
    aws.cloud.faults.clear()
    aws.cloud.faults.deny_direct("ListSnapshotBlocks", times=1)
    snapshot_id = aws.snapshot()
    with refused("AccessDeniedException", "UNAUTHORIZED_ACCOUNT", 403):
        aws.listed(snapshot_id)
    aws.listed(snapshot_id)


@row("faults")
def test_a_call_fails_before_or_after_its_effect(aws: Account) -> None:
    aws.cloud.faults.fail("CreateSnapshots")
    with refused("InternalError", status=500):
        aws.snapshot()
    assert aws.cloud.snapshots() == []
    aws.cloud.faults.fail("CreateSnapshots", "Unavailable", status=503, after_effect=True)
    with refused("Unavailable", status=503):
        aws.snapshot()
    assert len(aws.cloud.snapshots()) == 1
    for after_effect in (False, True):
        aws.cloud.faults.cut("CreateSnapshots", after_effect=after_effect)
        with pytest.raises(BotoCoreError):
            aws.snapshot()
        assert len(aws.cloud.snapshots()) == 1 + after_effect
    assert aws.cloud.calls.errors("cut") == 2


@row("faults")
def test_faults_strike_the_call_that_they_are_meant_for(aws: Account) -> None:
    aws.cloud.faults.fail("DescribeVolumes", skip=1, times=2)
    outcomes = []
    for _ in range(4):
        try:
            aws.ec2.describe_volumes()
            outcomes.append("done")
        except ClientError:
            outcomes.append("failed")
    assert outcomes == ["done", "failed", "failed", "done"]
    snapshot_id = aws.snapshot()
    aws.cloud.faults.throttle(
        "GetSnapshotBlock", "DEPENDENCY_REQUEST_THROTTLED", where=lambda asked: asked["BlockIndex"] == 3
    )
    aws.block(snapshot_id, 0)
    with refused("RequestThrottledException", "DEPENDENCY_REQUEST_THROTTLED"):
        aws.block(snapshot_id, 3)
    aws.block(snapshot_id, 3)
    called: list[str] = []
    aws.cloud.faults.run("*", lambda: called.append("x"), times=None)
    aws.ec2.describe_volumes()
    aws.listed(snapshot_id)
    assert called == ["x", "x"]


@row("faults")
def test_a_block_arrives_damaged_or_cut_short_or_late(aws: Account) -> None:
    snapshot_id = aws.snapshot()
    token = aws.token(snapshot_id, 0)
    aws.cloud.faults.wrong_checksum()
    answer = aws.ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=0, BlockToken=token)
    data = answer["BlockData"].read()
    assert len(data) == BLOCK_BYTES
    assert answer["Checksum"] != base64.b64encode(hashlib.sha256(data).digest()).decode()
    aws.cloud.faults.truncate()
    with pytest.raises(BotoCoreError):
        aws.block(snapshot_id, 0, token)
    aws.cloud.faults.delay("GetSnapshotBlock", 0.2)
    before = time.monotonic()
    assert aws.block(snapshot_id, 0, token) == b"a" * BLOCK_BYTES
    assert time.monotonic() - before >= 0.2
    assert aws.cloud.calls.blocks_fetched == 2


def test_calls_are_logged_with_their_parameters(aws: Account) -> None:
    aws.ec2.describe_volumes(VolumeIds=[aws.volume])
    with pytest.raises(ClientError):
        aws.ec2.describe_volumes(VolumeIds=["vol-00"])
    logged = [(call.parameters["VolumeIds"], call.error) for call in aws.cloud.calls.all("DescribeVolumes")]
    assert logged == [([aws.volume], ""), (["vol-00"], "InvalidVolume.NotFound")]
    assert aws.cloud.calls.counts() == {"DescribeVolumes": 2}


def test_an_unknown_action_is_refused(aws: Account) -> None:
    with refused("InvalidAction"):
        aws.ec2.describe_images()
    for asked in ({"SnapshotId": "snap-00"}, {"SnapshotId": "snap-00", "BlockIndex": "x"}):
        with pytest.raises(ClientError) as caught:
            aws.ebs.get_snapshot_block(**{"BlockIndex": "", "BlockToken": "t"} | asked)
        assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def test_many_clients_read_at_the_same_time(aws: Account) -> None:
    snapshot_id = full_image(aws, 64)
    tokens = aws.ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    wrong: list[object] = []

    def read(blocks: list[dict[str, Any]]) -> None:
        try:
            wrong.extend(
                block
                for block in blocks
                if aws.block(snapshot_id, block["BlockIndex"], block["BlockToken"])[:2] != b"x\0"
            )
        except Exception as error:  # shown by the assertion below
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(tokens[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(aws.cloud.calls.distinct_blocks) == 64


def test_a_sparse_copy_keeps_holes_and_bytes(tmp_path: Path) -> None:
    image, copy = tmp_path / "a.img", tmp_path / "b.img"
    with image.open("xb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"x" * 5000)
    clone(image, copy)
    assert copy.read_bytes() == image.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20


def test_it_runs_by_hand(tmp_path: Path) -> None:
    image = tmp_path / "db.img"
    image.write_bytes(b"x" * 4096)
    command = [sys.executable, "-m", "standin.ebs", "--volume", f"vol-0a={image}:/dev/sdf"]
    root = Path(standin.ebs.__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            endpoint = lines[2].removeprefix("export AWS_ENDPOINT_URL_EBS=http://").strip()
            with closing(http.client.HTTPConnection(endpoint, timeout=10)) as connection:
                connection.request("GET", "/snapshots/snap-00/blocks")
                assert connection.getresponse().status == 404
        finally:
            process.terminate()
    assert process.returncode == 0, lines
    assert lines[0].startswith("# vol-0a /dev/sdf on i-")


def test_no_limits_are_none(tmp_path: Path) -> None:
    with account(tmp_path, quotas=UNLIMITED) as aws:
        for _ in range(20):
            aws.ec2.create_snapshot(VolumeId=aws.volume)
        snapshot_id = aws.cloud.snapshots()[0].snapshot_id
        for _ in range(70):
            aws.listed(snapshot_id)


def test_every_row_of_the_list_has_a_test() -> None:
    listed = re.findall(r"^    ([a-z-]+) \|", standin.ebs.__doc__ or "", re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == ROWS
