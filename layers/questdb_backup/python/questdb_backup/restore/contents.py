"""What a shard brings back, checked against what the manifest says of it, and cut into units of work.

A unit is a list of pieces; a piece is a stretch of one shard's bytes, its files laid end to end in the
shard's order. So a huge partition is shared by many workers, and a thousand tiny tables by one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from questdb_backup.codec import CHUNK_BYTES
from questdb_backup.errors import DamagedBackupError
from questdb_backup.instances import NAME_FILE
from questdb_backup.manifest import Entry, ShardRef, TableRef, read_shard
from questdb_backup.packs import ChunkRef
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import UNIT_BYTES, UNIT_FILES

STAGING = ".restore_staging"
FAILED_FOLDER, FAILED_FILE = ".restore_failed", "_restore_failed"
TRIGGER = "_restore"
RESERVED = frozenset({STAGING, FAILED_FOLDER, FAILED_FILE, TRIGGER, "_backup_restore"})
"""Names in the root that belong to a restore itself; a backup that holds them does not bring them back."""

_SMALLEST_UNIT = 32 << 20
_PIECES = 2_000
_PIECES_PER_SHARD = 1_000
_UNITS_BEFORE_DOUBLING = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The bytes ``start`` to ``end`` of a shard; ``last`` also takes what stands at the very end."""

    table: str
    shard: ShardRef
    start: int
    end: int

    @property
    def last(self) -> bool:
        """Whether the shard ends here."""
        return self.end == self.shard.bytes

    def has(self, offset: int) -> bool:
        """Whether what begins at that offset of the shard is this piece's."""
        return self.start <= offset < self.end or (self.last and offset == self.end)

    def to_json(self) -> list[Any]:
        """A piece as it stands in the plan."""
        return [self.table, asdict(self.shard), self.start, self.end]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Piece":
        """The inverse."""
        table, shard, start, end = value
        return cls(table=table, shard=ShardRef(**shard), start=start, end=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of one entry falls into a piece: itself, and chunks with their offsets in the file."""

    entry: Entry
    owned: bool
    chunks: tuple[tuple[int, ChunkRef], ...]


def cut_restore(tables: Iterable[TableRef], total: int, workers: int) -> Iterator[list[Piece]]:
    """Cut a backup of ``total`` bytes into units, a few for each worker, never more than 10,000.

    The aim is 32 to 512 MiB, doubled after every 1,000 units.
    """
    aim = min(UNIT_BYTES, max(_SMALLEST_UNIT, total // max(1, 4 * workers)))
    unit: list[Piece] = []
    size = files = number = 0
    for name, shard in _shards(tables):
        for piece in _pieces(name, shard, aim << (number // _UNITS_BEFORE_DOUBLING)):
            limit, length = aim << (number // _UNITS_BEFORE_DOUBLING), piece.end - piece.start
            if unit and (size + length > limit or files >= UNIT_FILES or len(unit) >= _PIECES):
                yield unit
                unit, size, files, number = [], 0, 0, number + 1
            unit.append(piece)
            size += length
            files += shard.files if piece.start == 0 else 0
    if unit:
        yield unit


def _shards(tables: Iterable[TableRef]) -> Iterator[tuple[str, ShardRef]]:
    for table in tables:
        for shard in table.shards:
            yield table.name or table.table, shard


def _pieces(name: str, shard: ShardRef, limit: int) -> Iterator[Piece]:
    start = 0
    step = max(limit // CHUNK_BYTES, shard.bytes // CHUNK_BYTES // _PIECES_PER_SHARD, 1) * CHUNK_BYTES
    while shard.bytes - start > step:
        yield Piece(table=name, shard=shard, start=start, end=start + step)
        start += step
    yield Piece(table=name, shard=shard, start=start, end=shard.bytes)


def read_entries(store: ObjectStore, shard: ShardRef) -> Iterator[Entry]:
    """The entries of a shard; at the end their number and sizes are compared with the manifest's.

    Raise DamagedBackupError, naming the object.
    """
    files = size = 0
    try:
        for group in read_shard(store, shard):
            for entry in group.entries:
                if entry.kind == "f":
                    files, size = files + 1, size + entry.size
                elif entry.size:
                    raise DamagedBackupError(f"the directory '{entry.path}' has a size")
                yield entry
    except DamagedBackupError as error:
        named = error.fact if shard.key in error.fact else f"shard {shard.key}: {error.fact}"
        raise DamagedBackupError(named, error.hint) from error
    if (files, size) != (shard.files, shard.bytes):
        raise DamagedBackupError(
            f"shard {shard.key} has {files} files of {size} bytes,"
            f" the manifest says {shard.files} of {shard.bytes}"
        )


def is_restored(path: str) -> bool:
    """Whether the entry is brought back: a restore's own files and the instance's name are not."""
    return path != NAME_FILE and path.split("/", 1)[0] not in RESERVED


def shares(store: ObjectStore, piece: Piece) -> Iterator[Share]:
    """What of the shard falls into the piece. Raise DamagedBackupError."""
    offset = 0
    for entry in read_entries(store, piece.shard):
        start, offset = offset, offset + entry.size
        if not is_restored(entry.path):
            continue
        chunks = tuple(_chunks(entry, start, piece))
        owned = piece.has(start)
        if owned or chunks:
            yield Share(entry=entry, owned=owned, chunks=chunks)


def _chunks(entry: Entry, start: int, piece: Piece) -> Iterator[tuple[int, ChunkRef]]:
    at = 0
    for chunk in entry.chunks:
        if piece.start <= start + at < piece.end:
            yield at, chunk
        at += chunk.plain
