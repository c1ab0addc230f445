"""The calls to Step Functions and Lambda that functions outside the workflow make."""

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from questdb_backup.aws_answers import read_answer
from questdb_backup.aws_errors import translated
from questdb_backup.errors import BackupToolError, ConfigurationError
from questdb_backup.services import logger

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_stepfunctions import SFNClient

_ANSWER_SECONDS = 890
"""A little less than the caller's own 900 s, so that it ends with an error of its own."""
_LIMITS_SECONDS = 5
_OTHER_FUNCTIONS = 4
"""The guard, a release, whoever looks at the status: they are not to wait for workers."""


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
    """Start an execution; give its ARN. Raise ConfigurationError, StatusUnavailableError."""
    with translated(f"starting {state_machine_arn}"):
        answer = _step_functions().start_execution(stateMachineArn=state_machine_arn, input=json.dumps(value))
        return answer["executionArn"]


def stop_execution(execution_arn: str, reason: str) -> bool:
    """Stop an execution; give whether there is such a one."""
    with translated(f"stopping {execution_arn}"):
        client = _step_functions()
        try:
            client.stop_execution(executionArn=execution_arn, error="BackupAbortedError", cause=reason)
        except client.exceptions.ExecutionDoesNotExist:
            return False
    return True


def describe_execution(execution_arn: str) -> str | None:
    """The status of an execution, say ``RUNNING`` or ``FAILED``; None where there is no such one."""
    with translated(f"describing {execution_arn}"):
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
    with translated(f"invoking {name}"):
        response: dict[str, Any] = {**_lambda().invoke(FunctionName=name, Payload=json.dumps(event).encode())}
        return read_answer(name, response)


def worker_limit() -> int | None:
    """How many workers may run at once beside the stack's other functions; None where it is not told."""
    try:
        with translated("asking for the account's limits"):
            limits = _lambda(_LIMITS_SECONDS, 2).get_account_settings()["AccountLimit"]
    except BackupToolError as error:
        logger.warning("it is not known how many workers may run at once: %s", error)
        return None
    return max(1, limits["UnreservedConcurrentExecutions"] - _OTHER_FUNCTIONS)


@functools.cache
def _step_functions() -> "SFNClient":
    import boto3

    return boto3.client("stepfunctions")


@functools.cache
def _lambda(seconds: int = _ANSWER_SECONDS, attempts: int = 1) -> "LambdaClient":
    import boto3
    from botocore.config import Config

    # A second invocation while the first still runs would release twice: only we decide to try again.
    config = Config(
        connect_timeout=min(seconds, 60),
        read_timeout=seconds,
        retries={"total_max_attempts": attempts},
        tcp_keepalive=True,
    )
    return boto3.client("lambda", config=config)
