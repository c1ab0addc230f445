"""One pgwire connection: the statements that read, a time limit, and psycopg's errors in the product's words.

QuestDB answers most errors with SQLSTATE 00000, so they are told apart by their text.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg

from questdb_backup.clock import format_timestamp
from questdb_backup.errors import BackupToolError, DatabaseRejectedError, DatabaseUnavailableError
from questdb_backup.questdb.base import Checkpoint

logger = logging.getLogger("questdb_backup")

Connection = psycopg.Connection[tuple[Any, ...]]

_LOGIN_REFUSED = (
    "invalid username/password",
    "password authentication failed",
    "no password supplied",
    "server does not support SSL",
    "certificate verify failed",
    "connection is bad: invalid",  # a value of the connection string, say of sslmode
    "bad value for",
)


def read_status(connection: Connection) -> tuple[str, Checkpoint]:
    """The server's clock, and the checkpoint as it stands then or a little later."""
    sql = b"select now(), in_progress, started_at from checkpoint_status()"
    now, in_progress, started_at = read_row(connection, sql)
    started = format_timestamp(started_at) if started_at is not None else None
    return format_timestamp(now), Checkpoint(in_progress=bool(in_progress), started_at=started)


def read_now(connection: Connection) -> str:
    """The server's clock."""
    return format_timestamp(read_row(connection, b"select now()")[0])


def read_identity(connection: Connection) -> tuple[str | None, str | None]:
    """The server's data id in hex, and its root; None for what it does not tell (before 9.1 no data id)."""
    data_id = _told(connection, b"select current_data_id()")
    places = b"select property_path, value, value_source from (show parameters)"
    rows = _rows_told(
        connection, places + b" where property_path in ('cairo.root', 'cairo.sql.copy.work.root')"
    )
    return (data_id.hex if isinstance(data_id, UUID) else None), _root_of(rows)


def _root_of(rows: list[tuple[Any, ...]]) -> str | None:
    """The root: above an absolute ``cairo.root``, else above ``tmp``, whose default is an absolute path."""
    values = {name: (str(value), source) for name, value, source in rows}
    db, _ = values.get("cairo.root", ("", ""))
    work, source = values.get("cairo.sql.copy.work.root", ("", ""))
    if db.startswith("/"):
        return db.rstrip("/").rpartition("/")[0] or "/"
    return work.removesuffix("/tmp") if source == "default" and work.endswith("/tmp") else None


def _told(connection: Connection, sql: bytes) -> object:
    """The only value of an answer; None where the server refuses the statement."""
    rows = _rows_told(connection, sql)
    return rows[0][0] if rows else None


def _rows_told(connection: Connection, sql: bytes) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(sql).fetchall()
    except psycopg.Error as error:
        if server_words(error, connection) is None:
            raise
        return []


def read_row(connection: Connection, sql: bytes) -> tuple[Any, ...]:
    """The first row of an answer."""
    row = connection.execute(sql).fetchone()
    if row is None:
        raise psycopg.DataError(f"no row from: {sql.decode()}")
    return row


@contextlib.contextmanager
def time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Shut the connection's socket down when the time is over: what waits on it then fails."""

    def shut_down() -> None:
        logger.warning("no answer of QuestDB in %g s: the connection is cut", seconds)
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def server_words(error: psycopg.Error, connection: Connection) -> str | None:
    """The server's own answer to a statement; None where the connection failed and it is not known."""
    words = error.diag.message_primary
    return None if connection.broken or not words else words


def translate_error(error: psycopg.Error) -> BackupToolError:
    """The error for what psycopg raises before or beside CREATE."""
    text = one_line(error)
    if any(words in text for words in _LOGIN_REFUSED):
        return DatabaseRejectedError(
            f"QuestDB refused the connection: {text}",
            "check user, password and sslmode in --dsn or PG* variables",
        )
    if error.diag.message_primary:
        return DatabaseRejectedError(f"QuestDB refused the statement: {text}")
    return DatabaseUnavailableError(
        f"no connection to QuestDB: {text}",
        "see that the server runs, and check host and port in --dsn or PG*",
    )


def one_line(error: psycopg.Error) -> str:
    """The error's text, without line breaks."""
    return " ".join(str(error).split())
