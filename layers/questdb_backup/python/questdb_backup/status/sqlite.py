"""The live status in a SQLite file: what one machine uses.

A connection lives for one operation, so that nothing is shared between threads or carried over a
fork, and a killed process leaves no more than a journal that SQLite rolls back by itself. The plain
rollback journal is used: unlike WAL it needs no shared memory, so the file may be on any disk.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from questdb_backup.errors import BackupToolError, ConfigurationError, StatusUnavailableError
from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import LiveRun
from questdb_backup.status.rules import in_progress, is_run, lease_lost, may_replace, refusal

SCHEMA_VERSION = 1
"""In the file's ``PRAGMA user_version``; 0 is a file that nothing was written to yet."""

_SCHEMA = (
    "CREATE TABLE run (instance TEXT PRIMARY KEY, run TEXT NOT NULL, token INTEGER NOT NULL,"
    " holder TEXT NOT NULL, expires_at TEXT NOT NULL, fence TEXT NOT NULL, total_bytes INTEGER NOT NULL,"
    " done_bytes INTEGER NOT NULL, abort_reason TEXT, error TEXT)",
    "CREATE TABLE unit (instance TEXT NOT NULL, unit INTEGER NOT NULL, done_bytes INTEGER NOT NULL,"
    " PRIMARY KEY (instance, unit)) WITHOUT ROWID",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_COLUMNS = "run, token, holder, expires_at, fence, total_bytes, done_bytes, abort_reason, error"
_STATE_HINT = "name another folder with `--state DIR`"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}


