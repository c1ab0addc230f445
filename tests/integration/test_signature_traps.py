"""A backup that takes over what did not change must see each change: real servers, every value compared.

Most traps share one server: their tables are made, backed up, changed, backed up and restored together.
The others need histories that fork: two databases that claim to be one.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from questdb_backup.local.options import Options
from tests.integration.conftest import NewServer
from tests.support import table_zoo
from tests.support.forks import Digests
from tests.support.histories import (
    Partitions,
    back_up_late,
    index_disagreements,
    kept,
    lies,
    partitions_of,
    without,
)
from tests.support.live import back_up, checkpoint, fs_store, options_for, restored
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import settle, table_digests
from tests.support.traps import TRAPS, Trap

pytestmark = pytest.mark.integration


@dataclass(frozen=True, kw_only=True)
class Sprung:
    """The state before and after the traps, and what a server has on a backup of the latter restored."""

    first: Digests
    second: Digests
    restored: Digests
    before: Partitions
    after: Partitions
    server: QuestDBServer
    """On the restored root."""


@pytest.fixture(scope="module", params=["between two backups", "before the checkpoint", "while it is read"])
def sprung(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sprung]:
    """The traps spring after a backup, or after or during what a backup reads without a checkpoint."""
    folder = tmp_path_factory.mktemp("traps")
    store = fs_store(folder)
    with ExitStack() as stack:
        source = stack.enter_context(
            QuestDBServer(folder / "root", env=table_zoo.settings(folder / "volume"))
        )
        for trap in TRAPS:
            trap.prepare(source)
        settle(source)
        first = table_digests(source)
        before, after = BACK_UP[request.param](source, options_for(source, store))
        second = table_digests(source)
        source.stop()
        server = stack.enter_context(restored(store, folder / "restored"))
        settle(server)
        yield Sprung(
            first=first,
            second=second,
            restored=table_digests(server),
            before=before,
            after=after,
            server=server,
        )


def spring(server: QuestDBServer) -> None:
    """Change everything; all is applied afterwards."""
    for trap in TRAPS:
        trap.spring(server)
    settle(server)


def back_up_around(server: QuestDBServer, options: Options) -> tuple[Partitions, Partitions]:
    """A backup, the changes, a backup."""
    found: list[Partitions] = []

    def look() -> None:
        found.append(partitions_of(server.root, server.version))

    back_up(options, after=look)
    spring(server)
    made = back_up(options, after=look)
    assert made["partitions_unchanged"] > len(TRAPS) // 2
    return found[0], found[1]


def back_up_across(server: QuestDBServer, options: Options) -> tuple[Partitions, Partitions]:
    """One backup, the changes come just before its checkpoint."""
    before, found = _look(server), dict[str, Partitions]()
    back_up_late(
        options,
        before=lambda: spring(server),
        after=lambda: found.update(after=partitions_of(server.root, server.version)),
    )
    return before, found["after"]


def back_up_during(server: QuestDBServer, options: Options) -> tuple[Partitions, Partitions]:
    """One backup, the changes come when a worker has begun to read, and before there is a checkpoint."""
    before, found = _look(server), dict[str, Partitions]()
    once = threading.Lock()

    def on_read(_path: str) -> None:
        if once.acquire(blocking=False):
            assert not checkpoint(server)[0]
            spring(server)

    back_up(
        options,
        on_read=on_read,
        after=lambda: found.update(after=partitions_of(server.root, server.version)),
    )
    return before, found["after"]


def _look(server: QuestDBServer) -> Partitions:
    server.execute("checkpoint create")
    found = partitions_of(server.root, server.version)
    server.execute("checkpoint release")
    return found


BACK_UP = {
    "between two backups": back_up_around,
    "before the checkpoint": back_up_across,
    "while it is read": back_up_during,
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_second_backup_holds_what_was_changed_since_the_first(sprung: Sprung, trap: Trap) -> None:
    noted = {table: sprung.second.get(table) for table in trap.tables}
    before = {table: sprung.first.get(table) for table in trap.tables}
    assert (noted == before) == trap.same_rows, "the trap did not spring"
    assert {table: sprung.restored.get(table) for table in trap.tables} == noted
    assert [index_disagreements(sprung.server, table) for table in trap.tables] == [[]] * len(trap.tables)


def test_no_other_table_differs_after_the_restore(sprung: Sprung) -> None:
    assert sprung.restored == sprung.second


def test_within_one_history_no_signature_stands_for_two_contents(sprung: Sprung) -> None:
    assert lies(sprung.before, sprung.after) == []
    assert len(kept(sprung.before, sprung.after)) > len(TRAPS)


@pytest.mark.parametrize("part", ["table id", "name", "size", "squashes", "columns"])
def test_without_a_part_of_the_signature_a_trap_would_catch(sprung: Sprung, part: str) -> None:
    assert lies(without(part, sprung.before), without(part, sprung.after)) != []


def test_a_server_that_counts_no_squashes_gets_no_signature_trusted(
    new_server: NewServer, tmp_path: Path
) -> None:
    source, store = new_server("9.1.0", env=table_zoo.settings(tmp_path / "volume")), fs_store(tmp_path)
    traps = [trap for trap in TRAPS if trap.name.startswith("dedup_squash")]
    found: Partitions = {}
    for trap in traps:
        trap.prepare(source)
    back_up(options_for(source, store))
    for trap in traps:
        trap.spring(source)
    settle(source)
    noted = table_digests(source)
    back_up(
        options_for(source, store), after=lambda: found.update(partitions_of(source.root, source.version))
    )
    assert {partition.signature for partition in found.values()} == {None}
    source.stop()
    with restored(store, tmp_path / "restored", version="9.1.0", server_version="9.1.0") as server:
        settle(server)
        assert table_digests(server) == noted
