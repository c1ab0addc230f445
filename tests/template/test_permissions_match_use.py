"""What the functions really call on AWS is what their policies allow, no more and hardly less.

The calls are those of the SDK's clients, recorded while the whole bundle runs on this host.
"""

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from questdb_backup.engine.execution import Status
from questdb_backup.steps import prune
from standin.ebs import Delays
from tests.support.backups import FolderSource, make_root
from tests.support.deployed import BUCKET, Deploy, DeployedStack
from tests.support.deployed_template import REGION
from tests.support.interrupted import Interrupted
from tests.template.cloudformation import resources

Use = tuple[str, str, str]
RENEWING = (
    "AcquireLock",
    "CheckPreflight",
    "RecordIntent",
    "CheckSnapshots",
    "PlanBackup",
    "UploadPartitions",
    "CompleteBackup",
)
NEVER_CALLED_HERE = {
    "s3:ListBucket",  # without it S3 answers 403 for a key that is not there
    "secretsmanager:GetSecretValue",  # the server is in memory, so its secret is not read
    "ebs:GetSnapshotBlock",  # what is read out of the snapshots is a folder here
    "ebs:ListChangedBlocks",
    "ebs:ListSnapshotBlocks",
    "kms:Decrypt",  # S3, Secrets Manager and Lambda call these in a function's name
    "kms:GenerateDataKey",
    "kms:CreateGrant",  # EC2 calls these in a function's name
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "elasticfilesystem:ClientMount",
    "elasticfilesystem:ClientWrite",
}


def change(root: Path, text: str) -> None:
    (root / "db/trades~1/sym.c").write_text(text)


def run_backups(stack: DeployedStack, root: Path) -> None:
    """Backups until retention has deleted what it may, the lease being renewed in every step."""
    for number, name in enumerate(RENEWING):  # each sees a lease with less than half of its own term
        services = stack.services(f"{name}Function")
        services.config = replace(services.config, lease_seconds=100.0 * 3**number)
    for number in range(4):
        change(root, f"symbols {number}")
        stack.backed_up()
        stack.clock.forward(hours=49)
    stack.invoke("GuardCheckpointFunction", {"trigger": "schedule"})
    stack.invoke("ListBackupsFunction", {})


def run_failures(stack: DeployedStack, root: Path) -> None:
    """A backup that fails, one that is aborted, one whose release fails, and the guard after each."""

    def lose_a_file() -> None:
        stack.invoke("ListBackupsFunction", {})
        raise FileNotFoundError

    change(root, "one more")
    stack.source = Interrupted(root, lose_a_file)
    assert stack.run("Backup", {}).status is Status.FAILED
    stack.source = Interrupted(root, lambda: stack.invoke("AbortBackupFunction", {}))
    assert stack.run("Backup", {}).status is Status.ABORTED
    stack.source = FolderSource(root)
    stack.ebs.faults.run(
        "CreateSnapshots", lambda: setattr(stack.database, "is_down", True), after_effect=True
    )
    assert stack.run("Backup", {}).status is Status.FAILED
    stack.database.is_down = False
    report = stack.invoke("GuardCheckpointFunction", {})
    assert report["outcome"] == "ended"
    assert report["snapshots_deleted"]
    stack.ebs.faults.fail("CreateSnapshots", "RequestLimitExceeded", "slow down", status=503)
    stack.clock.forward(hours=49)
    stack.backed_up()
    stack.clock.forward(hours=49)
    stack.backed_up()


def run_restores(stack: DeployedStack, root: Path) -> None:
    """Restores to a volume, one to a folder that succeeds, and one that finds a pack missing."""
    change(root, "to be restored")
    stack.backed_up()
    zone = {"availability_zone": f"{REGION}a"}
    stack.ebs.delays = Delays(optimize_fast_restore_tib=0.0)
    for volume in (
        {**zone, "attach_to": stack.instance, "initialization_rate": 300},
        {**zone, "fast_snapshot_restore": True},
    ):
        request = {"target": "volume", "volume": volume}
        arn = stack.invoke("RestoreDatabaseFunction", request)["execution_arn"]
        assert stack.result(arn).status is Status.SUCCEEDED, stack.result(arn).cause
    for target, status in (("good", Status.SUCCEEDED), ("bad", Status.FAILED)):
        arn = stack.invoke("RestoreDatabaseFunction", {"root": target})["execution_arn"]
        assert stack.result(arn).status is status, stack.result(arn).cause
        for key in stack.stored():
            if "/packs/" in key:
                stack.s3.delete_object(Bucket=BUCKET, Key=key)


@pytest.fixture
def used(deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DeployedStack, set[Use]]:
    """A stack with its options on, and every function, action and resource of what the bundle called."""
    monkeypatch.setattr(prune, "_INLINE_NAMES", 1)
    (tmp_path / "mount").mkdir()
    root = make_root(tmp_path / "origin", big=1000)
    calls: set[Use] = set()
    for run in (run_backups, run_failures, run_restores):
        stack = deploy(restore_root=str(tmp_path / "mount"), twice=run is run_backups, CleanupKeepLatestN="1")
        stack.source = FolderSource(root)
        run(stack, root)
        calls |= stack.used
        stack.close()
    return stack, calls


def allows(statement: dict[str, list[str]], action: str, resource: str) -> bool:
    return action in statement["Action"] and any(
        fnmatchcase(resource, pattern) for pattern in statement["Resource"]
    )


def test_what_is_called_is_what_is_allowed(used: tuple[DeployedStack, set[Use]]) -> None:
    stack, calls = used
    names = list(resources("AWS::Serverless::Function"))
    policies = {name: stack.template.statements(name) for name in names}
    refused = [call for call in calls if not any(allows(each, *call[1:]) for each in policies[call[0]])]
    assert not refused

    def is_used(function: str, action: str, pattern: str) -> bool:
        return any(call[:2] == (function, action) and fnmatchcase(call[2], pattern) for call in calls)

    unused = {
        (name, action, pattern.split("/_backup/")[-1])
        for name in names
        for each in policies[name]
        for action in each["Action"]
        for pattern in each["Resource"]
        if action not in NEVER_CALLED_HERE and not is_used(name, action, pattern)
    }
    assert unused == set()
    deleting = {name for name, action, _ in calls if action == "s3:DeleteObject"}
    assert deleting == {"PruneBackupsFunction"}
