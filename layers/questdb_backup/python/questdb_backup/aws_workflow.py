"""The calls to Step Functions and Lambda that functions outside the workflow make."""

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from questdb_backup import errors
from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    PermanentError,
    StatusUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient

_ANSWER_SECONDS = 890
"""A little less than the caller's own 900 s, so that it ends with an error of its own."""
_BUSY = {"ThrottlingException", "TooManyRequestsException", "ServiceException", "InternalFailure"}
_GONE = "ExecutionDoesNotExist"


def required(environ: Mapping[str, str], name: str) -> str:
    """A variable that the template sets. Raise ConfigurationError where it does not."""
    value = environ.get(name)
    if not value:
        raise ConfigurationError(f"the environment variable {name} is missing", "deploy the template again")
    return value


def is_execution(holder: str) -> bool:
    """Whether a lease's holder is an execution of Step Functions, and no process of another host."""
    return holder.startswith("arn:") and ":execution:" in holder


def start_execution(state_machine_arn: str, value: dict[str, Any]) -> str:
    """Start an execution; give its ARN. Raise ConfigurationError, StatusUnavailableError, PermanentError."""
    with _translated(f"starting {state_machine_arn}"):
        answer = _step_functions().start_execution(stateMachineArn=state_machine_arn, input=json.dumps(value))
        return answer["executionArn"]


def stop_execution(execution_arn: str, reason: str) -> bool:
    """Stop an execution; give whether there is such a one."""
    with _translated(f"stopping {execution_arn}"):
        client = _step_functions()
        try:
            client.stop_execution(executionArn=execution_arn, error="BackupAbortedError", cause=reason)
        except client.exceptions.ExecutionDoesNotExist:
            return False
    return True


def describe_execution(execution_arn: str) -> str | None:
    """The status of an execution, say ``RUNNING`` or ``FAILED``; None where there is no such one."""
    with _translated(f"describing {execution_arn}"):
        client = _step_functions()
        try:
            return client.describe_execution(executionArn=execution_arn)["status"]
        except client.exceptions.ExecutionDoesNotExist:
            return None


def invoke_function(name: str, event: dict[str, Any]) -> Any:
    """Call a function of the stack and wait for its result.

    What the function raised is raised here, under its own class. Raise StatusUnavailableError where
    Lambda itself did not answer.
    """
    with _translated(f"invoking {name}"):
        answer = _lambda().invoke(FunctionName=name, Payload=json.dumps(event).encode())
        value = json.loads(answer["Payload"].read() or b"null")
    if answer.get("FunctionError"):
        raise _as_error(name, value)
    return value


def _as_error(function: str, value: Any) -> BackupToolError:
    told = value if isinstance(value, dict) else {}
    kind, text = str(told.get("errorType", "")), str(told.get("errorMessage", ""))
    known = getattr(errors, kind, None)
    fact, _, hint = text.partition(". Hint: ")
    if isinstance(known, type) and issubclass(known, BackupToolError):
        return known(fact, hint)
    return PermanentError(f"the function {function} failed with {kind or 'no reason'}: {text}")


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Wrap the errors of the SDK."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        text = f"{what}: {error.response.get('Error', {}).get('Message', code)}"
        if code in _BUSY:
            raise StatusUnavailableError(text, "try again") from error
        if code == "AccessDeniedException":
            raise ConfigurationError(text, "give the function's role the right to it") from error
        raise PermanentError(f"{text} ({code})") from error
    except BotoCoreError as error:
        raise StatusUnavailableError(f"{what}: {error}", "try again") from error


@functools.cache
def _step_functions() -> "SFNClient":
    import boto3

    return boto3.client("stepfunctions")


@functools.cache
def _lambda() -> "LambdaClient":
    import boto3
    from botocore.config import Config

    # A second invocation while the first still runs would release twice: only we decide to try again.
    config = Config(read_timeout=_ANSWER_SECONDS, retries={"total_max_attempts": 1}, tcp_keepalive=True)
    return boto3.client("lambda", config=config)
