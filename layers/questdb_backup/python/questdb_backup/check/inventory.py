"""What the store holds and what its catalogs name, side by side in a temporary file.

A listing has no promised order and a large store has more keys than fit the memory.
"""

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from questdb_backup.check.shapes import Kind, shape_of
from questdb_backup.stores.base import StoredObject

T = TypeVar("T")

BATCH = 5_000
SHOWN = 1_000  # keys of a class that a report names; the rest is counted
_SCHEMA = """
CREATE TABLE object (
    key TEXT PRIMARY KEY, size INTEGER, instance TEXT, kind TEXT, run TEXT
) WITHOUT ROWID;
CREATE TABLE named (key TEXT PRIMARY KEY, size INTEGER, why INTEGER, digest TEXT) WITHOUT ROWID;
CREATE TABLE bad (key TEXT PRIMARY KEY, what TEXT) WITHOUT ROWID;
"""


class Why(IntEnum):
    """Why a catalog names an object; the lowest counts."""

    BACKUP = 0  # a backup that was there before the listing and after it
    MOVING = 1  # a backup that was published or removed meanwhile
    WAITING = 2  # a tombstone: it waits for its deletion
    DEAD_RUN = 3  # a result of a dead run: a later run may take it, prune removes it


@dataclass(frozen=True, slots=True)
class Item:
    """One listed object of a known shape."""

    key: str
    size: int
    instance: str
    kind: Kind
    run: str | None


@dataclass(frozen=True, slots=True)
class Name:
    """A key that something refers to, with what is known of the object."""

    key: str
    size: int | None = None
    digest: str | None = None


@dataclass(slots=True)
class Tally:
    """How many objects, of how many bytes, and the keys of the first of them."""

    objects: int = 0
    bytes: int = 0
    keys: list[str] = field(default_factory=list)

    def add(self, key: str, size: int) -> None:
        """Count one object."""
        self.objects += 1
        self.bytes += size
        if len(self.keys) < SHOWN:
            self.keys.append(key)

    def __add__(self, other: "Tally") -> "Tally":
        """Both together."""
        keys = [*self.keys, *other.keys][:SHOWN]
        return Tally(self.objects + other.objects, self.bytes + other.bytes, keys)

    def to_json(self) -> dict[str, Any]:
        """For `--json`; surrogates of a file system's odd names are escaped."""
        return {"objects": self.objects, "bytes": self.bytes, "keys": [printable(key) for key in self.keys]}


def printable(key: str) -> str:
    """The key, fit for every terminal."""
    return key.encode("utf-8", "backslashreplace").decode()


class Inventory:
    """A context manager: its file is gone at the end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="questdb-backup-check-")
        self._database = sqlite3.connect(Path(self._folder.name, "inventory"), isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.executescript(_SCHEMA)
        self.foreign = Tally()
        self.objects = 0
        self.bytes = 0

    def __enter__(self) -> "Inventory":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a temporary folder that stays is the system's to clean
            self._database.close()
            self._folder.cleanup()

    def take(self, listed: Iterable[StoredObject], between: Callable[[], None] = lambda: None) -> None:
        """Note a listing; ``between`` is called now and then, to keep a lease."""
        for batch in _batches(listed):
            self._many("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)", self._rows(batch))
            between()

    def _rows(self, batch: list[StoredObject]) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for listed in batch:
            self.objects += 1
            self.bytes += listed.size
            shape = shape_of(listed.key)
            if shape is None:
                self.foreign.add(listed.key, listed.size)
            else:
                rows.append((listed.key, listed.size, shape.instance, shape.kind, shape.run))
        return rows

    def name(self, names: Iterable[Name], why: Why) -> None:
        """Note what refers to objects; what was noted first for a key stays."""
        for batch in _batches(names):
            rows = ((name.key, name.size, int(why), name.digest) for name in batch)
            self._many("INSERT OR IGNORE INTO named VALUES (?, ?, ?, ?)", rows)

    def damage(self, key: str, what: str) -> None:
        """Note that an object is not as it should be."""
        self._database.execute("INSERT OR REPLACE INTO bad VALUES (?, ?)", (key, what))

    def compare(self, prefix: str) -> None:
        """Note as damage what listed backups need below the prefix and is absent, or has another size."""
        self._database.execute(
            "INSERT OR IGNORE INTO bad SELECT named.key, CASE WHEN object.key IS NULL THEN 'is missing'"
            " ELSE 'has ' || object.size || ' bytes instead of ' || named.size END"
            " FROM named LEFT JOIN object ON named.key = object.key WHERE named.why = ?"
            " AND named.key >= ? AND named.key < ?"
            " AND (object.key IS NULL OR (named.size IS NOT NULL AND named.size != object.size))",
            (int(Why.BACKUP), *_range(prefix)),
        )

    def damaged(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and what is wrong, in the keys' order."""
        sql = "SELECT key, what FROM bad WHERE key >= ? AND key < ? ORDER BY key"
        yield from self._database.execute(sql, _range(prefix))

    def is_damaged(self, key: str) -> bool:
        """Whether damage was noted."""
        return self._database.execute("SELECT 1 FROM bad WHERE key = ?", (key,)).fetchone() is not None

    def size_of(self, key: str) -> int | None:
        """The listed size; None where the key is not there."""
        found = self._database.execute("SELECT size FROM object WHERE key = ?", (key,)).fetchone()
        return int(found[0]) if found else None

    def named(self, prefix: str) -> Iterator[Name]:
        """What backups need below the prefix."""
        sql = "SELECT key, size, digest FROM named WHERE why <= ? AND key >= ? AND key < ? ORDER BY key"
        for row in self._database.execute(sql, (int(Why.MOVING), *_range(prefix))):
            yield Name(*row)

    def instances(self) -> list[str]:
        """Every instance that has an object."""
        sql = "SELECT DISTINCT instance FROM object WHERE instance != '' ORDER BY instance"
        return [str(row[0]) for row in self._database.execute(sql)]

    def items(self, instance: str, kind: Kind | None = None) -> Iterator[Item]:
        """Every object of an instance, or those of one kind."""
        sql = "SELECT * FROM object WHERE instance = ? AND kind = coalesce(?, kind) ORDER BY key"
        for key, size, owner, found, run in self._database.execute(sql, (instance, kind)):
            yield Item(key, size, owner, Kind(found), run)

    def with_reasons(self, instance: str) -> Iterator[tuple[Item, Why | None]]:
        """Every object of an instance, and why it is named (None: it is not)."""
        sql = (
            "SELECT object.*, named.why FROM object LEFT JOIN named ON named.key = object.key"
            " WHERE object.instance = ? ORDER BY object.key"
        )
        for key, size, owner, kind, run, why in self._database.execute(sql, (instance,)):
            yield Item(key, size, owner, Kind(kind), run), None if why is None else Why(why)

    def runs(self, instance: str) -> dict[str, set[Kind]]:
        """Every run that left an object, with the kinds of what it left."""
        sql = "SELECT DISTINCT run, kind FROM object WHERE instance = ? AND run IS NOT NULL"
        found: dict[str, set[Kind]] = {}
        for run, kind in self._database.execute(sql, (instance,)):
            found.setdefault(str(run), set()).add(Kind(kind))
        return found

    def _many(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(sql, rows)
        self._database.execute("COMMIT")


def _range(prefix: str) -> tuple[str, str]:
    return prefix, prefix + "\U0010ffff"


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
