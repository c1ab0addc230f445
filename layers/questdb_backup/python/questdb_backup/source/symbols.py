"""Symbol tables: texts in ``.c``, a header and offsets in ``.o``, a hash index in ``.k`` and ``.v``.

Recovery (QuestDB's ``core/src/main/java/io/questdb/cairo/SymbolMapUtil.java``) reads the header of ``.o``
and the texts that ``_txn`` counts from ``.c``, and makes the rest anew. Servers that cannot make an index
from nothing want ``.k`` and ``.v`` to be there too.
"""

import struct
from collections.abc import Iterator

from questdb_backup.source.base import PlannedFile, Tree, TreeEntry
from questdb_backup.source.listing import live_file, missing, needed_file, read_some, too_short
from questdb_backup.source.state import State

HEADER_SIZE = 64
_KIND = "symbol"
_SPAN = struct.Struct("<2q")
_LENGTH = struct.Struct("<i")


def symbol_files(
    tree: Tree, path: str, state: State, entries: dict[str, TreeEntry], lists_indexes: bool
) -> Iterator[PlannedFile]:
    """The files of every live symbol column. Raise SourceFileError for a missing or short one."""
    for column in state.meta.symbols:
        name_txn = state.versions.symbol_table_name_txn(column.index)
        suffix = f".{name_txn}" if name_txn > -1 else ""
        count = state.txn.symbol_counts[column.symbol_rank]
        offsets, texts = f"{column.name}.o{suffix}", f"{column.name}.c{suffix}"
        yield needed_file(f"{path}/{offsets}", entries.get(offsets), HEADER_SIZE, _KIND)
        if (entry := entries.get(texts)) is None:
            raise missing(f"{path}/{texts}", _LENGTH.size * count)
        yield _texts(tree, path, entry, offsets, count)
        if lists_indexes:
            yield from _indexes(path, column.name, suffix, entries)


def _texts(tree: Tree, path: str, entry: TreeEntry, offsets: str, count: int) -> PlannedFile:
    """``.c`` up to the last text counted; whole where ``.o``, which may be torn, does not tell its end."""
    file = f"{path}/{entry.name}"
    if entry.size < _LENGTH.size * count:
        raise too_short(file, entry.size, _LENGTH.size * count)
    end = _end_of_texts(tree, file, f"{path}/{offsets}", count)
    if end is None:
        return live_file(file, entry, required=True, column_type=_KIND)
    return needed_file(file, entry, end, _KIND)


def _end_of_texts(tree: Tree, texts: str, offsets: str, count: int) -> int | None:
    """Where the last text ends: ``.o`` says it, and the text's own length must agree."""
    if count == 0:
        return 0
    span = read_some(tree, offsets, HEADER_SIZE + 8 * (count - 1), _SPAN.size)
    if len(span) < _SPAN.size:
        return None
    start, end = _SPAN.unpack(span)
    if not 0 <= start < end:
        return None
    length = read_some(tree, texts, start, _LENGTH.size)
    if len(length) < _LENGTH.size or end - start != _LENGTH.size + 2 * _LENGTH.unpack(length)[0]:
        return None
    return int(end)


def _indexes(path: str, name: str, suffix: str, entries: dict[str, TreeEntry]) -> Iterator[PlannedFile]:
    for kind in ("k", "v"):
        file = f"{name}.{kind}{suffix}"
        if (entry := entries.get(file)) is None:
            raise missing(f"{path}/{file}")
        yield live_file(f"{path}/{file}", entry, required=True, column_type=_KIND)
