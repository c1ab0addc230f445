"""Units of work: what one worker is to store (`Unit`), and what an attempt stored (`UnitResult`).

Both are Zstandard-compressed JSON lines in the run's scratch: a header, then one line per group.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from questdb_backup.codec import CHUNK_BYTES, compress_text, decompress_text
from questdb_backup.errors import DamagedBackupError
from questdb_backup.manifest import Group, ShardRef, decode_group, encode_group
from questdb_backup.packs import PackInfo
from questdb_backup.source.base import EntryKind, PlannedFile, PlannedGroup

UNIT_BYTES = 512 << 20
UNIT_FILES = 20_000
_UNITS_BEFORE_DOUBLING = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFile:
    """A planned file, or the piece of it from byte ``start`` on that ends at ``file.size``."""

    file: PlannedFile
    start: int = 0


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
        return sum(piece.file.size - piece.start for piece in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One worker's share: groups, and the shards of the previous backup that may hold their chunks."""

    number: int
    base: tuple[ShardRef, ...]
    groups: tuple[UnitGroup, ...]


def unit_limit(number: int) -> int:
    """Bytes that unit ``number`` aims at: 512 MiB, doubled after every 1,000 units.

    So 10,000 units hold any database, and one of up to 500 GiB has units of 512 MiB.
    """
    return UNIT_BYTES << (number // _UNITS_BEFORE_DOUBLING)


def cut_units(groups: Iterable[PlannedGroup]) -> Iterator[tuple[UnitGroup, ...]]:
    """Cut the plan into balanced shares, in order; files larger than a share are cut at chunk edges."""
    share: list[UnitGroup] = []
    size = files = number = 0
    for group in groups:
        for part in _cut_group(group, unit_limit(number)):
            if share and (size + part.bytes > unit_limit(number) or files >= UNIT_FILES):
                yield tuple(share)
                share, size, files, number = [], 0, 0, number + 1
            share.append(part)
            size += part.bytes
            files += len(part.files)
    if share:
        yield tuple(share)


def _cut_group(group: PlannedGroup, limit: int) -> Iterator[UnitGroup]:
    """The group in parts of at most ``limit`` bytes and `UNIT_FILES` files; without files it is none."""
    pieces: list[UnitFile] = []
    size = 0
    for piece in _pieces(group.files, limit):
        length = piece.file.size - piece.start
        if pieces and (size + length > limit or len(pieces) >= UNIT_FILES):
            yield _part(group, pieces)
            pieces, size = [], 0
        pieces.append(piece)
        size += length
    if pieces:
        yield _part(group, pieces)


def _part(group: PlannedGroup, pieces: list[UnitFile]) -> UnitGroup:
    return UnitGroup(
        table=group.table, partition=group.partition, signature=group.signature, files=tuple(pieces)
    )


def _pieces(files: Iterable[PlannedFile], limit: int) -> Iterator[UnitFile]:
    step = max(CHUNK_BYTES, limit // CHUNK_BYTES * CHUNK_BYTES)
    for file in files:
        start = 0
        while file.size - start > step:
            yield UnitFile(file=_with_size(file, start + step), start=start)
            start += step
        yield UnitFile(file=file, start=start)


def _with_size(file: PlannedFile, size: int) -> PlannedFile:
    return PlannedFile(**{**asdict(file), "size": size})


def encode_unit(unit: Unit) -> bytes:
    """The bytes of ``units/<n>``."""
    header = {"unit": unit.number, "base": [asdict(shard) for shard in unit.base]}
    lines = [header, *({**asdict(group)} for group in unit.groups)]
    return compress_text(b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))


def decode_unit(data: bytes) -> Unit:
    """The inverse. Raise DamagedBackupError."""
    try:
        header, *lines = (json.loads(line) for line in decompress_text(data).splitlines())
        return Unit(
            number=header["unit"],
            base=tuple(ShardRef(**shard) for shard in header["base"]),
            groups=tuple(_decode_unit_group(line) for line in lines),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedBackupError(f"a unit of work cannot be read: {error!r}") from error


def _decode_unit_group(line: dict[str, Any]) -> UnitGroup:
    files = tuple(
        UnitFile(
            file=PlannedFile(**{**piece["file"], "kind": EntryKind(piece["file"]["kind"])}),
            start=piece["start"],
        )
        for piece in line["files"]
    )
    return UnitGroup(
        table=line["table"], partition=line["partition"], signature=line["signature"], files=files
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What one attempt at a unit stored; ``counters`` are bytes and numbers to add up."""

    number: int
    attempt: int
    packs: dict[str, PackInfo]
    counters: dict[str, int]
    groups: tuple[Group, ...]


def encode_result(result: UnitResult) -> bytes:
    """The bytes of ``results/<n>-<attempt>``."""
    header = {
        "unit": result.number,
        "attempt": result.attempt,
        "packs": {name: [info.size, info.digest] for name, info in result.packs.items()},
        "counters": result.counters,
    }
    lines = [json.dumps(header).encode() + b"\n", *(encode_group(group) for group in result.groups)]
    return compress_text(b"".join(lines))


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
            groups=tuple(decode_group(line) for line in lines),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedBackupError(f"the result of a unit cannot be read: {error!r}") from error
