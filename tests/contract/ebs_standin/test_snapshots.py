"""The stand-in for EBS, seen through boto3: snapshots of EC2."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from standin.ebs import UNLIMITED, Delays, Quotas
from standin.ebs.images import BLOCK_BYTES, clone
from tests.contract.ebs_standin.conftest import Account, account, ids, refused, row
from tests.support.busy_volumes import reflink_folder
from tests.support.loop_mounts import needs_loop_mounts


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


def test_a_sparse_copy_keeps_holes_and_bytes(tmp_path: Path) -> None:
    image, copy = tmp_path / "a.img", tmp_path / "b.img"
    with image.open("xb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"x" * 5000)
    clone(image, copy)
    assert copy.read_bytes() == image.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20
