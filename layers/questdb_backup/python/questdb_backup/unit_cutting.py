"""Cuts a plan into units of work: balanced shares, in order."""

from collections.abc import Callable, Iterable, Iterator

from questdb_backup.codec import CHUNK_BYTES
from questdb_backup.manifest import Group
from questdb_backup.source.base import PlannedFile, PlannedGroup
from questdb_backup.stretches import within
from questdb_backup.units import DiskExtent, PlannedItem, UnitFile, UnitGroup, UnitItem

UNIT_BYTES = 512 << 20
UNIT_FILES = 20_000
_UNITS_BEFORE_DOUBLING = 1_000


def unit_limit(number: int, largest: int | None = None) -> int:
    """Bytes that unit ``number`` aims at: 512 MiB, doubled after every 1,000 units, ``largest`` at most.

    So 10,000 units hold any database, and one of up to 500 GiB has units of 512 MiB. Where ``largest`` is
    less there may be more of them.
    """
    aim = UNIT_BYTES << (number // _UNITS_BEFORE_DOUBLING)
    return aim if largest is None else min(aim, max(largest, CHUNK_BYTES))


Locate = Callable[[PlannedGroup, PlannedFile], Iterable[UnitFile]]
"""Gives the pieces of a file, in order and without gaps: where they lie, or what is known of them."""


def whole_file(_group: PlannedGroup, file: PlannedFile) -> tuple[UnitFile]:
    """The file as one piece, to be read by its path."""
    return (UnitFile(file=file),)


def cut_units(
    plan: Iterable[PlannedItem],
    first: int = 0,
    locate: Locate = whole_file,
    *,
    largest: int | None = None,
) -> Iterator[tuple[UnitItem, ...]]:
    """Cut the plan into balanced shares, in order; files larger than a share are cut at chunk edges.

    ``first`` is the number of the first unit, ``largest`` the bytes that none is to exceed.
    """
    share: list[UnitItem] = []
    size, weight, number = 0, 0, first
    for planned in plan:
        for item in _items(planned, unit_limit(number, largest), locate):
            length = item.bytes if isinstance(item, UnitGroup) else 0
            if share and (size + length > unit_limit(number, largest) or weight >= UNIT_FILES):
                yield tuple(share)
                share, size, weight, number = [], 0, 0, number + 1
            share.append(item)
            size += length
            weight += _weight(item)
    if share:
        yield tuple(share)


def _items(planned: PlannedItem, limit: int, locate: Locate) -> Iterator[UnitItem]:
    if isinstance(planned, PlannedGroup):
        yield from _cut_group(planned, limit, locate)
    else:
        yield planned


def _weight(item: UnitItem) -> int:
    """About how many lines the item makes in a unit, so that a unit of kept groups stays small too."""
    if isinstance(item, UnitGroup):
        return len(item.files) + sum([len(extents) + len(kept) for *_, extents, kept in item.files]) // 4
    if isinstance(item, Group):
        return len(item.entries) + sum(len(entry.chunks) for entry in item.entries) // 4
    return 1


def _cut_group(group: PlannedGroup, limit: int, locate: Locate) -> Iterator[UnitGroup]:
    """The group in parts of at most ``limit`` bytes and `UNIT_FILES` files; without files it is none."""
    pieces: list[UnitFile] = []
    size = 0
    step = max(CHUNK_BYTES, limit // CHUNK_BYTES * CHUNK_BYTES)
    for file in group.files:
        for located in locate(group, file):
            for piece in (located,) if located.bytes <= step else _pieces(located, step):
                length = piece.bytes
                is_full = size + length > limit or len(pieces) >= UNIT_FILES
                if pieces and is_full and not _belongs_to(piece, pieces[-1]):
                    yield _part(group, pieces)
                    pieces, size = [], 0
                pieces.append(piece)
                size += length
    if pieces:
        yield _part(group, pieces)


def _belongs_to(piece: UnitFile, before: UnitFile) -> bool:
    """Whether it is the index of the file before it, as ``_event.i`` of ``_event``.

    Where the server writes on, what refers has to be read before what it refers to, by one worker.
    """
    return piece.file.grows and piece.file.path == f"{before.file.path}.i"


def _part(group: PlannedGroup, pieces: list[UnitFile]) -> UnitGroup:
    return UnitGroup(
        table=group.table, partition=group.partition, signature=group.signature, files=tuple(pieces)
    )


def _pieces(piece: UnitFile, step: int) -> Iterator[UnitFile]:
    start, size = piece.start, piece.file.size
    while size - start > step:
        yield cut_piece(piece, start, start + step)
        start += step
    yield cut_piece(piece, start, size)


def cut_piece(piece: UnitFile, start: int, end: int) -> UnitFile:
    """What of a piece that is to be read lies between two bytes of the file."""
    if (start, end) == (piece.start, piece.file.size):
        return piece
    extents = cut_extents(piece.extents, start, end)
    grows = piece.file.grows and end == piece.file.size
    return piece._replace(file=piece.file._replace(size=end, grows=grows), start=start, extents=extents)


def cut_extents(extents: tuple[DiskExtent, ...], start: int, end: int) -> tuple[DiskExtent, ...]:
    """What of the extents, which are in order, lies between two bytes of the file."""
    if not extents or (start <= extents[0].start and extents[-1].start + extents[-1].length <= end):
        return extents
    return tuple(_cut_extents(extents, start, end))


def _cut_extents(extents: tuple[DiskExtent, ...], start: int, end: int) -> Iterator[DiskExtent]:
    for extent, first, last in within(extents, start, end):
        skipped = first - extent.start
        data = None if extent.data is None else extent.data[skipped : skipped + last - first]
        yield DiskExtent(first, last - first, extent.volume, extent.offset + skipped, data)
