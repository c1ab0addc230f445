"""Errors of a running state machine: an error name, as Retry and Catch see it, and its cause."""

import json

ALL = "States.ALL"
TASK_FAILED = "States.TaskFailed"
TIMEOUT = "States.Timeout"
RUNTIME = "States.Runtime"
DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"
NO_CHOICE_MATCHED = "States.NoChoiceMatched"
RESULT_PATH_MATCH_FAILURE = "States.ResultPathMatchFailure"
ITEM_READER_FAILED = "States.ItemReaderFailed"
EXCEED_TOLERATED_FAILURE_THRESHOLD = "States.ExceedToleratedFailureThreshold"

RESERVED_NAMES = frozenset(
    {
        ALL,
        TASK_FAILED,
        TIMEOUT,
        RUNTIME,
        DATA_LIMIT_EXCEEDED,
        NO_CHOICE_MATCHED,
        RESULT_PATH_MATCH_FAILURE,
        ITEM_READER_FAILED,
        EXCEED_TOLERATED_FAILURE_THRESHOLD,
    }
)
"""The ``States.`` names that this engine can report or match; others are refused in Retry and Catch."""


class StateError(Exception):
    """An error that a state reports: what Retry and Catch look at, and what fails an execution.

    A task function or a hook that raises one reports exactly this name and cause, as where the
    handler runs elsewhere and the error is ``Sandbox.Timedout``.
    """

    def __init__(self, name: str, cause: str = "") -> None:
        self.name = name
        self.cause = cause
        super().__init__(f"{name}: {cause}" if cause else name)

    def as_output(self) -> dict[str, object]:
        """The object that a Catch puts at its ResultPath."""
        return {"Error": self.name, "Cause": self.cause}


def runtime_error(state: str, fact: str) -> StateError:
    """``States.Runtime``: no Retry and no Catch sees it."""
    return StateError(RUNTIME, f"An error occurred while executing the state '{state}'. {fact}")


def lambda_error(error: Exception) -> StateError:
    """What Step Functions gets of an exception that a Python Lambda function raised.

    The name is the exact class name. The cause is JSON text as the Lambda runtime client writes it:
    ``errorMessage``, ``errorType``, ``requestId``, ``stackTrace`` (frames of the handler alone).
    """
    import traceback

    # The first frame is the engine's own call of the handler.
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return _lambda_failure(type(error).__name__, str(error), traceback.format_list(frames))


def marshal_error(error: Exception) -> StateError:
    """What Step Functions gets where a handler's result is not JSON."""
    return _lambda_failure("Runtime.MarshalError", f"Unable to marshal response: {error}", [])


def _lambda_failure(name: str, message: str, stack: list[str]) -> StateError:
    import uuid

    cause = {"errorMessage": message, "errorType": name, "requestId": str(uuid.uuid4()), "stackTrace": stack}
    return StateError(name, json.dumps(cause))


def matches(error_equals: tuple[str, ...], name: str) -> bool:
    """Whether a retrier's or a catcher's ErrorEquals takes an error of this name.

    Names are compared as they are: a base class does not match its subclass. ``States.Runtime`` is never
    matched, ``States.DataLimitExceeded`` by its own name alone, ``States.Timeout`` not by
    ``States.TaskFailed``.
    """
    if name == RUNTIME:
        return False
    if name in error_equals:
        return True
    if name == DATA_LIMIT_EXCEEDED:
        return False
    return ALL in error_equals or (TASK_FAILED in error_equals and name != TIMEOUT)
