"""Two databases with one past that claim to be one: equal signatures stand for different bytes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import table_zoo
from tests.support.histories import Partitions, copy_under_checkpoint, partitions_of
from tests.support.live import back_up, checkpoint, fs_store, options_for, restore, restored
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import settle, table_digests
from tests.support.traps import PLAIN, WAL, create

HOW_MANY = {"fewer": 1, "equal": 2, "more": 3}
"""Transactions of the second way by a table's name; the first way has two."""
PENDING = "pending"
BORN = "born"
MOMENTS = ("2024-01-02T11:00:30", "2024-01-05T01:00", "2024-01-05T02:00")
Digests = dict[str, tuple[Any, ...]]
Fork = Callable[["Forked"], Path]


def parting_tables() -> Iterator[tuple[str, str]]:
    """Name and mode of the tables that take two ways."""
    for mode in (WAL, PLAIN):
        for many in HOW_MANY:
            yield f"{mode.split()[0]}_{many}", mode


@dataclass(kw_only=True)
class Forked:
    """One database that becomes two; ``states`` are what a server at rest had at each of the backups."""

    folder: Path
    stack: ExitStack
    store: str = ""
    states: dict[str, Digests] = field(default_factory=dict)
    partitions: dict[str, Partitions] = field(default_factory=dict)
    timestamps: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = fs_store(self.folder)
        self.first = self.serve(self.folder / "root")
        for name, mode in parting_tables():
            self.first.execute(create(mode).format(t=name))
        self.first.execute(
            f"create table {PENDING} (x double, at timestamp, ts timestamp)"
            " timestamp(ts) partition by day wal"
        )
        self.first.execute(f"insert into {PENDING} values (1, null, '2024-01-01'), (2, null, '2024-01-02')")
        self.first.wait_applied()
        self.first.execute(f"alter table {PENDING} suspend wal")
        self.first.execute(f"update {PENDING} set at = systimestamp(), x = rnd_double()")
        table_zoo.wait_applied_but(self.first, PENDING)

    def serve(self, root: Path) -> QuestDBServer:
        """Start a server of the fork's."""
        settings = table_zoo.settings(self.folder / "volume")
        return self.stack.enter_context(QuestDBServer(root, env=settings))

    def back_up(self, what: str, server: QuestDBServer) -> None:
        """One backup into the one chain, with what it has to hold."""
        found: Partitions = {}
        digests = table_digests(server)
        made = back_up(
            options_for(server, self.store, keep=9),
            after=lambda: found.update(partitions_of(server.root, server.version)),
        )
        self.states[what], self.partitions[what] = digests, found
        self.timestamps[what] = made["backup_timestamp"]

    def go_on(self, server: QuestDBServer, value: int, many: dict[str, int]) -> None:
        """Write rows of this value, apply what waits, and make a table that was not there."""
        for name, _ in parting_tables():
            for moment in MOMENTS[: many[name.partition("_")[2]]]:
                server.execute(f"insert into {name} values ({value}, {value}, 'x', 'v{value}', '{moment}')")
        server.execute(f"create table {BORN} (x int, ts timestamp) timestamp(ts) partition by day wal")
        server.execute(f"insert into {BORN} values ({value}, '2024-01-01'), ({value}, '2024-01-02')")
        if server.execute(f"select suspended from wal_tables() where name = '{PENDING}'") == [(True,)]:
            server.execute(f"alter table {PENDING} resume wal")
        settle(server)

    def go_on_first(self) -> None:
        """The first way."""
        self.go_on(self.first, 1, dict.fromkeys(HOW_MANY, 2))

    def digests_of(self, what: str) -> Digests:
        """What a server has on a backup restored."""
        with restored(self.store, self.folder / f"of-{what}", timestamp=self.timestamps[what]) as server:
            settle(server)
            return table_digests(server)


def by_restore(forked: Forked) -> Path:
    """A backup is restored and takes the instance's name along, after another was made."""
    forked.back_up("past", forked.first)
    forked.go_on_first()
    forked.back_up("first", forked.first)
    forked.first.stop()
    root = forked.folder / "root2"
    restore(forked.store, root, timestamp=forked.timestamps["past"], keep_instance=True)
    return root


def by_clone(forked: Forked) -> Path:
    """A volume's snapshot of the past becomes a second database."""
    forked.back_up("past", forked.first)
    forked.first.execute("checkpoint create")
    root = copy_under_checkpoint(forked.first.root, forked.folder / "root2")
    forked.first.execute("checkpoint release")
    forked.go_on_first()
    forked.back_up("first", forked.first)
    return root


def by_late_clone(forked: Forked) -> Path:
    """The same, but the snapshot was made late: its log still has what came after the checkpoint."""
    forked.back_up("past", forked.first)
    forked.first.execute("checkpoint create")
    forked.go_on_first()
    root = copy_under_checkpoint(forked.first.root, forked.folder / "root2")
    forked.first.execute("checkpoint release")
    assert not checkpoint(forked.first)[0]
    forked.back_up("first", forked.first)
    return root


FORKS: dict[str, Fork] = {"restore": by_restore, "clone": by_clone, "late clone": by_late_clone}
