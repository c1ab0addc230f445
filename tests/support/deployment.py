"""The command on a real server, in this process or as installed, and what it may leave when it fails."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from questdb_backup.catalog import Catalog
from questdb_backup.catalog_store import read_catalog
from questdb_backup.cli.main import main
from questdb_backup.instances import NAME_FILE, read_instances
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.open import open_store
from tests.support.live import checkpoint
from tests.support.questdb_server import QuestDBServer

INSTALLED = Path(sys.executable).with_name("questdb-backup")
TABLE = (
    "create table t as (select rnd_long() noise, timestamp_sequence('2026-01-01', 1000000L) ts"
    " from long_sequence(40000)) timestamp(ts) partition by day wal"
)
"""Some 600 KiB that do not compress."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """The lines on stderr, without those of the progress that a slow run shows."""
        return [line for line in self.err.splitlines() if not line.startswith(("backup: ", "restore: "))]

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.told if line.startswith("warning: ")]

    def refused(self, code: int, *words: str) -> str:
        """The one error of a command that ended with the code; the words stand in it."""
        assert "Traceback" not in self.err, self.err
        assert (self.code, self.out) == (code, ""), self
        (error,) = [line for line in self.told if not line.startswith("warning: ")]
        fact, separator, hint = error.partition(". Hint: ")
        assert fact, error
        assert separator, error
        assert hint.endswith("."), error
        missing = [word for word in words if word not in error]
        assert not missing, (missing, error)
        return error

    def done(self) -> str:
        """What a command printed that did what it should."""
        assert self.code == 0, self.err
        return self.out


def run_here(*arguments: str) -> Ended:
    """The command in this process."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    finally:
        signal.signal(signal.SIGTERM, before)
    return Ended(code, out.getvalue(), err.getvalue())


def run_installed(
    *arguments: str, environment: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> Ended:
    """The command as a user has it, under another command where one is given."""
    done = subprocess.run(
        [*wrapper, str(INSTALLED), *arguments],
        env={**os.environ, **(environment or {})},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A server, a store and a folder for the live status of its own."""

    server: QuestDBServer
    store_text: str
    state: Path

    def arguments(self, verb: str, *more: str, root: Path | None = None) -> list[str]:
        where = ["--root", str(root or self.server.root), "--dsn", self.server.dsn]
        return [verb, *where, "--state", str(self.state), "--object-store", self.store_text, *more]

    def backup(self, *more: str, root: Path | None = None) -> Ended:
        return run_here(*self.arguments("backup", *more, root=root))

    def restore(self, target: Path, *more: str) -> Ended:
        return run_here("restore", "--root", str(target), "--object-store", self.store_text, *more)

    @contextlib.contextmanager
    def _store(self) -> Any:
        store = open_store(self.store_text, max_connections=2)
        try:
            yield store
        finally:
            close = getattr(store, "close", None)
            if close is not None:
                close()

    def names(self) -> set[str]:
        """Every object in the store."""
        with self._store() as store:
            return {found.key for found in store.list("")}

    def catalog(self) -> Catalog:
        """The catalog of the store's only instance."""
        with self._store() as store:
            (instance,) = read_instances(store)[0]
            return read_catalog(store, instance.name)

    def put(self, key: str, data: bytes) -> None:
        """Damage an object by hand."""
        with self._store() as store:
            _put_over(store, key, data)

    def assert_free(self) -> None:
        """No checkpoint is held."""
        assert checkpoint(self.server) == (False, None)

    def assert_failed(self, *words: str) -> None:
        """The run is told in `backups` as failed, nothing of it is listed, and nothing is held."""
        self.assert_free()
        catalog = self.catalog()
        assert catalog.lease is None
        row = catalog.rows[-1]
        assert (row.status, row.manifest) == ("backup failed", None)
        assert not [word for word in words if word not in str(row.backup_error)], row.backup_error

    def assert_usable(self) -> None:
        """The next backup works."""
        assert self.backup().done().startswith("20")
        assert self.catalog().rows[-1].status == "backup complete"
        self.assert_free()


def _put_over(store: ObjectStore, key: str, data: bytes) -> None:
    store.delete([key])
    store.create(key, data)


def tree(*folders: Path) -> dict[str, bytes]:
    """Everything below the folders; of a server root what belongs to the product only."""
    found: dict[str, bytes] = {}
    for folder in folders:
        paths = (
            [folder / NAME_FILE, *(folder / "backup").rglob("*")]
            if (folder / "db").is_dir()
            else folder.rglob("*")
        )
        found |= {str(path): path.read_bytes() if path.is_file() else b"" for path in paths if path.exists()}
    return found