class SqliteStatusStore:
    """A `StatusStore` in a file, which (with its folder) the first `begin` makes.

    An operation waits up to ``busy_timeout_seconds`` for other threads and processes.
    """

    def __init__(self, path: Path, *, busy_timeout_seconds: float = 30.0) -> None:
        self._path = path.absolute()
        self._busy_timeout_seconds = busy_timeout_seconds

    def begin(self, instance: str, live: LiveRun, now: str) -> None:
        """See `StatusStore.begin`."""
        self._make_folder()
        with self._writing(create=True) as connection:
            entered = _load(connection, instance)
            if entered and not may_replace(entered, live, now):
                raise in_progress(entered)
            _forget_units(connection, instance)
            connection.execute(
                f"INSERT OR REPLACE INTO run (instance, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (instance, *_to_row(live)),
            )

    def refuse_if_running(self, instance: str, holder: str, now: str) -> None:
        """See `StatusStore.refuse_if_running`."""
        if error := refusal(self.read(instance), holder, now):
            raise error

    def read(self, instance: str) -> LiveRun | None:
        """See `StatusStore.read`."""
        if not self._exists():
            return None
        with self._connected() as connection:
            return _load(connection, instance)

    def renew(self, instance: str, run: str, token: int, expires_at: str) -> None:
        """See `StatusStore.renew`."""
        with self._owned(instance, run, token) as connection:
            connection.execute("UPDATE run SET expires_at = ? WHERE instance = ?", (expires_at, instance))

    def record_fence(self, instance: str, run: str, token: int, fence: Fence) -> None:
        """See `StatusStore.record_fence`."""
        with self._owned(instance, run, token) as connection:
            connection.execute(
                "UPDATE run SET fence = ? WHERE instance = ?", (json.dumps(fence.to_json()), instance)
            )

    def set_total(self, instance: str, run: str, token: int, total_bytes: int) -> None:
        """See `StatusStore.set_total`."""
        with self._owned(instance, run, token) as connection:
            _forget_units(connection, instance)
            connection.execute(
                "UPDATE run SET total_bytes = ?, done_bytes = 0 WHERE instance = ?", (total_bytes, instance)
            )

    def add_done(self, instance: str, run: str, token: int, unit: int, done_bytes: int) -> None:
        """See `StatusStore.add_done`."""
        with self._owned(instance, run, token) as connection:
            before = connection.execute(
                "SELECT done_bytes FROM unit WHERE instance = ? AND unit = ?", (instance, unit)
            ).fetchone()
            connection.execute("INSERT OR REPLACE INTO unit VALUES (?, ?, ?)", (instance, unit, done_bytes))
            connection.execute(
                "UPDATE run SET done_bytes = done_bytes + ? WHERE instance = ?",
                (done_bytes - (before[0] if before else 0), instance),
            )

    def record_error(self, instance: str, run: str, token: int, error: str) -> None:
        """See `StatusStore.record_error`."""
        with self._owned(instance, run, token) as connection:
            connection.execute(
                "UPDATE run SET error = coalesce(error, ?) WHERE instance = ?", (error, instance)
            )

    def request_abort(self, instance: str, reason: str) -> LiveRun | None:
        """See `StatusStore.request_abort`."""
        if not self._exists():
            return None
        with self._writing() as connection:
            connection.execute(
                "UPDATE run SET abort_reason = coalesce(abort_reason, ?) WHERE instance = ?",
                (reason, instance),
            )
            return _load(connection, instance)

    def finish(self, instance: str, run: str, token: int) -> None:
        """See `StatusStore.finish`."""
        if not self._exists():
            return
        with self._writing() as connection:
            if is_run(_load(connection, instance), run, token):
                _forget_units(connection, instance)
                connection.execute("DELETE FROM run WHERE instance = ?", (instance,))

    @contextmanager
    def _owned(self, instance: str, run: str, token: int) -> Iterator[sqlite3.Connection]:
        """A write that only the entered run may do."""
        if not self._exists():
            raise lease_lost(run, token, None)
        with self._writing() as connection:
            entered = _load(connection, instance)
            if not is_run(entered, run, token):
                raise lease_lost(run, token, entered)
            yield connection

    @contextmanager
    def _writing(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that excludes every other writer from its first read on."""
        with self._connected(create=create) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                if _version(connection) == 0:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                yield connection

    @contextmanager
    def _connected(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        uri = f"{self._path.as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, isolation_level=None, timeout=self._busy_timeout_seconds)
            ) as connection:
                version = _version(connection)
                if version > SCHEMA_VERSION:
                    raise ConfigurationError(
                        f"the status file {self._path} has schema version {version}, this program knows"
                        f" {SCHEMA_VERSION}",
                        f"use the newer program, or {_STATE_HINT}",
                    )
                yield connection
        except sqlite3.Error as error:
            raise self._wrapped(error) from error

    def _exists(self) -> bool:
        try:
            return self._path.exists()
        except OSError as error:
            raise ConfigurationError(
                f"the status file {self._path} cannot be looked up: {error.strerror}", _STATE_HINT
            ) from error

    def _make_folder(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self._path.parent} of the status file cannot be made: {error.strerror}",
                _STATE_HINT,
            ) from error

    def _wrapped(self, error: sqlite3.Error) -> BackupToolError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        if code in _BUSY:
            return StatusUnavailableError(
                f"the status file {self._path} was locked for {self._busy_timeout_seconds:g} s",
                "another process is writing to it; try again",
            )
        if code in _NO_ROOM:
            return StatusUnavailableError(
                f"the status file {self._path} cannot be read or written: {error}",
                f"free space on its disk, or {_STATE_HINT}",
            )
        if code in _DAMAGED:
            return ConfigurationError(
                f"{self._path} is damaged or no status file: {error}",
                f"while no backup runs move it away (it holds live status only), or {_STATE_HINT}",
            )
        return ConfigurationError(
            f"the status file {self._path} cannot be used: {error}",
            f"make the file and its folder writable for this user, or {_STATE_HINT}",
        )


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _load(connection: sqlite3.Connection, instance: str) -> LiveRun | None:
    if _version(connection) == 0:
        return None
    row = connection.execute(f"SELECT {_COLUMNS} FROM run WHERE instance = ?", (instance,)).fetchone()
    return _from_row(row) if row else None


def _forget_units(connection: sqlite3.Connection, instance: str) -> None:
    connection.execute("DELETE FROM unit WHERE instance = ?", (instance,))


def _to_row(live: LiveRun) -> tuple[str | int | None, ...]:
    fence = json.dumps(live.fence.to_json())
    return (
        *(live.run, live.token, live.holder, live.expires_at, fence),
        *(live.total_bytes, live.done_bytes, live.abort_reason, live.error),
    )


def _from_row(row: tuple[str, int, str, str, str, int, int, str | None, str | None]) -> LiveRun:
    run, token, holder, expires_at, fence, total_bytes, done_bytes, abort_reason, error = row
    return LiveRun(
        run=run,
        token=token,
        holder=holder,
        expires_at=expires_at,
        fence=Fence.from_json(json.loads(fence)),
        total_bytes=total_bytes,
        done_bytes=done_bytes,
        abort_reason=abort_reason,
        error=error,
    )
