"""The server over pgwire, with psycopg."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from questdb_backup.errors import DatabaseRejectedError, DatabaseUnavailableError
from questdb_backup.questdb.base import Checkpoint, CreateOutcome, DatabaseState, Fence, ReleaseOutcome
from questdb_backup.questdb.conninfo import conninfo_from, conninfo_from_secret
from questdb_backup.questdb.fencing import BUSY, HELD, POLL_SECONDS, Release, is_late
from questdb_backup.questdb.session import (
    Connection,
    one_line,
    read_identity,
    read_now,
    read_row,
    read_status,
    server_words,
    time_limit,
    translate_error,
)

__all__ = ["PgwireDatabase", "conninfo_from", "conninfo_from_secret"]

READ_SECONDS = 60.0
_NO_STATUS = "unknown function name"  # of the statement that calls checkpoint_status() alone
_VERSION = re.compile(r"QuestDB (\d+(?:\.\d+)+)")
# A dead peer is noticed within a minute, however long a statement may take.
_OPTIONS = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


class PgwireDatabase:
    """A `Database` behind pgwire; every call makes a connection of its own.

    ``conninfo`` is a libpq connection string, or what gives one when a connection is needed (a secret that
    rotates). ``statement_timeout_seconds`` bounds CREATE, which syncs the host's file systems and may take
    many minutes: a client that gives up earlier does not know whether a checkpoint came to be.
    """

    def __init__(
        self,
        conninfo: Callable[[], str] | str,
        *,
        connect_timeout_seconds: float = 10.0,
        statement_timeout_seconds: float = 900.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout_seconds
        self._statement_timeout = statement_timeout_seconds
        self._sleep = sleep
        self._monotonic = monotonic

    def read(self) -> DatabaseState:
        """The server's clock, version and checkpoint, and which server it is.

        A server before 8.1.1 has no ``checkpoint_status()``: its version is given with no checkpoint, for the
        preflight to refuse. Raise DatabaseRejectedError where this is not QuestDB OSS.
        """
        with self._connected(READ_SECONDS) as connection:
            version = _parse_version(str(read_row(connection, b"select build()")[0]))
            try:
                now, checkpoint = read_status(connection)
            except psycopg.Error as error:
                if _NO_STATUS not in str(error):
                    raise
                now, checkpoint = read_now(connection), Checkpoint(in_progress=False, started_at=None)
            data_id, root = read_identity(connection)
        return DatabaseState(now=now, version=version, checkpoint=checkpoint, data_id=data_id, root=root)

    def create_checkpoint(self, fence: Fence) -> CreateOutcome:
        """Send CHECKPOINT CREATE within the fence's window; never raises once it was sent.

        An error that the server itself answers is definite: a failed CREATE leaves no checkpoint. This holds
        for ``Another checkpoint command is in progress`` too: the other command is not ours, since CREATE is
        sent once per intent. Raise DatabaseUnavailableError, DatabaseRejectedError before it is sent.
        """
        # Lost packets are not sent again once the window could have passed.
        unacknowledged = max(1, round(fence.window_seconds / 3 * 1000))
        with self._connected(self._statement_timeout, tcp_user_timeout=unacknowledged) as connection:
            now = read_now(connection)
            if is_late(fence, now):
                return CreateOutcome(outcome="late")
            return _create(connection, fence, now)

    def release_checkpoint(self, fence: Fence, *, timeout_seconds: float) -> ReleaseOutcome:
        """Compare and release, back to back on one connection; see `next_action` for what is waited for.

        A lost connection and a server that is down are tried again until the timeout. Raise
        CheckpointBusyError, DatabaseUnavailableError when ``timeout_seconds`` pass first,
        DatabaseRejectedError where the server refuses the login or RELEASE.
        """
        if fence.db_now is None:
            return ReleaseOutcome(outcome="free")
        release = Release(fence, timeout_seconds, self._sleep, self._monotonic)
        while True:
            try:
                with self._connected(max(release.remaining(), 5.0)) as connection:
                    return release.settle(
                        partial(read_status, connection), partial(_send_release, connection)
                    )
            except DatabaseUnavailableError:
                if release.remaining() <= 0:
                    raise
            self._sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _connected(self, limit_seconds: float, **options: int) -> Iterator[Connection]:
        """A connection for so many seconds at most; psycopg's errors are translated."""
        conninfo = self._conninfo if isinstance(self._conninfo, str) else self._conninfo()
        try:
            with (
                contextlib.closing(self._connect(conninfo, options)) as connection,
                time_limit(connection, limit_seconds),
            ):
                yield connection
        except psycopg.Error as error:
            raise translate_error(error) from error

    def _connect(self, conninfo: str, options: dict[str, int]) -> Connection:
        settings: dict[str, Any] = {
            "connect_timeout": max(2, round(self._connect_timeout)),  # libpq's least
            **_OPTIONS,
            **options,
            **conninfo_to_dict(conninfo),
        }
        return psycopg.connect(make_conninfo(**settings), autocommit=True, prepare_threshold=None)


def _create(connection: Connection, fence: Fence, now: str) -> CreateOutcome:
    try:
        connection.execute(b"CHECKPOINT CREATE")
    except psycopg.Error as error:
        words = server_words(error, connection)
        if words is None:
            return CreateOutcome(outcome="unknown", error=one_line(error))
        return CreateOutcome(outcome="held" if HELD in words else "refused", error=words)
    try:
        return _confirm(connection, fence, now)
    except psycopg.Error as error:
        return CreateOutcome(outcome="unknown", error=one_line(error))


def _confirm(connection: Connection, fence: Fence, now: str) -> CreateOutcome:
    """CREATE has returned: what it made is ours. What began after the window nobody would find again."""
    _, checkpoint = read_status(connection)
    started_at = checkpoint.started_at
    if checkpoint.in_progress and fence.owns(started_at):
        return CreateOutcome(outcome="created", started_at=started_at)
    if checkpoint.in_progress and started_at is not None and started_at > now:
        connection.execute(b"CHECKPOINT RELEASE")
        return CreateOutcome(
            outcome="unknown", error=f"CREATE began at {started_at}, not in its window: released"
        )
    return CreateOutcome(outcome="unknown", error="CREATE returned, but its checkpoint is not held")


def _send_release(connection: Connection) -> bool:
    """Whether RELEASE went through; False while another CHECKPOINT command is in progress."""
    try:
        connection.execute(b"CHECKPOINT RELEASE")
    except psycopg.Error as error:
        if BUSY in (server_words(error, connection) or ""):
            return False
        raise
    return True


def _parse_version(build: str) -> str:
    """``9.3.4`` from ``Build Information: QuestDB 9.3.4, JDK 17.0.15, ...``, without ``-SNAPSHOT``."""
    match = _VERSION.search(build)
    if match is None:
        raise DatabaseRejectedError(f"build() answers '{build}', which names no version of QuestDB OSS")
    return match[1]
