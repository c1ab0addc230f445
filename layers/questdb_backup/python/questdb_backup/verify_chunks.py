"""Every chunk of the backups by pack, in a temporary file: a large store has too many for the memory."""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from questdb_backup.packs import ChunkRef

_BATCH = 5_000
_SCHEMA = """
CREATE TABLE chunk (
    pack TEXT, start INTEGER, stored INTEGER, plain INTEGER, digest TEXT, codec TEXT, path BLOB,
    PRIMARY KEY (pack, start, stored, plain, digest, codec)
) WITHOUT ROWID
"""


class ChunkTable:
    """Takes chunks in any order and gives them back by pack, each once, with one file that needs it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="questdb-backup-verify-")
        self._database = sqlite3.connect(Path(self._folder.name, "chunks"), isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(_SCHEMA)
        self._waiting: list[tuple[object, ...]] = []

    def __enter__(self) -> "ChunkTable":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a temporary folder that stays is the system's to clean
            self._database.close()
            self._folder.cleanup()

    def add(self, chunk: ChunkRef, path: str) -> None:
        """Note a chunk that a file needs."""
        self._waiting.append((*chunk, os.fsencode(path)))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def of_pack(self, name: str) -> Iterator[tuple[ChunkRef, str]]:
        """The chunks of a pack in their order."""
        self._flush()
        rows = self._database.execute("SELECT * FROM chunk WHERE pack = ? ORDER BY start", (name,))
        for *chunk, path in rows:
            yield ChunkRef(*chunk), os.fsdecode(path)

    def _flush(self) -> None:
        if not self._waiting:
            return
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", self._waiting)
        self._database.execute("COMMIT")
        self._waiting.clear()
