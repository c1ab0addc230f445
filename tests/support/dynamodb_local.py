"""A real DynamoDB for tests: DynamoDB Local in memory, on a free port of 127.0.0.1.

The jars come from ``scripts/fetch_servers.py dynamodb``; starting them needs a JDK 17 or newer.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

JARS = Path(__file__).parents[2] / ".cache" / "dynamodb"
_LAUNCHER = Path(__file__).with_name("DynamoDBLocalOnLoopback.java")
_READY = "listening on "
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0


class DynamoDBLocal:
    """A context manager: the server runs inside it."""

    endpoint: str

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                *("java", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={JARS}", "-cp", f"{JARS}/*"),
                str(_LAUNCHER),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "DDB_LOCAL_TELEMETRY": "0"},
        )
        # a server that hangs is killed: the read below then meets the end of its output
        deadline = threading.Timer(_START_SECONDS, self._process.kill)
        deadline.start()
        try:
            self.endpoint = f"http://127.0.0.1:{self._read_port()}"
        except BaseException:
            self._stop()
            raise
        finally:
            deadline.cancel()
        # nobody reads what the server says later, and a full pipe would stop it
        self._drain = threading.Thread(target=self._read_all, daemon=True)
        self._drain.start()
        self._client = _client(self.endpoint)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._stop()

    def client(self) -> "DynamoDBClient":
        """The one client of this server, for any thread; closed with the server."""
        return self._client

    def create_table(self, name: str | None = None) -> str:
        """Make the status table as the template does; give its name."""
        name = name or f"status-{uuid4().hex}"
        self._client.create_table(
            TableName=name,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        self._client.update_time_to_live(
            TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
        )
        return name

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            if line.startswith(_READY):
                return int(line.removeprefix(_READY))
            said.append(line)
        raise RuntimeError("DynamoDB Local did not start: " + "".join(said))

    def _read_all(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            pass

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if drain := getattr(self, "_drain", None):
            drain.join()
        self._process.stdout.close()


def _client(endpoint: str) -> "DynamoDBClient":
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(max_pool_connections=32, retries={"mode": "standard"}, proxies={}),
    )


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[DynamoDBLocal]:
    """One server for the whole session; skip where its jars or Java are not there."""
    if not JARS.is_dir() or shutil.which("java") is None:
        pytest.skip(
            "DynamoDB Local is not there: run `python scripts/fetch_servers.py dynamodb` (needs a JDK)"
        )
    with DynamoDBLocal() as server:
        yield server
