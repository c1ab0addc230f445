"""Real S3 servers over HTTP on 127.0.0.1, and a proxy that makes the faults which they never have.

``S3Server`` is moto's server in a process of its own, ``VersityServer`` is versitygw where its binary is
there. Both end with the process that started them, however that ends.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.support.faulty_proxy import FaultyProxy as FaultyProxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
START_SECONDS = 60.0

# The server sees by the end of its standard input that its parent is gone, even when that was killed.
_MOTO = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
_WATCHED = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
sys.stdin.buffer.read()
child.terminate()
child.wait()
"""


class _Server(ABC):
    """A context manager around one server process; buckets are made with `create_bucket`."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = TemporaryDirectory(prefix="s3-server-")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self, port: int, folder: Path) -> list[str]:
        """What starts the server; it ends when its standard input does."""

    def connection_string(self, bucket: str, root: str = "", endpoint: str = "") -> str:
        """A value for ``backup.object.store``; ``endpoint`` may name a proxy in front of the server."""
        return connection_string(endpoint or self.endpoint, bucket, root)

    def client(self) -> "S3Client":
        """A plain client, for what the product does not do itself; close it."""
        import boto3

        session = boto3.session.Session(
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1"
        )
        return session.client("s3", endpoint_url=self.endpoint)

    def create_bucket(self, name: str) -> str:
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name

    def __enter__(self) -> Self:
        for _ in range(3):  # another process may take the free port first
            self._start()
            if self._wait():
                return self
            self._stop()
        log = (Path(self._folder.name) / "log").read_text()[-2000:]
        self._folder.cleanup()
        raise RuntimeError(f"{type(self).__name__} did not start: {log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._folder.cleanup()

    def _start(self) -> None:
        self.port = free_port()
        folder = Path(self._folder.name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(self.port, folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _wait(self) -> bool:
        assert self._process is not None
        give_up = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < give_up:
            with closing(socket.socket()) as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return True
            time.sleep(0.05)
        return False

    def _stop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


class S3Server(_Server):
    """moto's server: checks no signatures, has every conditional write, starts in about two seconds."""

    def command(self, port: int, folder: Path) -> list[str]:
        return [sys.executable, "-c", _MOTO, str(port)]


class VersityServer(_Server):
    """versitygw over a folder: checks signatures and checksums."""

    def command(self, port: int, folder: Path) -> list[str]:
        binary = find_versitygw()
        assert binary is not None
        (folder / "root").mkdir(exist_ok=True)
        keys = ["-a", ACCESS_KEY, "-s", SECRET_KEY]
        server = [str(binary), "-p", f"127.0.0.1:{port}", *keys, "-q", "--keep-alive"]
        return [sys.executable, "-c", _WATCHED, *server, "posix", str(folder / "root")]


def find_versitygw() -> Path | None:
    """The binary on PATH, or where ``make setup`` puts it."""
    cached = Path(__file__).parents[2] / ".cache" / "bin" / "versitygw"
    found = shutil.which("versitygw") or (str(cached) if os.access(cached, os.X_OK) else None)
    return Path(found) if found else None


def connection_string(endpoint: str, bucket: str, root: str = "") -> str:
    options = {
        "bucket": bucket,
        "root": root,
        "region": "us-east-1",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "endpoint": endpoint,
    }
    return "s3::" + "".join(f"{name}={value};" for name, value in options.items() if value)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
