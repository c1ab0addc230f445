"""The whole product on a real server: its options, what happens while it copies, and its command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from questdb_backup.catalog import Catalog
from questdb_backup.catalog_store import read_catalog
from questdb_backup.local.guarding import local_instance
from questdb_backup.local.options import Options, Place
from questdb_backup.local.runner import run_backup, run_restore
from questdb_backup.questdb.base import CreateOutcome, Database, DatabaseState, Fence, ReleaseOutcome
from questdb_backup.services import Services
from questdb_backup.source.base import GroupOutline, PlannedTable, Source, Tree, TreeEntry
from questdb_backup.source.clones import Clones
from questdb_backup.steps.lock import drop_run_lease, take_lease
from questdb_backup.steps.prune import prune_backups
from questdb_backup.stores.base import ObjectStore
from tests.support.questdb_server import DEFAULT_VERSION, QuestDBServer

PROJECT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0

OnRead = Callable[[str], None]


class WatchedTree:
    """A tree that calls ``on_read`` with the path before each read."""

    def __init__(self, inner: Tree, on_read: OnRead) -> None:
        self._inner = inner
        self._on_read = on_read

    def entries(self, path: str) -> list[TreeEntry]:
        return self._inner.entries(path)

    def stat(self, path: str) -> TreeEntry:
        return self._inner.stat(path)

    def read_link(self, path: str) -> str:
        return self._inner.read_link(path)

    def read(self, path: str, offset: int, length: int) -> bytes:
        self._on_read(path)
        return self._inner.read(path, offset, length)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        self._on_read(path)
        return self._inner.read_into(path, offset, buffer)


class WatchedSource:
    """A source whose tree is watched where workers read it; the planner's own reads are not.

    Without ``settles`` nothing of it is settled: all is read while the checkpoint is held.
    """

    def __init__(self, inner: Source, on_read: OnRead, *, settles: bool) -> None:
        self._inner = inner
        self._settles = settles
        self._tree = WatchedTree(inner.tree, on_read)

    @property
    def tree(self) -> Tree:
        return self._tree

    def tables(self) -> Iterator[PlannedTable]:
        return self._inner.tables()

    def outlines(self) -> Iterator[GroupOutline]:
        return self._inner.outlines()

    def settled(self) -> Iterator[tuple[PlannedTable, Iterator[GroupOutline]]]:
        return self._inner.settled() if self._settles else iter(())

    def txnlog_record(self, table: str, txn: int) -> str | None:
        return self._inner.txnlog_record(table, txn)

    def torn_tables(self) -> list[str]:
        return self._inner.torn_tables()


class WatchedClones:
    """Clones that are watched where workers read them."""

    def __init__(self, inner: Clones, on_read: OnRead) -> None:
        self._inner = inner
        self._on_read = on_read

    def add(self, run: str, path: str) -> None:
        self._inner.add(run, path)

    def tree(self, run: str) -> Tree:
        return WatchedTree(self._inner.tree(run), self._on_read)

    def clear(self) -> None:
        self._inner.clear()


class WatchedDatabase:
    """A database that calls ``before`` ahead of the first question, ``after`` when CREATE has returned."""

    def __init__(self, inner: Database, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._inner = inner
        self._before: Callable[[], None] | None = before
        self._after = after

    def read(self) -> DatabaseState:
        if self._before is not None:
            before, self._before = self._before, None
            before()
        return self._inner.read()

    def create_checkpoint(self, fence: Fence) -> CreateOutcome:
        outcome = self._inner.create_checkpoint(fence)
        self._after()
        return outcome

    def release_checkpoint(self, fence: Fence, *, timeout_seconds: float) -> ReleaseOutcome:
        return self._inner.release_checkpoint(fence, timeout_seconds=timeout_seconds)


def nothing(*_path: str) -> None:
    """Do nothing."""


def watched(
    place: Place,
    *,
    on_read: OnRead = nothing,
    on_clone_read: OnRead = nothing,
    before: Callable[[], None] = nothing,
    after: Callable[[], None] = nothing,
    settles: bool = True,
) -> Services:
    """The place's services, with something of the test's own happening in between."""
    sound = place.services
    return Services(
        config=replace(sound.config),
        make_store=lambda: sound.store,
        make_status=lambda: sound.status,
        make_database=lambda: WatchedDatabase(sound.database, before, after),
        make_source=lambda version: WatchedSource(sound.make_source(version), on_read, settles=settles),
        make_clones=lambda: WatchedClones(sound.clones, on_clone_read),
    )


def fs_store(folder: Path) -> str:
    """A connection string for a store in a new folder below the given one."""
    (folder / "store").mkdir(exist_ok=True)
    return f"fs::root={folder}/store/data;atomic_write_dir={folder}/store/atomic;"


def options_for(server: QuestDBServer, store: str, *, keep: int = 5, **changes: Any) -> Options:
    """What the command would be given; nothing that retention removes has a grace."""
    flags = {"object-store": store, "cleanup-keep-latest-n": str(keep)}
    return Options(
        **{"root": str(server.root), "dsn": server.dsn, "flags": flags, "grace_hours": 0.0, **changes}
    )


def back_up(options: Options, **happens: Any) -> dict[str, Any]:
    """One backup in this process; ``happens`` as `watched` takes it."""
    place = Place(options, os.environ)
    services = watched(place, **happens) if happens else None
    return run_backup(place, {}, workflow_services=services)


def prune(options: Options) -> dict[str, Any]:
    """Retention and cleanup with no grace at all, which the command refuses."""
    services, instance = Place(options, os.environ).services, catalog_of(options).instance
    token = take_lease(services, instance, "prune:test", "prune")
    try:
        return prune_backups(services, instance, token)
    finally:
        drop_run_lease(services, instance, token, "the prune ended")


def restore(store: str, root: Path, **request: Any) -> dict[str, Any]:
    """One restore in this process, as from a host that knows the store only."""
    place = Place(Options(flags={"object-store": store}), os.environ)
    return run_restore(place.services, {"root": str(root), **request})


@contextmanager
def restored(
    store: str, root: Path, *, version: str = DEFAULT_VERSION, **request: Any
) -> Iterator[QuestDBServer]:
    """A server on what `restore` gave, with everything applied."""
    restore(store, root, **request)
    with QuestDBServer(root, version) as server:
        server.wait_applied()
        yield server


def store_of(options: Options) -> ObjectStore:
    """The store that the options name."""
    return Place(options, os.environ).services.store


def catalog_of(options: Options) -> Catalog:
    """The catalog of the root's instance."""
    place = Place(options, os.environ)
    return read_catalog(place.services.store, str(local_instance(place)))


