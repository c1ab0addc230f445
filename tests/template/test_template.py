"""What the stack promises: data that stays, alarms that ring, options that are explained."""

import json
import re
import tomllib
from typing import Any

import pytest

from tests.template.cloudformation import (
    ROOT,
    camel_case,
    environment,
    functions,
    resources,
    template,
)

OPTIONAL = re.compile(r"^\^\$\|")


def _parameters() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = template()["Parameters"]
    return found


@pytest.mark.parametrize("name", ["BackupBucket", "BackupBucketPolicy", "StatusTable"])
def test_the_data_survives_the_stack(name: str) -> None:
    assert template()["Resources"][name]["DeletionPolicy"] == "Retain"
    assert template()["Resources"][name]["UpdateReplacePolicy"] == "Retain"


def test_no_lifecycle_rule_expires_data() -> None:
    for rule in template()["Resources"]["BackupBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]:
        assert not [key for key in rule if key in ("ExpirationInDays", "ExpirationDate", "Expiration")]


def test_incomplete_uploads_and_noncurrent_versions_go() -> None:
    rules = template()["Resources"]["BackupBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    keys = {key for rule in rules for key in rule}
    assert {"AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"} <= keys
    assert all(rule["Status"] == "Enabled" for rule in rules)


def test_the_bucket_is_versioned_encrypted_and_private() -> None:
    bucket = template()["Resources"]["BackupBucket"]["Properties"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert list(bucket["PublicAccessBlockConfiguration"].values()) == [True] * 4


def test_the_bucket_refuses_plain_http_and_a_second_write_of_what_is_stored() -> None:
    policy = template()["Resources"]["BackupBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    denied = {statement["Sid"]: statement for statement in policy}
    assert all(statement["Effect"] == "Deny" for statement in policy)
    assert denied["TlsOnly"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    written_once = {each["Fn::Sub"].split("/_backup/*/")[1] for each in denied["WrittenOnce"]["Resource"]}
    assert written_once == {"manifests/*", "packs/*", "runs/*", "tables/*", "tombstones/*"}


def test_the_table_can_be_restored_to_a_point_in_time() -> None:
    table = template()["Resources"]["StatusTable"]["Properties"]
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["KeySchema"] == [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ]


def test_every_function_and_state_machine_logs_to_a_group_with_retention() -> None:
    groups = resources("AWS::Logs::LogGroup")
    for name, properties in functions().items():
        assert properties["LoggingConfig"] == {"LogGroup": {"Ref": f"{camel_case(name)}LogGroup"}}
        assert f"{camel_case(name)}LogGroup" in groups
    for machine in resources("AWS::Serverless::StateMachine").values():
        logging = machine["Properties"]["Logging"]
        assert logging["IncludeExecutionData"] is False
        (destination,) = logging["Destinations"]
        assert destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"][0] in groups
        assert machine["Properties"]["Tracing"] == {"Enabled": True}
    assert all(
        group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups.values()
    )
    assert len(groups) == len(functions()) + 2


def test_every_parameter_is_described_grouped_and_labelled() -> None:
    interface = template()["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(_parameters())
    assert set(interface["ParameterLabels"]) == set(_parameters())
    assert all(parameter.get("Description") for parameter in _parameters().values())


def test_every_parameter_is_bounded() -> None:
    for name, parameter in _parameters().items():
        if parameter["Type"] == "Number":
            assert "AllowedValues" in parameter or {"MinValue", "MaxValue"} <= set(parameter), name
        elif parameter["Type"] == "String":
            assert "AllowedValues" in parameter or {"MaxLength", "AllowedPattern"} <= set(parameter), name
        if "AllowedPattern" in parameter:
            assert parameter["ConstraintDescription"].startswith("must be"), name


def test_every_default_is_allowed() -> None:
    for name, parameter in _parameters().items():
        if "Default" not in parameter:
            continue
        default = parameter["Default"]
        assert default in parameter.get("AllowedValues", [default]), name
        assert re.search(parameter.get("AllowedPattern", ""), str(default)), name
        if parameter["Type"] == "Number" and "MinValue" in parameter:
            assert parameter["MinValue"] <= default <= parameter["MaxValue"], name


def test_an_option_that_is_empty_by_default_has_a_condition() -> None:
    texts = json.dumps(template()["Conditions"])
    for name, parameter in _parameters().items():
        if parameter.get("Default") == "":
            assert OPTIONAL.match(parameter["AllowedPattern"]), name
            assert f'{{"Ref": "{name}"}}' in texts, name


def test_every_parameter_and_condition_is_used() -> None:
    used = json.dumps({key: template()[key] for key in ("Conditions", "Globals", "Resources")})
    for name in _parameters():
        assert f'"Ref": "{name}"' in used or f"${{{name}}}" in used, name
    used = json.dumps({key: template()[key] for key in ("Resources", "Outputs")})
    for name in template()["Conditions"]:
        assert f'"Fn::If": ["{name}"' in used or f'"Condition": "{name}"' in used, name


def test_path_is_refused_and_the_reason_is_told() -> None:
    source = _parameters()["Source"]
    assert source["AllowedValues"] == ["ebs"]
    for text in (source["Description"], source["ConstraintDescription"]):
        assert "path" in text
        assert "server's own disk" in text.replace("\n", " ")


def test_backups_are_scheduled_by_default() -> None:
    assert _parameters()["ScheduleState"]["Default"] == "ENABLED"


def test_the_checkpoint_does_not_wait_for_a_slow_processor() -> None:
    """From 1,769 MB a function has a whole CPU."""
    for name in ("create_snapshots", "plan_backup", "upload_partitions"):
        assert functions()[name]["MemorySize"] >= 1769


def test_a_schedule_is_given_up_after_an_hour_and_three_tries() -> None:
    events = resources("AWS::Serverless::StateMachine")["BackupStateMachine"]["Properties"]["Events"]
    for event in events.values():
        assert event["Type"] == "ScheduleV2"
        assert event["Properties"]["RetryPolicy"] == {
            "MaximumEventAgeInSeconds": 3600,
            "MaximumRetryAttempts": 3,
        }
        assert event["Properties"]["ScheduleExpressionTimezone"] == {"Ref": "ScheduleTimezone"}
        assert event["Properties"]["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}


def test_the_guard_runs_when_a_backup_ends_badly_and_every_five_minutes() -> None:
    events = functions()["guard_checkpoint"]["Events"]
    detail = events["ExecutionEnded"]["Properties"]["Pattern"]["detail"]
    assert detail["status"] == ["FAILED", "TIMED_OUT", "ABORTED"]
    assert detail["stateMachineArn"] == [{"Ref": "BackupStateMachine"}]
    assert events["Watch"]["Properties"]["ScheduleExpression"] == "rate(5 minutes)"
    assert "State" not in events["Watch"]["Properties"]


def test_every_alarm_tells_the_topic_what_is_wrong() -> None:
    for name, alarm in resources("AWS::CloudWatch::Alarm").items():
        assert {"Ref": "AlarmTopic"} in alarm["Properties"]["AlarmActions"], name
        assert alarm["Properties"]["AlarmDescription"], name


def test_silence_of_the_guard_rings() -> None:
    for name in ("GuardSilentAlarm", "NoRecentBackupAlarm"):
        assert resources("AWS::CloudWatch::Alarm")[name]["Properties"]["TreatMissingData"] == "breaching"


def test_alarms_and_dashboard_use_the_dimensions_that_the_functions_emit() -> None:
    ours = [
        alarm["Properties"]
        for alarm in resources("AWS::CloudWatch::Alarm").values()
        if alarm["Properties"].get("Namespace") == "QuestDBBackup"
    ]
    shared = template()["Globals"]["Function"]["Environment"]["Variables"]
    assert shared["POWERTOOLS_METRICS_NAMESPACE"] == "QuestDBBackup"
    for alarm in ours:
        assert alarm["Dimensions"] == [
            {"Name": "service", "Value": shared["POWERTOOLS_SERVICE_NAME"]},
            {"Name": "Stack", "Value": shared["QDB_BACKUP_STACK_NAME"]},
        ]
    for widget in _widgets():
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], str) and metric[0] != ".":
                assert metric[0] == shared["POWERTOOLS_METRICS_NAMESPACE"]
                assert metric[2:6] == ["service", shared["POWERTOOLS_SERVICE_NAME"], "Stack", "STACK"]


def _widgets() -> list[dict[str, Any]]:
    body = template()["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    filled = body.replace("${AWS::StackName}", "STACK")
    widgets: list[dict[str, Any]] = json.loads(re.sub(r"\$\{[\w:.]+\}", "1", filled))["widgets"]
    return widgets


def test_the_dashboard_shows_every_figure() -> None:
    text = json.dumps(_widgets())
    for metric in (
        "BackupAgeSeconds",
        "DurationSeconds",
        "CheckpointHeldSeconds",
        "BytesRead",
        "BytesStored",
        "BytesReused",
        "ObjectsPruned",
        "BackupSucceeded",
        "BackupFailed",
        "GuardHeartbeat",
    ):
        assert metric in text


def test_no_account_region_or_partition_is_written_out() -> None:
    text = re.sub(r"#.*", "", (ROOT / "template.yaml").read_text())
    text = re.sub(r"(Allowed|Input)Pattern: .*", "", text)
    assert not re.search(r"\b\d{12}\b", text)
    assert not re.search(r"\b(us|eu|ap|sa|ca|me|af)-[a-z]+-\d\b", text)
    assert "arn:aws" not in text


def test_every_output_is_described() -> None:
    assert all(output["Description"] for output in template()["Outputs"].values())


def test_settings_are_called_as_on_one_machine() -> None:
    from questdb_backup.settings import PROPERTIES

    settings = {known.variable for known in PROPERTIES}
    assert {
        "QDB_BACKUP_OBJECT_STORE",
        "QDB_BACKUP_INSTANCE_NAME",
        "QDB_BACKUP_CLEANUP_KEEP_LATEST_N",
        "QDB_BACKUP_COMPRESSION_LEVEL",
    } <= settings & {name for each in functions().values() for name in environment(each)}


def test_the_dependencies_layer_has_what_the_project_needs_but_the_terminal() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    layer = (ROOT / "layers" / "dependencies" / "requirements.txt").read_text().split()
    assert layer == [each for each in project if not each.startswith("rich")]


def test_the_layer_is_built_for_the_functions_python_and_architecture() -> None:
    shared = template()["Globals"]["Function"]
    makefile = (ROOT / "layers" / "dependencies" / "Makefile").read_text()
    assert shared["Runtime"] == "python" + re.findall(r"--python-version (\S+)", makefile)[0]
    assert shared["Architectures"] == ["arm64"]
    assert set(re.findall(r"--platform \w+_(\w+64)", makefile)) == {"aarch64"}
    for layer in resources("AWS::Serverless::LayerVersion").values():
        assert layer["Properties"]["CompatibleRuntimes"] == [shared["Runtime"]]
        assert layer["Properties"]["CompatibleArchitectures"] == shared["Architectures"]
