"""Units of work: what one worker is to store (`Unit`), and what an attempt stored (`UnitResult`).

Both are Zstandard-compressed JSON lines in the run's scratch: a header, then one line per group.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from questdb_backup.codec import compress_text, decompress_text
from questdb_backup.errors import DamagedBackupError
from questdb_backup.manifest import Group, KeptShard, ShardRef, encode_group, group_from_json
from questdb_backup.packs import ChunkRef, PackInfo
from questdb_backup.source.base import EntryKind, PlannedFile, PlannedGroup

_LEVEL = 1
"""Scratch is read once or twice and then goes."""
_JSON = json.JSONEncoder(separators=(",", ":"))


class DiskExtent(NamedTuple):
    """``length`` bytes of a file from its byte ``start`` on, on a volume of the unit.

    They stand at byte ``offset`` of the volume with that place in `Unit.volumes`, or they are ``data``.
    """

    start: int
    length: int
    volume: int
    offset: int
    data: bytes | None = None


class UnitFile(NamedTuple):
    """A planned file, or the piece of it from byte ``start`` on that ends at ``file.size``.

    ``extents`` tell where a piece is that is read from volumes; what none of them covers is zeros.
    ``kept``: the piece is known to be unchanged, these are its chunks, and nothing of it is read.
    """

    file: PlannedFile
    start: int = 0
    extents: tuple[DiskExtent, ...] = ()
    kept: tuple[ChunkRef, ...] = ()

    @property
    def bytes(self) -> int:
        """What a worker has to read of it."""
        return 0 if self.kept else self.file.size - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitGroup:
    """The part of a planned group that falls into a unit."""

    table: str
    partition: str
    signature: str | None
    files: tuple[UnitFile, ...]

    @property
    def bytes(self) -> int:
        """What a worker has to read of it."""
        return sum([file.size - start for file, start, _, kept in self.files if not kept])


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledPart:
    """A partition that units ``first`` to ``last`` of this run stored before the checkpoint."""

    table: str
    partition: str
    first: int
    last: int


KeptItem = Group | KeptShard | SettledPart
PlannedItem = PlannedGroup | KeptItem
UnitItem = UnitGroup | KeptItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One worker's share, in order: groups to read, and what is kept of the previous backup.

    ``settled``: this is done before the checkpoint, so that a group that vanishes is just left out.
    ``base``: shards of the previous backup that may hold chunks of the groups to read. ``found``: run and
    number of units of dead runs that hold the same stretch. ``spent``: packs that are not referred to
    any more. ``volumes``: the EBS snapshots that are read, none where the root is on this host.
    """

    number: int
    items: tuple[UnitItem, ...]
    settled: bool = False
    volumes: tuple[str, ...] = ()
    base: tuple[ShardRef, ...] = ()
    found: tuple[tuple[str, int], ...] = ()
    spent: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What a worker has to read."""
        return sum(item.bytes for item in self.items if isinstance(item, UnitGroup))

    def files_to_read(self) -> Iterator[UnitFile]:
        """The files, and pieces of files, that a worker reads, in its order."""
        for item in self.items:
            if isinstance(item, UnitGroup):
                yield from (
                    piece for piece in item.files if piece.file.kind is EntryKind.FILE and not piece.kept
                )


def encode_unit(unit: Unit) -> bytes:
    """The bytes of ``units/<n>``."""
    header = {
        "unit": unit.number,
        "settled": unit.settled,
        "volumes": unit.volumes,
        "base": [asdict(shard) for shard in unit.base],
        "found": unit.found,
        "spent": unit.spent,
    }
    return compress_text(b"".join((_line(header), *map(_encode_item, unit.items))), _LEVEL)


def decode_unit(data: bytes) -> Unit:
    """The inverse. Raise DamagedBackupError."""
    try:
        first, *lines = decompress_text(data).splitlines(keepends=True)
        header = json.loads(first)
        return Unit(
            number=header["unit"],
            settled=header["settled"],
            volumes=tuple(header["volumes"]),
            base=tuple(ShardRef(**shard) for shard in header["base"]),
            found=tuple((run, number) for run, number in header["found"]),
            spent=tuple(header["spent"]),
            items=tuple(map(_decode_item, lines)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedBackupError(f"a unit of work cannot be read: {error!r}") from error


def _line(value: dict[str, Any]) -> bytes:
    return _JSON.encode(value).encode() + b"\n"


def _encode_item(item: UnitItem) -> bytes:
    if not isinstance(item, UnitGroup):
        return _encode_kept(item)
    # Lists, because a unit may have tens of thousands of files.
    files = [
        (*file, start, [each[:4] if each.data is None else _inline(each) for each in extents], kept)
        for file, start, extents, kept in item.files
    ]
    return _line(
        {"table": item.table, "partition": item.partition, "signature": item.signature, "files": files}
    )


def _inline(extent: DiskExtent) -> tuple[int, str]:
    return extent.start, b64encode(extent.data or b"").decode()


def _decode_extent(value: list[Any]) -> DiskExtent:
    if len(value) == 2:
        data = b64decode(value[1], validate=True)
        return DiskExtent(value[0], len(data), 0, 0, data)
    return DiskExtent(*value)


def _encode_kept(item: KeptItem) -> bytes:
    if isinstance(item, Group):
        return encode_group(item)
    if isinstance(item, SettledPart):
        return _line({"table": item.table, "partition": item.partition, "settled": [item.first, item.last]})
    return _line({"table": item.table, "shard": asdict(item.shard)})


def _decode_item(line: bytes) -> UnitItem:
    value = json.loads(line)
    if "files" not in value:
        return _decode_kept(value)
    files = tuple(map(_decode_file, value["files"]))
    return UnitGroup(
        table=value["table"], partition=value["partition"], signature=value["signature"], files=files
    )


def _decode_file(value: list[Any]) -> UnitFile:
    path, kind, *others, start, extents, kept = value
    return UnitFile(
        file=PlannedFile(path, EntryKind(kind), *others),
        start=start,
        extents=tuple(map(_decode_extent, extents)),
        kept=tuple(map(ChunkRef.from_json, kept)),
    )


def _decode_kept(value: dict[str, Any]) -> KeptItem:
    if "settled" in value:
        first, last = value["settled"]
        return SettledPart(table=value["table"], partition=value["partition"], first=first, last=last)
    if "shard" in value:
        return KeptShard(table=value["table"], shard=ShardRef(**value["shard"]))
    return group_from_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What one attempt at a unit stored; ``counters`` are bytes and numbers to add up.

    ``packs`` are those that it wrote, and those of dead runs that it refers to.
    """

    number: int
    attempt: int
    packs: dict[str, PackInfo]
    counters: dict[str, int]
    items: tuple[KeptItem, ...]


def encode_result(result: UnitResult) -> bytes:
    """The bytes of ``results/<n>-<attempt>``."""
    header = {
        "unit": result.number,
        "attempt": result.attempt,
        "packs": {name: [info.size, info.digest] for name, info in result.packs.items()},
        "counters": result.counters,
    }
    return compress_text(b"".join((_line(header), *map(_encode_kept, result.items))), _LEVEL)


def decode_result(data: bytes) -> UnitResult:
    """The inverse. Raise DamagedBackupError."""
    try:
        first, *lines = decompress_text(data).splitlines(keepends=True)
        header = json.loads(first)
        return UnitResult(
            number=header["unit"],
            attempt=header["attempt"],
            packs={name: PackInfo(size, digest) for name, (size, digest) in header["packs"].items()},
            counters=header["counters"],
            items=tuple(_decode_kept(json.loads(line)) for line in lines),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedBackupError(f"the result of a unit cannot be read: {error!r}") from error
