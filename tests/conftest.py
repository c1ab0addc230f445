"""What suites of several folders share: the real servers, one of each for the session."""

import pytest

from tests.support.deployed import deploy, s3_server
from tests.support.dynamodb_local import dynamodb_local
from tests.support.loop_mounts import needs_loop_mounts

__all__ = ["deploy", "dynamodb_local", "s3_server"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what mounts a volume: its sync holds up every other's disk, so nothing runs beside it."""
    for item in items:
        if needs_loop_mounts.mark in item.iter_markers():
            item.add_marker("mounts")
