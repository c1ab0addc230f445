"""A small endpoint on this host that speaks as CloudFormation, Step Functions and Lambda do."""

import json
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

BACKUP_MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:prod-backup"
EXECUTION = "arn:aws:states:eu-west-1:123456789012:execution:prod-backup:"
RESTORE_EXECUTION = "arn:aws:states:eu-west-1:123456789012:execution:prod-restore:r1"
STARTED = 1724503800.0
"""2024-08-24T12:50:00Z, when every execution here began."""

_STACKS = """<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
<DescribeStacksResult><Stacks><member><StackName>prod</StackName><StackStatus>CREATE_COMPLETE</StackStatus>
<CreationTime>2024-08-24T00:00:00Z</CreationTime><Outputs>{}</Outputs><Parameters>{}</Parameters></member></Stacks></DescribeStacksResult>
</DescribeStacksResponse>"""
_REFUSED = """<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type>
<Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"""
_PARAMETER = "<member><ParameterKey>{}</ParameterKey><ParameterValue>{}</ParameterValue></member>"
_OUTPUT = "<member><OutputKey>{}</OutputKey><OutputValue>{}</OutputValue></member>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing where whoever asked was interrupted: stderr is what the tests look at."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class AwsEndpoint:
    """Serves the stack ``prod``. Tests script the answers and read the calls.

    ``executions``: answers to DescribeExecution, one after the other, the last one for ever. ``events``: the
    history of each, newest first. ``running`` and ``succeeded``: what ListExecutions gives.
    ``functions``: an answer for each function, called with its payload; what it raises is answered as
    Lambda answers a handler's exception. ``refusals``: pairs of HTTP status and error code, each answered
    once, before anything else; None lets one call through. ``before_answer`` is called in the server's
    thread with each call's name.
    """

    def __init__(self) -> None:
        self.outputs = {
            "BackupStateMachineArn": BACKUP_MACHINE,
            "ListBackupsFunctionName": "list",
            "AbortBackupFunctionName": "abort",
            "RestoreDatabaseFunctionName": "restore",
        }
        self.executions: deque[dict[str, Any]] = deque()
        self.events: list[dict[str, Any]] = []
        self.parameters: dict[str, str] = {}
        self.running: list[dict[str, Any]] = []
        self.succeeded: list[dict[str, Any]] = []
        self.functions: dict[str, Callable[[Any], Any]] = {"list": lambda _payload: []}
        self.refusals: deque[tuple[int, str] | None] = deque()
        self.calls: list[tuple[str, Any]] = []
        self.before_answer: Callable[[str], None] = lambda _call: None
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, answer = endpoint.answer(self.path, dict(self.headers), body)
                with suppress(ConnectionError):  # whoever asked was interrupted
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def named(self, call: str) -> list[Any]:
        """What was sent with each call of that name."""
        return [sent for name, sent in self.calls if name == call]

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        call, sent = _parse(path, headers, body)
        self.calls.append((call, sent))
        self.before_answer(call)
        refusal = self.refusals.popleft() if self.refusals else None
        if refusal is not None:
            return _refusal(call, *refusal)
        if call == "DescribeStacks":
            return self._stack(sent["StackName"][0])
        if call.startswith("invoke "):
            return self._invoked(call.removeprefix("invoke "), sent)
        return (
            200,
            {"Content-Type": "application/x-amz-json-1.0"},
            json.dumps(self._states(call, sent)).encode(),
        )

    def _stack(self, name: str) -> tuple[int, dict[str, str], bytes]:
        if name != "prod":
            text = _REFUSED.format("ValidationError", f"Stack with id {escape(name)} does not exist")
            return 400, {"Content-Type": "text/xml"}, text.encode()
        outputs = "".join(_OUTPUT.format(key, escape(value)) for key, value in self.outputs.items())
        parameters = "".join(_PARAMETER.format(key, escape(value)) for key, value in self.parameters.items())
        return 200, {"Content-Type": "text/xml"}, _STACKS.format(outputs, parameters).encode()

    def _invoked(self, function: str, payload: Any) -> tuple[int, dict[str, str], bytes]:
        try:
            return 200, {}, json.dumps(self.functions[function](payload)).encode()
        except Exception as error:
            told = {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": []}
            return 200, {"X-Amz-Function-Error": "Unhandled"}, json.dumps(told).encode()

    def _states(self, call: str, sent: Any) -> dict[str, Any]:
        if call == "StartExecution":
            return {"executionArn": EXECUTION + sent["name"], "startDate": STARTED}
        if call == "ListExecutions":
            return {"executions": self.running if sent["statusFilter"] == "RUNNING" else self.succeeded}
        if call == "GetExecutionHistory":
            assert sent["reverseOrder"], "the newest are wanted"
            return {"events": self.events[: sent["maxResults"]]}
        answer = self.executions.popleft() if len(self.executions) > 1 else self.executions[0]
        return {
            "executionArn": sent["executionArn"],
            "stateMachineArn": BACKUP_MACHINE,
            "startDate": STARTED,
            **answer,
        }


def running_execution(name: str, started: float) -> dict[str, Any]:
    """An entry of ListExecutions."""
    return {
        "executionArn": EXECUTION + name,
        "stateMachineArn": BACKUP_MACHINE,
        "name": name,
        "status": "RUNNING",
        "startDate": started,
    }


def _parse(path: str, headers: dict[str, str], body: bytes) -> tuple[str, Any]:
    if path.startswith("/2015-03-31/functions/"):
        return f"invoke {path.split('/')[3]}", json.loads(body)
    target = headers.get("X-Amz-Target", "")
    if target:
        return target.partition(".")[2], json.loads(body)
    sent = parse_qs(body.decode())
    return sent["Action"][0], sent


def _refusal(call: str, status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    if call == "DescribeStacks":
        return status, {"Content-Type": "text/xml"}, _REFUSED.format(code, "no").encode()
    if call.startswith("invoke "):
        return status, {"X-Amzn-ErrorType": code}, b'{"Message": "no"}'
    return (
        status,
        {"Content-Type": "application/x-amz-json-1.0"},
        json.dumps({"__type": code, "message": "no"}).encode(),
    )
