"""Each function may do what it must and no more."""

import re

import pytest

from questdb_backup.ebs.base import KEPT_UNTIL_TAG, STACK_TAG
from tests.template.cloudformation import (
    actions,
    as_list,
    environment,
    functions,
    resources,
    statements,
    template,
)

IN_VPC = {
    "read_database",
    "create_checkpoint",
    "check_checkpoint",
    "verify_checkpoint",
    "release_checkpoint",
}
RESTORE = {"plan_restore", "download_partitions", "complete_restore", "fail_restore"}
PRUNE = "prune_backups"


def _may(name: str, action: str) -> set[str]:
    """The resources on which a function may do that, as their text."""
    return {
        resource["Fn::Sub"].split("/_backup/")[1] if "Fn::Sub" in resource else str(resource)
        for statement in statements(functions()[name])
        if action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def test_only_the_functions_that_talk_to_the_database_are_always_in_the_vpc() -> None:
    always = {name for name, each in functions().items() if "SubnetIds" in each.get("VpcConfig", {})}
    optional = {name for name, each in functions().items() if "Fn::If" in each.get("VpcConfig", {})}
    assert always == IN_VPC
    assert optional == RESTORE


@pytest.mark.parametrize("name", sorted(IN_VPC))
def test_a_function_in_the_vpc_may_read_the_secret_and_nothing_else(name: str) -> None:
    # The right to join the VPC comes with VpcConfig: SAM adds AWSLambdaVPCAccessExecutionRole.
    assert actions(functions()[name]) == {"secretsmanager:GetSecretValue", "kms:Decrypt"}
    for statement in statements(functions()[name]):
        assert statement["Resource"] in ({"Ref": "DatabaseSecretArn"}, {"Ref": "DatabaseSecretKeyArn"})


@pytest.mark.parametrize("name", sorted(IN_VPC))
def test_a_function_in_the_vpc_knows_the_server_and_neither_store_nor_table(name: str) -> None:
    assert set(environment(functions()[name])) == {
        "QDB_BACKUP_DATABASE_HOST",
        "QDB_BACKUP_DATABASE_PORT",
        "QDB_BACKUP_DATABASE_SECRET_ARN",
    }


def test_the_password_is_nowhere_but_in_secrets_manager() -> None:
    for name in set(functions()) - IN_VPC:
        assert "secretsmanager:GetSecretValue" not in actions(functions()[name]), name
    assert not any("password" in name.lower() for name in template()["Parameters"])


def test_a_worker_cannot_delete() -> None:
    for name in ("upload_partitions", "download_partitions"):
        assert not [action for action in actions(functions()[name]) if "Delete" in action]


def test_a_worker_writes_packs_and_results_and_swaps_the_catalog() -> None:
    assert _may("upload_partitions", "s3:PutObject") == {
        "*/packs/*",
        "*/runs/*/results/*",
        "*/catalog.json",
    }


def test_only_prune_deletes_objects() -> None:
    assert {name for name in functions() if _may(name, "s3:DeleteObject")} == {PRUNE}
    assert _may(PRUNE, "s3:DeleteObject") == {
        "*/manifests/*",
        "*/packs/*",
        "*/runs/*",
        "*/tables/*",
        "*/tombstones/*",
    }


def test_nobody_deletes_versions_or_changes_the_bucket_or_the_table() -> None:
    for name, properties in functions().items():
        for action in actions(properties):
            assert not re.match(
                r"s3:(DeleteObjectVersion|PutBucket|DeleteBucket|PutLifecycle|Bypass)", action
            )
            assert action not in ("dynamodb:DeleteTable", "dynamodb:UpdateTable"), name


def test_restore_writes_nothing_to_the_store() -> None:
    for name in RESTORE | {"restore_database", "list_backups", "abort_backup"}:
        assert not _may(name, "s3:PutObject")


def test_the_manifest_is_written_by_the_commit_alone() -> None:
    assert {name for name in functions() if "*/manifests/*" in _may(name, "s3:PutObject")} == {
        "complete_backup"
    }


def test_the_names_of_the_instances_are_written_by_those_who_learn_of_them() -> None:
    """The first step finds the name, the planner sees in the snapshot which database it is."""
    assert {name for name in functions() if "instances.json" in _may(name, "s3:PutObject")} == {
        "acquire_lock",
        "plan_backup",
    }


def test_whoever_may_swap_an_object_may_read_it() -> None:
    for name in functions():
        assert _may(name, "s3:PutObject") & {"*/catalog.json", "instances.json"} <= _may(name, "s3:GetObject")


def test_whoever_reads_objects_is_told_which_are_missing() -> None:
    """Without the right to list the bucket S3 answers 403 for a key that is not there."""
    for name, properties in functions().items():
        allowed = actions(properties)
        assert ("s3:GetObject" in allowed) == ("s3:ListBucket" in allowed), name


def test_whoever_touches_objects_may_use_the_key_of_the_bucket() -> None:
    for name, properties in functions().items():
        allowed = actions(properties)
        assert ("s3:GetObject" in allowed) == ("kms:GenerateDataKey" in allowed), name


def test_whoever_has_a_right_on_store_or_table_knows_it_and_the_other_way_round() -> None:
    for name, properties in functions().items():
        allowed, variables = actions(properties), environment(properties)
        assert ("s3:GetObject" in allowed) == ("QDB_BACKUP_OBJECT_STORE" in variables), name
        touches_table = any(action.startswith("dynamodb:") for action in allowed)
        assert touches_table == ("QDB_BACKUP_STATUS_TABLE" in variables), name


def _who_may(action: str) -> set[str]:
    return {name for name, properties in functions().items() if action in actions(properties)}


def test_who_makes_reads_and_deletes_snapshots() -> None:
    assert _who_may("ec2:CreateSnapshots") == {"create_snapshots"}
    assert _who_may("ec2:CreateTags") == {"create_snapshots", "restore_volumes"}
    assert _who_may("ec2:CreateVolume") == _who_may("ec2:AttachVolume") == {"restore_volumes"}
    assert _who_may("ec2:DeleteSnapshot") == {PRUNE, "guard_checkpoint"}
    assert _who_may("ebs:GetSnapshotBlock") == {"plan_backup", "upload_partitions"}
    assert _who_may("ebs:ListSnapshotBlocks") == {"plan_backup", "upload_partitions"}
    assert _who_may("ebs:ListChangedBlocks") == {"plan_backup"}


def test_snapshots_are_made_with_the_stacks_tag_and_no_other_is_read_or_deleted() -> None:
    stack, seen = {"Ref": "AWS::StackName"}, set()
    for name, properties in functions().items():
        for statement in statements(properties):
            for action in as_list(statement["Action"]):
                on_snapshots = "snapshot/*" in str(statement["Resource"])
                if action.startswith("ebs:") or action == "ec2:DeleteSnapshot":
                    assert on_snapshots, name
                    tag = {f"aws:ResourceTag/{STACK_TAG}": stack}
                    assert statement["Condition"] == {"StringEquals": tag}, name
                    seen.add(action)
                elif action == "ec2:CreateSnapshots" and on_snapshots:
                    assert statement["Condition"] == {"StringEquals": {f"aws:RequestTag/{STACK_TAG}": stack}}
                    seen.add(action)
                elif action == "ec2:CreateTags":
                    made_by = "CreateSnapshots" if on_snapshots else "CreateVolume"
                    later = {
                        "StringEquals": {f"aws:ResourceTag/{STACK_TAG}": stack},
                        "ForAllValues:StringEquals": {"aws:TagKeys": [KEPT_UNTIL_TAG]},
                    }
                    at_birth = {"StringEquals": {"ec2:CreateAction": made_by}}
                    keeps = name == "restore_volumes" and on_snapshots
                    assert statement["Condition"] == (later if keeps else at_birth)
                    seen.add(action)
    assert len(seen) == 6


def test_whoever_reads_blocks_may_use_the_key_of_the_volumes() -> None:
    for name in functions():
        has_key = "VolumeKmsKeyArn" in str(statements(functions()[name]))
        assert has_key == (name in _who_may("ebs:GetSnapshotBlock") | {"restore_volumes"}), name


def test_no_policy_has_a_wildcard_for_its_resource_but_the_delivery_of_logs_and_descriptions() -> None:
    every = [
        *functions().values(),
        *(m["Properties"] for m in resources("AWS::Serverless::StateMachine").values()),
    ]
    for properties in every:
        for statement in statements(properties):
            if statement["Resource"] == "*":
                granted = as_list(statement["Action"])
                assert all(
                    action.startswith(("logs:", "ec2:Describe", "lambda:GetAccountSettings"))
                    for action in granted
                )
            assert not any(action.endswith("*") for action in as_list(statement["Action"]))


def test_the_guard_reads_and_releases_through_the_functions_in_the_vpc() -> None:
    guard = functions()["guard_checkpoint"]
    invoked = [s["Resource"] for s in statements(guard) if s["Action"] == "lambda:InvokeFunction"]
    assert invoked == [
        [{"Fn::GetAtt": [f"{name}Function", "Arn"]} for name in ("ReadDatabase", "ReleaseCheckpoint")]
    ]
    assert environment(guard)["QDB_BACKUP_READ_DATABASE_FUNCTION"] == {"Ref": "ReadDatabaseFunction"}
    assert environment(guard)["QDB_BACKUP_RELEASE_CHECKPOINT_FUNCTION"] == {
        "Ref": "ReleaseCheckpointFunction"
    }
