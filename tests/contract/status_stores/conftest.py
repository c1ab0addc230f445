"""Every `StatusStore`: the twin in memory, SQLite, and a real DynamoDB."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import LiveRun, StatusStore
from questdb_backup.status.dynamodb import DynamoStatusStore
from questdb_backup.status.memory import MemoryStatusStore
from questdb_backup.status.sqlite import SqliteStatusStore
from tests.support.dynamodb_local import DynamoDBLocal

INSTANCE = "gentle-forest-orchid"
RUN = "2024-08-24T12:34:56.789123Z"
LATER_RUN = "2024-08-25T12:34:56.789123Z"
NOW = "2024-08-24T12:40:00.000000Z"
EXPIRY = "2024-08-24T12:45:00.000000Z"
FENCE = Fence(db_now=NOW, window_seconds=5.25, started_at="2024-08-24T12:40:01.000001Z")
LIVE = LiveRun(run=RUN, token=7, holder="host-a:123", expires_at=EXPIRY)
RIVAL = LiveRun(run=LATER_RUN, token=7, holder="host-b:456", expires_at=EXPIRY)
Opener = Callable[[], StatusStore]


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Each call gives a store object over the same, at first empty, status."""
    if request.param == "memory":
        memory = MemoryStatusStore()
        yield lambda: memory
    elif request.param == "sqlite":
        yield lambda: SqliteStatusStore(tmp_path / "backup" / "status.db")
    else:
        server: DynamoDBLocal = request.getfixturevalue("dynamodb_local")
        table = server.create_table()
        yield lambda: DynamoStatusStore(table, server.client())


@pytest.fixture
def store(open_store: Opener) -> StatusStore:
    return open_store()


def entered(store: StatusStore) -> LiveRun:
    live = store.read(INSTANCE)
    assert live is not None
    return live


# what only the entered run may do


CALLS: dict[str, Callable[[StatusStore, str, int], None]] = {
    "renew": lambda store, run, token: store.renew(INSTANCE, run, token, "2030-01-01T00:00:00.000000Z"),
    "record_fence": lambda store, run, token: store.record_fence(INSTANCE, run, token, FENCE),
    "set_total": lambda store, run, token: store.set_total(INSTANCE, run, token, 5),
    "add_done": lambda store, run, token: store.add_done(INSTANCE, run, token, 0, 5),
}
