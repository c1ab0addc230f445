"""The stand-in for EBS, seen through boto3: what goes wrong on demand."""

import base64
import hashlib
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from standin.ebs.images import BLOCK_BYTES
from tests.contract.ebs_standin.conftest import Account, refused, row


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
