"""How far the tables of a server are behind their WAL, over pgwire."""

import contextlib
import logging
from collections.abc import Callable

import psycopg
from psycopg.conninfo import make_conninfo

from questdb_backup.questdb.session import time_limit, translate_error

logger = logging.getLogger("questdb_backup")

_SECONDS = 3
_SQL = (
    b"select name, sequencerTxn - writerTxn from wal_tables()"
    b" where not suspended and sequencerTxn > writerTxn"
)


class WalLag:
    """Asks the server, on a connection of its own that is short.

    A server that is not reached, or does not let this user ask, is no error: it is said once.
    """

    def __init__(self, conninfo: Callable[[], str]) -> None:
        self._conninfo = conninfo
        self._told = False

    def read(self) -> dict[str, int] | None:
        """Transactions that are committed and not applied, of the tables that have any; None: not known.

        Suspended tables are left out: they fall behind whatever a backup does.
        """
        try:
            return self._ask()
        except psycopg.Error as error:
            if not self._told:
                self._told = True
                logger.warning("the WAL lag is not known, a backup is not held down by it: %s", _words(error))
            return None

    def _ask(self) -> dict[str, int]:
        conninfo = make_conninfo(self._conninfo(), connect_timeout=_SECONDS)
        with (
            contextlib.closing(
                psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
            ) as connection,
            time_limit(connection, _SECONDS),
        ):
            return {str(name): int(behind) for name, behind in connection.execute(_SQL).fetchall()}


def _words(error: psycopg.Error) -> str:
    return translate_error(error).fact
