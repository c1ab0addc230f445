"""A TCP proxy in front of a server that loses, delays or rewrites one statement."""

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class Trouble(StrEnum):
    """What happens to the chunk in which a client's marker stands."""

    CUT_BEFORE = "cut before"
    """The client's connection ends; the server never sees the statement."""
    CUT_AFTER_ANSWER = "cut after answer"
    """The server answers; the client's connection ends before the answer."""
    FORWARD_LATER = "forward later"
    """The client's connection ends; the server gets the statement ``seconds`` later."""
    DELAY = "delay"
    """The server gets the statement ``seconds`` later, and the client waits."""
    REPLACE = "replace"
    """The server gets ``replacement``, of the marker's length, in the marker's place."""


@dataclass(slots=True)
class Rule:
    """Applies once, to the first chunk with ``marker``; ``happened`` is set when it has been applied."""

    marker: bytes
    trouble: Trouble
    seconds: float = 0.0
    replacement: bytes = b""
    happened: threading.Event = field(default_factory=threading.Event)


class TcpProxy:
    """Listens on ``port`` of 127.0.0.1 while in its context, and forwards to ``target_port`` there."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._rules: list[Rule] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.1)
        self._sockets.append(listener)
        self.port = listener.getsockname()[1]
        self._spawn(self._accept, listener)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        for connection in self._sockets:
            _shut(connection)
        for thread in self._threads:
            thread.join()
        for connection in self._sockets:
            connection.close()

    def add(self, rule: Rule) -> Rule:
        """Apply the rule to what comes from now on."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def _spawn(self, target: object, *args: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            client.settimeout(None)
            self._sockets.append(client)
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                _shut(client)
                continue
            self._sockets.append(server)
            answered = threading.Event()
            hidden = threading.Event()
            self._spawn(self._forward_requests, client, server, answered, hidden)
            self._spawn(self._forward_answers, client, server, answered, hidden)

    def _forward_requests(
        self, client: socket.socket, server: socket.socket, answered: threading.Event, hidden: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                rule = self._matching(data)
                if rule is None:
                    server.sendall(data)
                elif not self._apply(rule, data, client, server, answered, hidden):
                    return
        _shut(server)

    def _apply(
        self,
        rule: Rule,
        data: bytes,
        client: socket.socket,
        server: socket.socket,
        answered: threading.Event,
        hidden: threading.Event,
    ) -> bool:
        """Whether the connection goes on."""
        match rule.trouble:
            case Trouble.CUT_BEFORE:
                _shut(server)
                _shut(client)
            case Trouble.CUT_AFTER_ANSWER:
                hidden.set()
                answered.clear()
                server.sendall(data)
                answered.wait(60)
                _shut(client)
            case Trouble.FORWARD_LATER:
                hidden.set()
                answered.clear()
                _shut(client)
                self._stopped.wait(rule.seconds)
                server.sendall(data)
                answered.wait(60)
            case Trouble.DELAY:
                self._stopped.wait(rule.seconds)
                server.sendall(data)
            case Trouble.REPLACE:
                server.sendall(data.replace(rule.marker, rule.replacement))
        rule.happened.set()
        goes_on = rule.trouble in (Trouble.DELAY, Trouble.REPLACE)
        if not goes_on:
            _shut(server)
        return goes_on

    def _forward_answers(
        self, client: socket.socket, server: socket.socket, answered: threading.Event, hidden: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if not hidden.is_set():
                    client.sendall(data)
                answered.set()
        answered.set()
        _shut(client)

    def _matching(self, data: bytes) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.marker in data:
                    self._rules.remove(rule)
                    return rule
        return None


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
