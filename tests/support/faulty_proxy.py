"""A proxy on 127.0.0.1 before an S3 server that refuses, delays, tears or swallows what it is told to.

with S3Server() as server, FaultyProxy(server.endpoint) as proxy:
    store = open_store(server.connection_string("bucket", endpoint=proxy.endpoint), max_connections=4)
    proxy.lose_response(methods=["PUT"])     # the server does it, the client never hears
"""

import http.client
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self, cast
from urllib.parse import unquote, urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


class Fault(StrEnum):
    """What happens to a request that a rule matches."""

    DENY = "deny"  # 403 AccessDenied, the server does not see the request
    SLOW_DOWN = "slow_down"  # 503 SlowDown, the server does not see the request
    CONFLICT = "conflict"  # 409 ConditionalRequestConflict, the server does not see the request
    NOT_IMPLEMENTED = "not_implemented"  # 501, the server does not see the request
    LOSE_RESPONSE = "lose_response"  # the server does it, then the connection is dropped
    TEAR_BODY = "tear_body"  # the response's body ends in its middle
    DELAY = "delay"  # the request is forwarded after a while


_ANSWERS = {
    Fault.DENY: (403, "AccessDenied", "Access Denied"),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.CONFLICT: (409, "ConditionalRequestConflict", "A conflicting operation occurred."),
    Fault.NOT_IMPLEMENTED: (501, "NotImplemented", "A header you provided implies functionality not here."),
}


@dataclass(kw_only=True)
class Rule:
    """A fault for requests of these methods (all, when empty) whose path and query hold ``key``.

    ``times`` is how many requests it still strikes; None is all of them. ``after``: only behind a request
    whose path holds this.
    """

    fault: Fault
    methods: Sequence[str] = ()
    key: str = ""
    times: int | None = None
    seconds: float = 0.0
    after: str = ""

    def matches(self, method: str, target: str) -> bool:
        return self.times != 0 and (not self.methods or method in self.methods) and self.key in target


class FaultyProxy:
    """Forward to ``upstream`` (http://host:port), striking by the first rule that matches a request."""

    def __init__(self, upstream: str) -> None:
        self.requests: list[tuple[str, str]] = []  # method, path with query (unquoted)
        self.rules: list[Rule] = []
        self._lock = threading.Lock()
        self._server = _Server(urlsplit(upstream).netloc, self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def deny(self, *, methods: Sequence[str] = (), key: str = "", times: int | None = None) -> None:
        self.rules.append(Rule(fault=Fault.DENY, methods=methods, key=key, times=times))

    def slow_down(self, *, methods: Sequence[str] = (), key: str = "", times: int | None = 1) -> None:
        self.rules.append(Rule(fault=Fault.SLOW_DOWN, methods=methods, key=key, times=times))

    def conflict(self, *, methods: Sequence[str] = ("PUT",), key: str = "", times: int | None = 1) -> None:
        self.rules.append(Rule(fault=Fault.CONFLICT, methods=methods, key=key, times=times))

    def not_implemented(
        self, *, methods: Sequence[str] = (), key: str = "", times: int | None = None
    ) -> None:
        self.rules.append(Rule(fault=Fault.NOT_IMPLEMENTED, methods=methods, key=key, times=times))

    def lose_response(self, *, methods: Sequence[str] = (), key: str = "", times: int | None = 1) -> None:
        self.rules.append(Rule(fault=Fault.LOSE_RESPONSE, methods=methods, key=key, times=times))

    def tear_body(self, *, methods: Sequence[str] = ("GET",), key: str = "", times: int | None = 1) -> None:
        self.rules.append(Rule(fault=Fault.TEAR_BODY, methods=methods, key=key, times=times))

    def delay(
        self, seconds: float, *, methods: Sequence[str] = (), key: str = "", times: int | None = None
    ) -> None:
        self.rules.append(Rule(fault=Fault.DELAY, methods=methods, key=key, times=times, seconds=seconds))

    def heal(self) -> None:
        """Forget every rule."""
        with self._lock:
            self.rules.clear()

    def strike(self, method: str, target: str) -> Rule | None:
        """Record a request and take the rule that strikes it."""
        with self._lock:
            rule = next((rule for rule in self.rules if self._strikes(rule, method, target)), None)
            self.requests.append((method, target))
            if rule and rule.times is not None:
                rule.times -= 1
            return rule

    def _strikes(self, rule: Rule, method: str, target: str) -> bool:
        begun = not rule.after or any(rule.after in earlier for _, earlier in self.requests)
        return begun and rule.matches(method, target)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client's idle connection would hold the end of the test

    def __init__(self, upstream: str, proxy: FaultyProxy) -> None:
        self.upstream = upstream
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_any(self) -> None:
        server = cast(_Server, self.server)
        body = self._body()
        rule = server.proxy.strike(self.command, unquote(self.path))
        fault = rule.fault if rule else None
        if fault in _ANSWERS:
            return self._answer(*_ANSWERS[fault])
        if rule and fault is Fault.DELAY:
            time.sleep(rule.seconds)
        status, headers, data = _forward(server.upstream, self.command, self.path, self._headers(body), body)
        if fault is Fault.LOSE_RESPONSE:
            self.close_connection = True
            return None
        sent = data[: len(data) // 2] if fault is Fault.TEAR_BODY else data
        return self._reply(status, headers, len(data), sent)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _headers(self, body: bytes) -> list[tuple[str, str]]:
        kept = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP]
        has_body = body or self.command in ("PUT", "POST")
        return [*kept, ("Content-Length", str(len(body)))] if has_body else kept

    def _reply(self, status: int, headers: list[tuple[str, str]], length: int, sent: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP or (
                self.command == "HEAD" and name.lower() == "content-length"
            ):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = self.close_connection or len(sent) < length

    def _answer(self, status: int, code: str, message: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        body = b"" if self.command == "HEAD" else text.encode()
        self._reply(status, [("Content-Type", "application/xml")], len(body), body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _forward(
    upstream: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection(upstream, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()
