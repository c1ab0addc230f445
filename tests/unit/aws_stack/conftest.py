"""A deployed stack on an endpoint of this host."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from questdb_backup.aws_stack import Stack
from tests.support.aws_endpoint import AwsEndpoint

ROW = {
    "status": "backup in progress",
    "progress_percent": 35,
    "start_ts": "2024-08-24T12:50:01.000000Z",
    "end_ts": None,
    "backup_error": None,
    "cleanup_error": None,
    "backup_timestamp": "2024-08-24T12:50:01.000000Z",
    "backup_instance_name": "gentle-forest-orchid",
}
RESULT = {
    "backup_timestamp": "2024-08-24T12:50:01.000000Z",
    "backup_instance_name": "gentle-forest-orchid",
    "status": "backup complete",
    "bytes_read": 2048,
    "bytes_stored": 1024,
    "bytes_reused": 0,
}
RESTORED = {
    "root": "/mnt/restore",
    "backup_timestamp": "2024-08-24T12:50:01.000000Z",
    "backup_instance_name": "gentle-forest-orchid",
    "tables": 2,
    "files": 30,
    "bytes": 4096,
    "server_version": "9.1.0",
    "notes": [],
}
RUNNING = {"status": "RUNNING"}
SUCCEEDED = {"status": "SUCCEEDED", "output": json.dumps(RESULT)}


def failed(error: str, cause: str) -> dict[str, Any]:
    return {"status": "FAILED", "error": error, "cause": cause}


def entered(name: str, state: str = "{}") -> dict[str, Any]:
    """An event as GetExecutionHistory gives it."""
    return {
        "timestamp": 1724503800.0,
        "type": "TaskStateEntered",
        "id": 7,
        "stateEnteredEventDetails": {"name": name, "input": state},
    }


@pytest.fixture(scope="module", autouse=True)
def own_session() -> Iterator[None]:
    """One session for this module: each new one would read the services' descriptions again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        yield


@pytest.fixture(autouse=True)
def usual_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsEndpoint]:
    with AwsEndpoint() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def stack(aws: AwsEndpoint, slept: list[float]) -> Iterator[Stack]:
    with closing(Stack("prod", sleep=slept.append)) as made:
        yield made


@pytest.fixture
def hasty(aws: AwsEndpoint, slept: list[float]) -> Iterator[Stack]:
    """Takes the first answer for the last."""
    with closing(Stack("prod", sleep=slept.append, attempts=1)) as made:
        yield made
