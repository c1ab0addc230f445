"""A deployed stack, driven from here: its outputs, its executions, its functions.

Credentials and region come from boto3's usual chain. Throttling and lost answers are tried again by
botocore, but for the one call that is not safe to repeat (see `Stack.restore`).
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from questdb_backup.aws_answers import DEPLOY, parsed, read_answer
from questdb_backup.aws_errors import translated
from questdb_backup.aws_progress import NEWEST_EVENTS, doing
from questdb_backup.clock import add_seconds, format_timestamp, system_clock
from questdb_backup.errors import (
    BackupAbortedError,
    BackupToolError,
    ConfigurationError,
    PermanentError,
    RestoreFailedError,
    StatusUnavailableError,
    TransientError,
)
from questdb_backup.services import logger
from questdb_backup.steps.fail import as_error, error_text
from questdb_backup.words import BackupStatus

Row = dict[str, Any]
Look = Callable[[int | None, str], object]
"""Gets the percentage of a backup and what it is doing: the name of a state, or how far the snapshots are."""

_ATTEMPTS = 6
_POLL_SECONDS = 2.0
_POLLS_PER_LOOK = 3
"""The list function is invoked for the progress only every so often: each look is paid for."""
_SILENT_POLLS = 30
_ABORT_WAIT_SECONDS = 120.0
_CLOCKS_DIFFER_SECONDS = 5.0
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
_FUNCTION_SECONDS = 960
"""Longer than any function runs, so that a slow answer is not taken for a lost one."""
_FAILED_MAP = "States.ExceedToleratedFailureThreshold"


class Stack:
    """The stack of that name; it is looked up when first needed.

    Every method raises ConfigurationError (no such stack, no credentials, no rights) and
    StatusUnavailableError (AWS did not answer, or asked to slow down), and what a function failed with
    under its own class.
    """

    def __init__(
        self, name: str, *, sleep: Callable[[float], object] = time.sleep, attempts: int = _ATTEMPTS
    ) -> None:
        self.name = name
        self._sleep = sleep
        self._attempts = attempts

    def backups(self) -> list[Row]:
        """The rows of ``backups()``, as the list function gives them."""
        rows = self._invoke("ListBackupsFunctionName", {})
        if not isinstance(rows, list):
            raise PermanentError(f"the stack '{self.name}' listed its backups as {str(rows)[:80]!r}", DEPLOY)
        return rows

    def parameter(self, name: str) -> str:
        """The value of a parameter of its template, "" where it has none of that name."""
        known = {
            str(each["ParameterKey"]): str(each.get("ParameterValue") or "")
            for each in self._description.get("Parameters", [])
        }
        return known.get(name, "")

    def results(self) -> Iterator[dict[str, Any]]:
        """Row and counters of complete backups, newest first, as far as Step Functions remembers (90 days).

        Of a page of executions each is described only when the next result is asked for.
        """
        with translated(f"listing the executions of the stack '{self.name}'"):
            found: dict[str, Any] = self._client("stepfunctions").list_executions(
                stateMachineArn=self._output("BackupStateMachineArn"), statusFilter="SUCCEEDED"
            )
        for known in sorted(found["executions"], key=lambda each: each["startDate"], reverse=True):
            value = self._result(self._describe(str(known["executionArn"])))
            if value.get("status") == BackupStatus.BACKUP_COMPLETE:  # a tick that was served before is none
                yield value

    def start_backup(self) -> str:
        """Start a backup; give the ARN of its execution. The name makes trying again harmless."""
        machine = self._output("BackupStateMachineArn")
        name = f"manual-{system_clock():%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        with translated(f"starting a backup of the stack '{self.name}'"):
            started: dict[str, Any] = self._client("stepfunctions").start_execution(
                stateMachineArn=machine, name=name, input=json.dumps({"trigger": "manual"})
            )
        return str(started["executionArn"])

    def follow_backup(self, execution: str, look: Look | None = None) -> dict[str, Any]:
        """Wait for the end of a backup; give its row and counters.

        ``look`` is told now and then how far it is; None: nobody looks. Raise what the backup failed with,
        BackupAbortedError where it was stopped.
        """
        ended = self._follow(execution, lambda since: self._show(execution, since, look) if look else None)
        if ended["status"] == "SUCCEEDED":
            return self._result(ended)
        if ended["status"] == "ABORTED":
            raise BackupAbortedError(f"the backup was aborted: {_words(ended)}")
        if ended.get("error") == _FAILED_MAP:
            raise PermanentError(self._told_by_row(ended) or _words(ended))
        raise _failure(ended, "backup")

    def abort(self, reason: str) -> dict[str, Any]:
        """Stop the running backup, and wait until its execution has ended.

        Give ``{"status": "aborted" | "not running", "backup_timestamp"}``.
        """
        oldest = self._oldest_running()
        answer = self._invoke("AbortBackupFunctionName", {"reason": reason})
        if not isinstance(answer, dict) or answer.get("status") not in ("aborted", "not running"):
            raise PermanentError(f"the stack '{self.name}' answered {str(answer)[:80]!r} to abort", DEPLOY)
        if answer["status"] == "aborted" and oldest is not None:
            self._wait_for_end(oldest)
        return {"status": answer["status"], "backup_timestamp": answer.get("backup_timestamp")}

    def start_restore(self, request: dict[str, Any]) -> str:
        """Have the restore function start a restore; give the ARN of its execution.

        Tried once: a second start would take the first one's target away.
        """
        answer = self._invoke("RestoreDatabaseFunctionName", request, attempts=1)
        if not isinstance(answer, dict) or not isinstance(answer.get("execution_arn"), str):
            raise PermanentError(f"the stack '{self.name}' answered {str(answer)[:80]!r} to restore", DEPLOY)
        return str(answer["execution_arn"])

    def follow_restore(self, execution: str) -> dict[str, Any]:
        """Wait for the end of a restore; give its result. Raise what it failed with."""
        ended = self._follow(execution, lambda _since: None)
        if ended["status"] == "SUCCEEDED":
            return self._result(ended)
        if ended["status"] == "ABORTED":
            raise RestoreFailedError(f"the restore was aborted: {_words(ended)}")
        raise _failure(ended, "restore")

    def _follow(self, execution: str, look: Callable[[str], object]) -> dict[str, Any]:
        """Ask until the execution has ended; AWS may be silent for a while."""
        silent = polls = 0
        while True:
            try:
                found = self._describe(execution)
            except TransientError as error:
                silent += 1
                if silent >= _SILENT_POLLS:
                    raise StatusUnavailableError(
                        f"lost sight of {execution}, which goes on: {error.fact}",
                        f"see `questdb-backup backups --stack {self.name}`",
                    ) from error
            else:
                silent = 0
                if found["status"] in _ENDED:
                    return found
                if polls % _POLLS_PER_LOOK == 0:
                    look(_since(found))
            polls += 1
            self._sleep(_POLL_SECONDS)

    def _show(self, execution: str, since: str, look: Look) -> None:
        """Progress is only told: what fails here must not end the following."""
        try:
            row = self._row(since, BackupStatus.BACKUP_IN_PROGRESS)
        except BackupToolError as error:
            logger.info("the progress is not known at this moment: %s", error)
            return
        if row is not None:
            look(row.get("progress_percent"), self._doing(execution))

    def _doing(self, execution: str) -> str:
        """What the execution is doing; "" where that cannot be read."""
        try:
            with translated(f"reading the history of {execution}"):
                found: dict[str, Any] = self._client("stepfunctions").get_execution_history(
                    executionArn=execution, maxResults=NEWEST_EVENTS, reverseOrder=True
                )
        except BackupToolError as error:
            logger.info("what it is doing is not known at this moment: %s", error)
            return ""
        return doing(found["events"])

    def _row(self, since: str, status: BackupStatus) -> Row | None:
        """The newest row of that status which started since."""
        rows = [
            row
            for row in self.backups()
            if row.get("status") == status and str(row.get("start_ts") or "") >= since
        ]
        return max(rows, key=lambda row: str(row["start_ts"]), default=None)

    def _told_by_row(self, ended: dict[str, Any]) -> str | None:
        """A failed Map does not tell its parent why; the backup's row does."""
        try:
            row = self._row(_since(ended), BackupStatus.BACKUP_FAILED)
        except BackupToolError as error:
            logger.info("the failed backup's row cannot be read: %s", error)
            return None
        return str(row["backup_error"]) if row and row.get("backup_error") else None

    def _wait_for_end(self, execution: str) -> None:
        waited = 0.0
        while self._describe(execution)["status"] not in _ENDED:
            if waited >= _ABORT_WAIT_SECONDS:
                raise StatusUnavailableError(
                    f"{execution} was stopped {waited:.0f} s ago and has not ended", "abort it again"
                )
            self._sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def _oldest_running(self) -> str | None:
        """The execution that holds the lease, if any: younger ones are about to be refused."""
        with translated(f"listing the executions of the stack '{self.name}'"):
            found: dict[str, Any] = self._client("stepfunctions").list_executions(
                stateMachineArn=self._output("BackupStateMachineArn"), statusFilter="RUNNING"
            )
        oldest = min(found["executions"], key=lambda known: known["startDate"], default=None)
        return str(oldest["executionArn"]) if oldest else None

    def _describe(self, execution: str) -> dict[str, Any]:
        with translated(f"describing {execution}"):
            found: dict[str, Any] = self._client("stepfunctions").describe_execution(executionArn=execution)
        return found

    def _result(self, ended: dict[str, Any]) -> dict[str, Any]:
        value = parsed(str(ended.get("output") or "null"))
        if not isinstance(value, dict):
            raise PermanentError(f"{ended['executionArn']} ended without a result", DEPLOY)
        return value

    def _invoke(self, output: str, payload: dict[str, Any], *, attempts: int | None = None) -> Any:
        """Call the function that an output names; give its answer, or raise its error."""
        function = self._output(output)
        with translated(f"invoking {function}"):
            response: dict[str, Any] = self._client("lambda", attempts).invoke(
                FunctionName=function, Payload=json.dumps(payload).encode()
            )
            return read_answer(function, response)

    def _output(self, key: str) -> str:
        if key not in self._outputs:
            raise ConfigurationError(f"the stack '{self.name}' has no output {key}", DEPLOY)
        return self._outputs[key]

    @cached_property
    def _outputs(self) -> dict[str, str]:
        outputs = self._description.get("Outputs", [])
        return {str(output["OutputKey"]): str(output["OutputValue"]) for output in outputs}

    @cached_property
    def _description(self) -> dict[str, Any]:
        with translated(f"looking up the stack '{self.name}'"):
            found: dict[str, Any] = self._client("cloudformation").describe_stacks(StackName=self.name)
        stack: dict[str, Any] = found["Stacks"][0]
        return stack

    def _client(self, service: str, attempts: int | None = None) -> Any:
        attempts = attempts or self._attempts
        if (service, attempts) not in self._clients:
            import boto3
            from botocore.config import Config

            config = Config(
                retries={"mode": "standard", "total_max_attempts": attempts},
                read_timeout=_FUNCTION_SECONDS if service == "lambda" else 60,
                tcp_keepalive=True,
            )
            make_client: Any = boto3.client  # its type knows service names as literals only
            self._clients[service, attempts] = make_client(service, config=config)
        return self._clients[service, attempts]

    @cached_property
    def _clients(self) -> dict[tuple[str, int], Any]:
        return {}

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()


def _since(description: dict[str, Any]) -> str:
    """When the execution began, less what two clocks may differ by."""
    began = description.get("startDate")
    moment = began if isinstance(began, datetime) else datetime.fromtimestamp(0, UTC)
    return add_seconds(format_timestamp(moment), -_CLOCKS_DIFFER_SECONDS)


def _failure(ended: dict[str, Any], what: str) -> BackupToolError:
    if ended["status"] == "TIMED_OUT" and not ended.get("cause"):
        return PermanentError(
            f"the {what} ran longer than its time limit", "look at its execution in Step Functions"
        )
    return as_error(str(ended.get("error") or ended["status"]), _words(ended))


def _words(ended: dict[str, Any]) -> str:
    """The innermost message of what an execution ended with."""
    error, cause = ended.get("error"), ended.get("cause")
    if not error and not cause:
        return "nobody said why"
    return error_text({"Error": error or "", "Cause": cause or ""})
