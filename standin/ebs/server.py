"""The HTTP server: EC2's query API on ``POST /``, the EBS direct APIs on ``GET /snapshots/...``.

Signatures are not looked at: any credentials do.
"""

import json
import re
import socket
import struct
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from standin.ebs import ec2, ec2_wire
from standin.ebs.calls import Call
from standin.ebs.cloud import Cloud
from standin.ebs.direct import DirectApi
from standin.ebs.errors import ConnectionCut, ServiceError, snapshot_unknown
from standin.ebs.faults import Response, Striking

_DIRECT = re.compile(
    r"/snapshots/(?P<snapshot>[^/]+)/(?:(?P<changed>changedblocks)|blocks(?:/(?P<index>\d+))?)"
)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_BIG_SEND_BUFFER = 1 << 20

Parameters = Mapping[str, Any]


class Service:
    """From a request's text to a response, with faults, quotas and the log on the way."""

    def __init__(self, cloud: Cloud, direct: DirectApi) -> None:
        self._cloud = cloud
        self._direct = direct

    def answer_ec2(self, body: bytes) -> Response:
        """Raise ConnectionCut where there is to be no answer."""
        request_id = str(uuid.uuid4())
        headers = {"Content-Type": "text/xml;charset=UTF-8", "x-amzn-RequestId": request_id}
        form = ec2_wire.read_form(body)
        action = form.get("Action", "")
        operation = ec2.ACTIONS.get(action)

        def refusal(error: ServiceError) -> Response:
            content = ec2_wire.render_error(error.code, error.message, request_id)
            return Response(status=error.status, headers=headers, body=content)

        if not operation:
            return refusal(
                ServiceError("InvalidAction", f"The action {action} is not valid for this web service.")
            )
        parameters = ec2_wire.parse(action, form)

        def act() -> Response:
            self._cloud.throttle.admit_ec2()
            with self._cloud.lock:
                result = operation(self._cloud, parameters)
                content = ec2_wire.render(action, result, request_id)
            return Response(status=200, headers=headers, body=content)

        return self._guarded(action, parameters, act, refusal)

    def answer_direct(self, target: str) -> Response:
        """Raise ConnectionCut where there is to be no answer."""
        request_id = str(uuid.uuid4())
        parts = urlsplit(target)
        found = _DIRECT.fullmatch(unquote(parts.path))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))

        def refusal(error: ServiceError) -> Response:
            body = {"Message": error.message} | ({"Reason": error.reason} if error.reason else {})
            headers = _json_headers(request_id) | {"x-amzn-ErrorType": error.code}
            return Response(status=error.status, headers=headers, body=json.dumps(body).encode())

        if not found:
            return refusal(
                ServiceError("UnknownOperationException", "There is no such operation", status=404)
            )
        action = _direct_action(found)
        snapshot_id = found["snapshot"]
        parameters = {"SnapshotId": snapshot_id, **query}
        if found["index"]:
            parameters["BlockIndex"] = int(found["index"])

        def act() -> Response:
            self._cloud.throttle.admit_direct(action, snapshot_id)
            try:
                return self._direct_response(action, parameters, query, request_id)
            except FileNotFoundError:  # deleted while it was read
                raise snapshot_unknown(snapshot_id) from None

        return self._guarded(action, parameters, act, refusal)

    def _direct_response(
        self, action: str, parameters: Parameters, query: Mapping[str, str], request_id: str
    ) -> Response:
        snapshot_id = parameters["SnapshotId"]
        if action == "GetSnapshotBlock":
            token = query.get("blockToken", "")
            data, checksum = self._direct.get_snapshot_block(snapshot_id, parameters["BlockIndex"], token)
            return Response(status=200, headers=_block_headers(len(data), checksum, request_id), body=data)
        listing = {
            "ListSnapshotBlocks": self._direct.list_snapshot_blocks,
            "ListChangedBlocks": self._direct.list_changed_blocks,
        }[action]
        body = json.dumps(listing(snapshot_id, query)).encode()
        return Response(status=200, headers=_json_headers(request_id), body=body)

    def _guarded(
        self,
        action: str,
        parameters: Parameters,
        act: Callable[[], Response],
        refusal: Callable[[ServiceError], Response],
    ) -> Response:
        striking = self._cloud.faults.striking(action, parameters)
        outcome = "cut"
        try:
            response = self._acted(striking, act)
            outcome = ""
            self._count_block(action, parameters, response)
            return response
        except ServiceError as error:
            outcome = error.code
            return refusal(error)
        finally:
            moment = self._cloud.clock.now()
            self._cloud.calls.add(Call(action=action, parameters=parameters, moment=moment, error=outcome))

    def _acted(self, striking: Striking, act: Callable[[], Response]) -> Response:
        striking.before()
        return striking.after(act())

    def _count_block(self, action: str, parameters: Parameters, response: Response) -> None:
        if action == "GetSnapshotBlock" and response.send_only is None:
            size = len(response.body)
            self._cloud.calls.add_block(parameters["SnapshotId"], parameters["BlockIndex"], size)


def _direct_action(found: re.Match[str]) -> str:
    if found["changed"]:
        return "ListChangedBlocks"
    return "GetSnapshotBlock" if found["index"] else "ListSnapshotBlocks"


def _json_headers(request_id: str) -> dict[str, str]:
    return {"Content-Type": "application/json", "x-amzn-RequestId": request_id}


def _block_headers(length: int, checksum: str, request_id: str) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "x-amzn-RequestId": request_id,
        "x-amz-Data-Length": str(length),
        "x-amz-Checksum": checksum,
        "x-amz-Checksum-Algorithm": "SHA256",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BIG_SEND_BUFFER)

    def do_GET(self) -> None:
        self._answer(lambda: self.server.service.answer_direct(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(lambda: self.server.service.answer_ec2(body))

    def _answer(self, answer: Callable[[], Response]) -> None:
        try:
            self._send(answer())
        except (ConnectionCut, ConnectionError):
            self._cut()

    def _send(self, response: Response) -> None:
        # One write of the headers and one of the body, unbuffered: a copy of 512 KiB would cost more.
        lines = [f"HTTP/1.1 {response.status} {'OK' if response.status == 200 else 'Error'}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        lines.append(f"Content-Length: {len(response.body)}\r\n\r\n")
        head = "\r\n".join(lines).encode()
        if response.send_only is not None:
            self.connection.sendall(head + response.body[: response.send_only])
            self.close_connection = True
            return
        sent = self.connection.sendmsg([head, response.body])
        rest = len(head) + len(response.body) - sent
        if rest:
            self.connection.sendall(memoryview(response.body)[len(response.body) - rest :])

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the calls are in the log of calls."""


class Server(ThreadingHTTPServer):
    """Serves on a thread per connection until ``stop``, which leaves no thread and no socket open."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, service: Service, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.service = service
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.02,), name="ebs-standin", daemon=True
        )

    def start(self) -> None:
        """Serve on a thread of its own."""
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it."""
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, then close it."""
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be quiet about clients that went away; show everything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """End every connection and every thread."""
        self.shutdown()
        with self._guard:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()
