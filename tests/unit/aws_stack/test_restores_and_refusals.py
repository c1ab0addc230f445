"""Restores of a deployed stack, and what AWS refuses."""

import json
from contextlib import closing
from typing import Any

import boto3
import pytest
from moto import mock_aws

from questdb_backup.aws_stack import Stack
from questdb_backup.errors import (
    BackupAbortedError,
    BackupToolError,
    ConfigurationError,
    NoRestorePointError,
    RestoreFailedError,
    StatusUnavailableError,
)
from tests.support.aws_endpoint import RESTORE_EXECUTION, AwsEndpoint
from tests.unit.aws_stack.conftest import RESTORED, RUNNING, failed


def test_a_restore_is_started_by_its_function_and_followed_to_its_result(
    stack: Stack, aws: AwsEndpoint
) -> None:
    aws.functions["restore"] = lambda _: {"execution_arn": RESTORE_EXECUTION}
    aws.executions.extend([RUNNING, {"status": "SUCCEEDED", "output": json.dumps(RESTORED)}])

    execution = stack.start_restore({"timestamp": "2024-08-24"})

    assert stack.follow_restore(execution) == RESTORED
    assert aws.named("invoke restore") == [{"timestamp": "2024-08-24"}]
    assert {sent["executionArn"] for sent in aws.named("DescribeExecution")} == {RESTORE_EXECUTION}


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (failed("NoRestorePointError", json.dumps({"errorMessage": "none"})), NoRestorePointError),
        ({"status": "ABORTED", "cause": "by hand"}, RestoreFailedError),
    ],
)
def test_a_restore_that_fails_raises_what_it_failed_with(
    stack: Stack, aws: AwsEndpoint, ended: dict[str, Any], error: type[BackupToolError]
) -> None:
    aws.executions.append(ended)

    with pytest.raises(error):
        stack.follow_restore(RESTORE_EXECUTION)


def test_a_restore_whose_answer_is_lost_is_not_started_twice(stack: Stack, aws: AwsEndpoint) -> None:
    aws.functions["restore"] = lambda _: {"execution_arn": RESTORE_EXECUTION}
    stack.start_restore({})
    aws.refusals.append((503, "ServiceException"))

    with pytest.raises(StatusUnavailableError):
        stack.start_restore({})
    assert len(aws.named("invoke restore")) == 2


@pytest.mark.parametrize(
    ("status", "code", "error", "hint"),
    [
        (403, "AccessDenied", ConfigurationError, "allow the action"),
        (403, "ExpiredToken", ConfigurationError, "renew the credentials"),
        (400, "Throttling", StatusUnavailableError, "try again"),
        (500, "InternalFailure", StatusUnavailableError, "try again"),
        (400, "Whatever", ConfigurationError, "check the stack's name"),
    ],
)
def test_what_aws_refuses_has_a_hint(
    hasty: Stack, aws: AwsEndpoint, status: int, code: str, error: type[BackupToolError], hint: str
) -> None:
    aws.refusals.append((status, code))

    with pytest.raises(error, match=f"the stack 'prod': {code}: no. Hint: .*{hint}"):
        hasty.backups()


def test_a_stack_that_does_not_exist_is_told(aws: AwsEndpoint) -> None:
    with closing(Stack("prd")) as stack, pytest.raises(ConfigurationError, match="prd does not exist"):
        stack.backups()


def test_a_stack_of_another_kind_is_told(stack: Stack, aws: AwsEndpoint) -> None:
    aws.outputs = {"Website": "x"}

    with pytest.raises(ConfigurationError, match="has no output ListBackupsFunctionName"):
        stack.backups()


def test_no_credentials_no_region_and_no_such_profile_are_told(
    monkeypatch: pytest.MonkeyPatch, aws: AwsEndpoint
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with closing(Stack("prod")) as stack, pytest.raises(ConfigurationError, match="Hint: log in"):
        stack.backups()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with closing(Stack("prod")) as stack, pytest.raises(ConfigurationError, match="set AWS_DEFAULT_REGION"):
        stack.backups()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with closing(Stack("prod")) as stack, pytest.raises(ConfigurationError, match="nobody"):
        stack.backups()


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://127.0.0.1:1", StatusUnavailableError), ("no url", ConfigurationError)],
)
def test_an_endpoint_that_does_not_answer_or_is_none_is_told(
    monkeypatch: pytest.MonkeyPatch, url: str, error: type[BackupToolError]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    with closing(Stack("prod", attempts=1)) as stack, pytest.raises(error):
        stack.backups()


@mock_aws
def test_another_implementation_of_the_apis_gives_what_is_read_here() -> None:
    states = boto3.client("stepfunctions")
    role = "arn:aws:iam::123456789012:role/r"
    definition = '{"StartAt": "A", "States": {"A": {"Type": "Pass", "End": true}}}'
    machine = states.create_state_machine(name="prod-backup", definition=definition, roleArn=role)
    template = {
        "Resources": {"T": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {"BackupStateMachineArn": {"Value": machine["stateMachineArn"]}},
    }
    boto3.client("cloudformation").create_stack(StackName="prod", TemplateBody=json.dumps(template))

    def stop(_seconds: float) -> None:
        states.stop_execution(executionArn=execution, error="BackupAbortedError", cause="by hand")

    with closing(Stack("prod", sleep=stop)) as stack:
        execution = stack.start_backup()
        assert stack._oldest_running() == execution
        with pytest.raises(BackupAbortedError):
            stack.follow_backup(execution)
