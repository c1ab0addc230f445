"""Executions and functions of a stack, as RestoreDatabase and the guard use them; moto and stubs answer."""

import io
import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from questdb_backup import aws_workflow
from questdb_backup.aws_workflow import (
    describe_execution,
    invoke_function,
    is_execution,
    start_execution,
    stop_execution,
    worker_limit,
)
from questdb_backup.errors import (
    CheckpointBusyError,
    ConfigurationError,
    PermanentError,
    StatusUnavailableError,
)
from tests.support.backups import INSTANCE, make_services
from tests.unit.aws_functions.conftest import EXECUTION, call

MACHINE_ROLE = "arn:aws:iam::123456789012:role/x"


def make_machine() -> str:
    definition = json.dumps(
        {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}}
    )
    client = boto3.client("stepfunctions")
    answer = client.create_state_machine(name="stack-restore", definition=definition, roleArn=MACHINE_ROLE)
    return answer["stateMachineArn"]


def test_the_restore_function_starts_the_machine_with_the_checked_request(
    cloud: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine()
    monkeypatch.setenv("QDB_BACKUP_RESTORE_STATE_MACHINE_ARN", machine)
    request = {"instance": INSTANCE, "timestamp": "2026-03-01", "dry_run": False}
    answer = call("RestoreDatabase", request, make_services())
    described = boto3.client("stepfunctions").describe_execution(executionArn=answer["execution_arn"])
    assert json.loads(described["input"]) == {"instance": INSTANCE, "timestamp": "2026-03-01"}
    with pytest.raises(ConfigurationError, match="no field 'tmestamp'"):
        call("RestoreDatabase", {"tmestamp": "2026-03-01"}, make_services())
    monkeypatch.delenv("QDB_BACKUP_RESTORE_STATE_MACHINE_ARN")
    with pytest.raises(ConfigurationError, match="QDB_BACKUP_RESTORE_STATE_MACHINE_ARN is missing"):
        call("RestoreDatabase", {}, make_services())


def test_an_execution_is_started_described_and_stopped(cloud: None) -> None:
    execution = start_execution(make_machine(), {})
    assert is_execution(execution)
    assert not is_execution("local:host:1")
    assert describe_execution(execution) == "RUNNING"
    assert stop_execution(execution, "because") is True
    assert describe_execution(execution) == "ABORTED"


def test_an_execution_that_does_not_exist_is_no_error(cloud: None) -> None:
    missing = make_machine().replace("stateMachine", "execution") + ":gone"
    assert describe_execution(missing) is None
    assert stop_execution(missing, "because") is False


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ThrottlingException", StatusUnavailableError),
        ("AccessDeniedException", ConfigurationError),
        ("InvalidArn", PermanentError),
    ],
)
def test_errors_of_the_sdk_get_our_names(
    cloud: None, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    client = aws_workflow._step_functions()

    def fail(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeExecution")

    monkeypatch.setattr(client, "describe_execution", fail)
    with pytest.raises(error, match="describing"):
        describe_execution(EXECUTION)


def test_a_network_that_is_gone_is_transient(cloud: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://x")

    monkeypatch.setattr(aws_workflow._step_functions(), "start_execution", fail)
    with pytest.raises(StatusUnavailableError):
        start_execution("arn:x", {})


def answer_of(value: object, **more: object) -> dict[str, Any]:
    data = json.dumps(value).encode()
    return {"StatusCode": 200, "Payload": StreamingBody(io.BytesIO(data), len(data)), **more}


@pytest.mark.parametrize(("free", "workers"), [(1000, 996), (10, 6), (2, 1)])
def test_some_functions_are_left_to_others(cloud: None, free: int, workers: int) -> None:
    with Stubber(aws_workflow._lambda(aws_workflow._LIMITS_SECONDS, 2)) as stub:
        stub.add_response("get_account_settings", {"AccountLimit": {"UnreservedConcurrentExecutions": free}})
        assert worker_limit() == workers


def test_a_limit_that_is_not_told_is_none(cloud: None, caplog: pytest.LogCaptureFixture) -> None:
    with Stubber(aws_workflow._lambda(aws_workflow._LIMITS_SECONDS, 2)) as stub:
        stub.add_client_error("get_account_settings", "AccessDeniedException", http_status_code=403)
        assert worker_limit() is None
    assert "not known how many workers" in caplog.text


def test_a_function_is_invoked_and_its_error_raised_under_its_own_class(cloud: None) -> None:
    with Stubber(aws_workflow._lambda()) as stub:
        stub.add_response("invoke", answer_of({"outcome": "free"}))
        assert invoke_function("release", {"fence": {}}) == {"outcome": "free"}
        told = {"errorType": "CheckpointBusyError", "errorMessage": "busy. Hint: wait."}
        stub.add_response("invoke", answer_of(told, FunctionError="Unhandled"))
        with pytest.raises(CheckpointBusyError, match="busy"):
            invoke_function("release", {})
        stub.add_response("invoke", answer_of({"errorMessage": "Task timed out"}, FunctionError="Unhandled"))
        with pytest.raises(PermanentError, match="Task timed out"):
            invoke_function("release", {})
