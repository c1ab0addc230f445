"""Real QuestDB servers for the integration tests; none may leave a checkpoint behind."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.questdb_server import DEFAULT_VERSION, JARS, QuestDBServer
from tests.support.sample_data import create_sample_tables


class NewServer(Protocol):
    """Starts a server of the test's own, stopped after the test."""

    def __call__(
        self, version: str = DEFAULT_VERSION, root: Path | None = None, env: dict[str, str] | None = None
    ) -> QuestDBServer: ...


def pytest_report_collectionfinish() -> str:
    """Name the servers under test (a header hook is not called for a conftest below ``tests``)."""
    found = sorted(jar.stem.removeprefix("questdb-") for jar in JARS.glob("questdb-*.jar"))
    return f"QuestDB: {DEFAULT_VERSION} (fetched: {', '.join(found) or 'none, run make setup'})"


@pytest.fixture(scope="session")
def questdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    """One server that all tests share."""
    with QuestDBServer(tmp_path_factory.mktemp("questdb") / "root") as server:
        yield server


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    """One server with sample tables, for whole backups; tests leave its tables usable, not unchanged."""
    root = tmp_path_factory.mktemp("sampled") / "root"
    with QuestDBServer(root, env={"QDB_DEV_MODE_ENABLED": "true"}) as server:
        create_sample_tables(server, 2000)
        yield server


@pytest.fixture(autouse=True)
def _no_checkpoint_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Release a checkpoint that a test leaves on a shared server, and fail the test."""
    names = {"questdb", "sampled"} & set(request.fixturenames)
    servers = [request.getfixturevalue(name) for name in names]
    yield
    for server in servers:
        in_progress, started_at = server.execute("select in_progress, started_at from checkpoint_status()")[0]
        if in_progress:
            server.execute("checkpoint release")
            pytest.fail(f"the test left a checkpoint, started at {started_at}")


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """Make and start servers of the test's own."""
    with ExitStack() as stack:
        count = 0

        def start(
            version: str = DEFAULT_VERSION, root: Path | None = None, env: dict[str, str] | None = None
        ) -> QuestDBServer:
            nonlocal count
            count += 1
            return stack.enter_context(QuestDBServer(root or tmp_path / f"server-{count}", version, env))

        yield start
