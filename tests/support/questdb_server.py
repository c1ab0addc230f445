"""A real QuestDB server for tests and the demo: one process on free ports of 127.0.0.1."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg

JARS = Path(__file__).resolve().parents[2] / ".cache" / "questdb"
DEFAULT_VERSION = "9.3.4"
_MAIN = "io.questdb/io.questdb.ServerMain"
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Of a server that lives for seconds the second compiler would take half of the processor time."""


class ServerStartError(RuntimeError):
    """The server did not start, or is not what the test needs; the message has the log's tail."""


def jar_path(version: str) -> Path:
    """Where ``make setup`` puts the jar. Raise ServerStartError where it is missing."""
    jar = JARS / f"questdb-{version}.jar"
    if not jar.is_file():
        raise ServerStartError(f"{jar} is missing: run make setup")
    return jar


def free_port() -> int:
    """A port nobody listens on, below the range of outgoing connections, so it stays free over a restart."""
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerStartError("no free port between 20000 and 32000")


class QuestDBServer:
    """A server on ``root``; entering the context starts it, leaving it stops it.

    ``root`` is made where it is missing. The server's output goes to ``<root>.log`` beside it. ``env`` is
    added to the server's environment (``QDB_...`` settings). ``start`` after ``stop`` or ``kill`` uses the
    same root and ports.
    """

    def __init__(
        self, root: Path, version: str = DEFAULT_VERSION, env: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self.version = version
        self.log = root.parent / f"{root.name}.log"
        self.port = 0
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """A libpq connection string in keyword form."""
        return f"host=127.0.0.1 port={self.port} user=admin password=quest dbname=qdb"

    @property
    def pid(self) -> int | None:
        """The server's process id, None while it is down."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self, timeout: float = 120.0) -> Self:
        """Start the server and wait until pgwire answers. Raise ServerStartError where it exits first."""
        if self._process is not None:
            raise ServerStartError(f"the server on {self.root} runs already")
        self.root.mkdir(parents=True, exist_ok=True)
        jar = jar_path(self.version)
        self.port = self.port or free_port()
        command = ["java", *_JVM, "-p", str(jar), "-m", _MAIN, "-d", str(self.root)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready(timeout)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout: float = 60.0) -> None:
        """SIGTERM, then SIGKILL where it does not leave in time; nothing where it is down."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a crash would; nothing where it is down."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def execute(self, sql: str, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own and return its rows, none for a command."""
        with psycopg.connect(self.dsn, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def wait_applied(self, timeout: float = 60.0) -> None:
        """Wait until every WAL table has applied what was committed; fail at once on a suspended one."""
        deadline = time.monotonic() + timeout
        while True:
            rows = self.execute("select name, suspended, writerTxn, sequencerTxn from wal_tables()")
            suspended = [name for name, is_suspended, _, _ in rows if is_suspended]
            if suspended:
                raise ServerStartError(f"suspended tables: {', '.join(suspended)}\n{self.log_tail()}")
            behind = [row for row in rows if row[2] != row[3]]
            if not behind:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not applied after {timeout} s: {behind}")
            time.sleep(0.05)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the server's output."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("QDB_")}
        return inherited | {
            "QDB_PG_NET_BIND_TO": f"127.0.0.1:{self.port}",
            "QDB_HTTP_ENABLED": "false",
            "QDB_HTTP_MIN_ENABLED": "false",
            "QDB_LINE_TCP_ENABLED": "false",
            "QDB_TELEMETRY_ENABLED": "false",
            **self._env,
        }

    def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            assert self._process is not None
            code = self._process.poll()
            if code is not None:
                raise ServerStartError(f"QuestDB {self.version} exited with {code}:\n{self.log_tail()}")
            try:
                self.execute("select 1")
                return
            except psycopg.Error as error:
                if time.monotonic() > deadline:
                    raise ServerStartError(f"no answer in {timeout} s: {error}\n{self.log_tail()}") from error
            time.sleep(0.1)
