"""The functions that are invoked by hand, by a schedule or by an event, called as the local engine does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from questdb_backup import aws_workflow
from questdb_backup.local.bundle import LocalContext, load_handler
from questdb_backup.services import Services
from tests.support.backups import make_root, make_services

NOW = "2026-03-01T12:00:00.000000Z"
EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:stack-backup:run-1"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(make_root(tmp_path / "origin"))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A region of moto's, and clients that are made in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    aws_workflow._step_functions.cache_clear()
    aws_workflow._lambda.cache_clear()
    with mock_aws():
        yield
    aws_workflow._step_functions.cache_clear()
    aws_workflow._lambda.cache_clear()


def call(name: str, event: dict[str, Any], services: Services) -> Any:
    """Call a function as the local engine does."""
    return load_handler(name)(event, LocalContext(services, name))
