"""What a shard brings back, checked against what the manifest says of it, and cut into units of work.

A unit is a list of pieces; a piece is what one shard has in some packs. The cut goes by packs, so that a
restore reads each pack once, whoever needs what of it; a huge partition is shared by many workers, and a
thousand tiny tables are the work of one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from questdb_backup.codec import Codec
from questdb_backup.errors import DamagedBackupError
from questdb_backup.instances import NAME_FILE
from questdb_backup.manifest import Entry, Group, ShardRef, TableRef, read_shard
from questdb_backup.packs import ChunkRef
from questdb_backup.shards import named_twice
from questdb_backup.stores.base import ObjectStore
from questdb_backup.unit_cutting import UNIT_BYTES, UNIT_FILES

STAGING = ".restore_staging"
FAILED_FOLDER, FAILED_FILE = ".restore_failed", "_restore_failed"
TRIGGER = "_restore"
RESERVED = frozenset({STAGING, FAILED_FOLDER, FAILED_FILE, TRIGGER, "_backup_restore"})
"""Names in the root that belong to a restore itself; a backup that holds them does not bring them back."""

_SMALLEST_UNIT = 32 << 20
_PIECES = 2_000
_LARGEST = 4
"""A pack is cut where it would make a unit so many times larger than it should be."""
_UNITS_BEFORE_DOUBLING = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a shard has in ``packs``; with ``owned`` also its directories and whatever is in no pack.

    ``shard`` is without its own list of packs, of which there are ``packs_in_all``. ``bytes`` is the
    piece's share of the shard's, for balance and progress.
    """

    table: str
    shard: ShardRef
    owned: bool
    packs: tuple[str, ...]
    packs_in_all: int
    bytes: int

    def to_json(self) -> list[Any]:
        """A piece as it stands in the plan."""
        shard = self.shard
        facts = [shard.key, shard.digest, shard.plain_size, shard.files, shard.bytes]
        return [self.table, facts, self.owned, self.packs, self.packs_in_all, self.bytes]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Piece":
        """The inverse."""
        table, (key, digest, plain_size, files, size), owned, packs, packs_in_all, bytes_ = value
        shard = ShardRef(
            key=key,
            digest=digest,
            plain_size=plain_size,
            first="",
            last="",
            groups=0,
            files=files,
            bytes=size,
            closed=False,
        )
        return cls(
            table=table,
            shard=shard,
            owned=owned,
            packs=tuple(packs),
            packs_in_all=packs_in_all,
            bytes=bytes_,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of one entry falls into a piece: itself, and chunks with their offsets in the file."""

    entry: Entry
    owned: bool
    chunks: tuple[tuple[int, ChunkRef], ...]


def cut_restore(tables: Iterable[TableRef], total: int, workers: int) -> Iterator[list[Piece]]:
    """Cut a backup of ``total`` bytes into units, a few for each worker, never more than 10,000.

    The aim is 32 to 512 MiB, doubled after every 1,000 units. A pack is in one unit, unless it holds
    what makes more than a few of them, or parts of thousands of shards.
    """
    aim = min(UNIT_BYTES, max(_SMALLEST_UNIT, total // max(1, 4 * workers)))
    shards = [(table.name or table.table, shard) for table in tables for shard in table.shards]
    unit = _Unit(shards)
    number = 0
    for pack, users in _users(shards).items():
        size, limit = (
            sum(unit.weight(user, pack) for user in users),
            aim << (number // _UNITS_BEFORE_DOUBLING),
        )
        if unit and unit.bytes + size > limit:
            yield unit.take()
            number += 1
        for user in users:
            if unit.bytes > _LARGEST * limit or unit.files >= UNIT_FILES or len(unit) >= _PIECES:
                yield unit.take()
                number += 1
            unit.add(user, pack)
    if unit:
        yield unit.take()


def _users(shards: list[tuple[str, ShardRef]]) -> dict[str, list[int]]:
    """The places of the shards that need each pack, in the order of first need; "" for those without."""
    users: dict[str, list[int]] = {}
    for place, (_, shard) in enumerate(shards):
        for pack in shard.packs or ("",):
            users.setdefault(pack, []).append(place)
    return users


class _Unit:
    """The unit that is being filled."""

    def __init__(self, shards: list[tuple[str, ShardRef]]) -> None:
        self._shards = shards
        self._stored = [sum(shard.packs.values()) for _, shard in shards]
        self._owned = bytearray(len(shards))
        self._packs: dict[int, list[str]] = {}
        self._new: set[int] = set()
        self.bytes = self.files = 0

    def __len__(self) -> int:
        return len(self._packs)

    def weight(self, place: int, pack: str) -> int:
        """The part of a shard's plain bytes that is in a pack: as its part of the stored bytes."""
        shard, stored = self._shards[place][1], self._stored[place]
        return shard.bytes * shard.packs[pack] // stored if stored else shard.bytes

    def add(self, place: int, pack: str) -> None:
        """Take what a shard has in a pack."""
        if not self._owned[place]:
            self._owned[place] = True
            self._new.add(place)
            self.files += self._shards[place][1].files
        packs = self._packs.setdefault(place, [])
        if pack:
            packs.append(pack)
        self.bytes += self.weight(place, pack)

    def take(self) -> list[Piece]:
        """The unit; the next one begins."""
        unit = [self._piece(place, packs) for place, packs in self._packs.items()]
        self._packs, self._new = {}, set()
        self.bytes = self.files = 0
        return unit

    def _piece(self, place: int, packs: list[str]) -> Piece:
        table, shard = self._shards[place]
        return Piece(
            table=table,
            shard=shard,
            owned=place in self._new,
            packs=tuple(packs),
            packs_in_all=len(shard.packs),
            bytes=sum(self.weight(place, pack) for pack in packs or ("",)),
        )


def read_groups(store: ObjectStore, shard: ShardRef) -> Iterator[Group]:
    """The groups of a shard; at the end the number and sizes of files are compared with the manifest's.

    Raise DamagedBackupError, naming the object.
    """
    files = size = 0
    try:
        for group in read_shard(store, shard):
            if path := named_twice(group):
                raise DamagedBackupError(f"it names '{path}' twice", "take another backup")
            for entry in group.entries:
                if entry.kind == "f":
                    files, size = files + 1, size + entry.size
                elif entry.size:
                    raise DamagedBackupError(f"the directory '{entry.path}' has a size")
            yield group
    except DamagedBackupError as error:
        named = error.fact if shard.key in error.fact else f"shard {shard.key}: {error.fact}"
        raise DamagedBackupError(named, error.hint) from error
    if (files, size) != (shard.files, shard.bytes):
        raise DamagedBackupError(
            f"shard {shard.key} has {files} files of {size} bytes,"
            f" the manifest says {shard.files} of {shard.bytes}"
        )


def read_entries(store: ObjectStore, shard: ShardRef) -> Iterator[Entry]:
    """The entries of a shard, checked as by `read_groups`. Raise DamagedBackupError, naming the object."""
    for group in read_groups(store, shard):
        yield from group.entries


def is_restored(path: str) -> bool:
    """Whether the entry is brought back: a restore's own files and the instance's name are not."""
    return path != NAME_FILE and path.split("/", 1)[0] not in RESERVED


def shares(store: ObjectStore, piece: Piece) -> Iterator[Share]:
    """What of the shard falls into the piece.

    Raise DamagedBackupError, also where the shard needs other packs than its manifest says: those
    would be in no unit.
    """
    wanted = {*piece.packs, *(("",) if piece.owned else ())}
    found: set[str] = set()
    for entry in read_entries(store, piece.shard):
        found.update(chunk.pack for chunk in entry.chunks)
        if not is_restored(entry.path):
            continue
        chunks = tuple(_chunks(entry, wanted))
        if piece.owned or chunks:
            yield Share(entry=entry, owned=piece.owned, chunks=chunks)
    found.discard("")
    if len(found) != piece.packs_in_all or not found.issuperset(piece.packs):
        raise DamagedBackupError(f"shard {piece.shard.key} needs other packs than the manifest says")


def _chunks(entry: Entry, packs: set[str]) -> Iterator[tuple[int, ChunkRef]]:
    at = 0
    for chunk in entry.chunks:
        if chunk.pack == "" and chunk.codec != Codec.ZERO:
            raise DamagedBackupError(f"'{entry.path}' has a chunk in no pack")
        if chunk.pack in packs:
            yield at, chunk
        at += chunk.plain
