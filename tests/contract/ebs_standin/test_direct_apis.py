"""The stand-in for EBS, seen through boto3: the direct APIs."""

import base64
import hashlib
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

from standin.ebs import Delays, Paging, Quotas
from standin.ebs.images import BLOCK_BYTES
from tests.contract.ebs_standin.conftest import Account, account, full_image, refused, row


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
