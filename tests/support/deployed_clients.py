"""What the deployed functions see of Step Functions and Lambda: as much of boto3's clients as they call."""

import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from questdb_backup.engine.execution import Execution, ExecutionResult

Note = Callable[[str, str], None]
"""Is told action and resource of each call."""


class ExecutionDoesNotExist(Exception):
    """What the client of Step Functions raises."""


@dataclass(kw_only=True)
class Running:
    """One execution, and its result when it has ended."""

    execution: Execution
    thread: threading.Thread
    results: list[ExecutionResult]
    stopped: bool = False

    @property
    def status(self) -> str:
        return "ABORTED" if self.stopped else str(self.results[0].status) if self.results else "RUNNING"


class StepFunctionsClient:
    """Over the ``executions`` by ARN; ``machines`` are the names of the state machines by theirs."""

    exceptions = SimpleNamespace(ExecutionDoesNotExist=ExecutionDoesNotExist)

    def __init__(
        self,
        *,
        executions: Mapping[str, Running],
        machines: Mapping[str, str],
        start: Callable[[str, Any], str],
        note: Note,
    ) -> None:
        self._executions = executions
        self._machines = machines
        self._start = start
        self._note = note

    def describe_execution(self, *, executionArn: str) -> dict[str, str]:
        return {"status": self._running("DescribeExecution", executionArn).status}

    def stop_execution(self, *, executionArn: str, error: str, cause: str) -> None:
        running = self._running("StopExecution", executionArn)
        running.stopped = running.execution.stop(error, cause)

    def start_execution(self, *, stateMachineArn: str, input: str) -> dict[str, str]:
        self._note("states:StartExecution", stateMachineArn)
        return {"executionArn": self._start(self._machines[stateMachineArn], json.loads(input))}

    def _running(self, action: str, arn: str) -> Running:
        self._note(f"states:{action}", arn)
        if arn not in self._executions:
            raise ExecutionDoesNotExist(arn)
        return self._executions[arn]


class LambdaClient:
    """Over ``invoke``, which calls a function by its name; what it raises is told as Lambda tells it."""

    def __init__(self, *, invoke: Callable[[str, Any], Any], note: Note) -> None:
        self._invoke = invoke
        self._note = note

    def get_account_settings(self) -> dict[str, Any]:
        self._note("lambda:GetAccountSettings", "*")
        return {"AccountLimit": {"UnreservedConcurrentExecutions": 1000}}

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        self._note("lambda:InvokeFunction", FunctionName)
        try:
            value, failed = self._invoke(FunctionName, json.loads(Payload)), {}
        except Exception as error:
            value = {"errorType": type(error).__name__, "errorMessage": str(error)}
            failed = {"FunctionError": "Unhandled"}
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(value).encode()), **failed}
