"""A server and deployments of their own for what is wrong."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import TABLE, Deployment
from tests.support.live import checkpoint, fs_store
from tests.support.questdb_server import QuestDBServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    with QuestDBServer(tmp_path_factory.mktemp("bad-input") / "root") as questdb:
        questdb.execute(TABLE)
        questdb.wait_applied()
        yield questdb


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("QDB_", "PG", "AWS_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def here(server: QuestDBServer, tmp_path: Path) -> Iterator[Deployment]:
    """A store and a state folder of the test's own; the server must be free in the end."""
    deployment = Deployment(server, fs_store(tmp_path), tmp_path / "state")
    yield deployment
    held, started_at = checkpoint(server)
    if held:
        server.execute("checkpoint release")
        pytest.fail(f"the test left a checkpoint, started at {started_at}")


@pytest.fixture(scope="module")
def stored(server: QuestDBServer, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One backup that tests only read."""
    folder = tmp_path_factory.mktemp("stored")
    deployment = Deployment(server, fs_store(folder), folder / "state")
    deployment.backup().done()
    return deployment


@contextlib.contextmanager
def mounted(folder: Path, *options: str, source: str = "tmpfs") -> Iterator[Path]:
    """A mount on the folder; the test is skipped, aloud, where this user may not mount."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, source, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