def checkpoint(server: QuestDBServer) -> tuple[bool, Any]:
    """Whether a checkpoint is held, and since when."""
    ((in_progress, started_at),) = server.execute("select in_progress, started_at from checkpoint_status()")
    return bool(in_progress), started_at


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for the condition. Raise TimeoutError, saying what did not happen."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {WAIT_SECONDS} s")
        time.sleep(0.02)


def command(*arguments: str, store: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end."""
    executable = Path(sys.executable).with_name("questdb-backup")
    return subprocess.run(
        [str(executable), *arguments],
        env=_environment(store),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def _environment(store: str) -> dict[str, str]:
    return {**os.environ, "QDB_BACKUP_OBJECT_STORE": store}


_HELD = (sys.executable, "-m", "tests.support.held_backup")


def _of(server: QuestDBServer) -> list[str]:
    return ["--root", str(server.root), "--dsn", server.dsn]


class HeldBackup:
    """The command ``backup`` in a process of its own, whose workers wait at their first read until `go_on`.

    Several may share a folder: then they wait and go on together.
    """

    def __init__(self, folder: Path, server: QuestDBServer, store: str, *arguments: str) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "hold").touch()
        self._process = subprocess.Popen(
            [*_HELD, str(folder), "backup", "--json", *_of(server), *arguments],
            env=_environment(store),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.stderr = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    def wait_held(self) -> Self:
        """Wait until a worker waits."""
        wait_until(
            lambda: (self._folder / f"held-{self._process.pid}").exists() or self.ended, "a held worker"
        )
        assert not self.ended, self.result()
        return self

    def go_on(self) -> None:
        """Let the workers read."""
        (self._folder / "hold").unlink()

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def result(self) -> tuple[int, dict[str, Any] | None]:
        """Wait for the end; give the exit code and the JSON. `stderr` has the rest."""
        stdout, self.stderr = self._process.communicate(timeout=WAIT_SECONDS)
        return self._process.returncode, json.loads(stdout) if stdout else None
