"""The files of one partition, with the lengths that its committed rows need.

QuestDB checks no length when it recovers: it starts on a short file and answers wrong. So each length is
computed here, from rows and column tops, as ``core/src/main/java/io/questdb/cairo/TableReader.java``
(``reloadColumnAt``) maps it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.meta import Column
from questdb_backup.source.base import EntryKind, PlannedFile, Tree, TreeEntry
from questdb_backup.source.listing import find, live_file, missing, needed_file, read_needed, too_short

_PARQUET = "data.parquet"
_DAMAGED = "the file was damaged or never written; query the column over the whole partition"


@dataclass(frozen=True, slots=True)
class PartitionFiles:
    """The directory of a partition as it was listed."""

    tree: Tree
    path: str
    entries: dict[str, TreeEntry]

    def parquet(self, size: int) -> Iterator[PlannedFile]:
        """``data.parquet``, of which ``size`` bytes are committed, and the indexes beside it.

        Recovery of 9.3.4 looks for ``data.parquet/data.parquet`` and so makes no index of a parquet
        partition anew; they change with the partition only.
        """
        yield needed_file(f"{self.path}/{_PARQUET}", self.find(_PARQUET), size)
        for name, entry in self.entries.items():
            if entry.kind is EntryKind.FILE and name != _PARQUET:
                yield live_file(f"{self.path}/{name}", entry)

    def column(self, column: Column, rows: int, name_txn: int) -> Iterator[PlannedFile]:
        """The column's data and index of offsets, for rows below its top.

        A column without rows may have files; the writer would make them anew, so they may be missing.
        """
        suffix, kind = f".{name_txn}" if name_txn > -1 else "", column.type
        data, aux = f"{column.name}.d{suffix}", f"{column.name}.i{suffix}"
        if rows <= 0:
            yield from self._empty(column, data, aux)
        elif kind.width:
            yield needed_file(f"{self.path}/{data}", self.find(data), kind.data_size(rows), kind.name)
        else:
            data_size = self._data_size(column, rows, aux)
            yield needed_file(f"{self.path}/{data}", self.find(data), data_size, kind.name)
            yield needed_file(f"{self.path}/{aux}", self.find(aux), kind.aux_size(rows), "aux")

    def indexes(self, column: Column, name_txn: int) -> Iterator[PlannedFile]:
        """The index of a symbol column, live: the server changes it in place."""
        suffix = f".{name_txn}" if name_txn > -1 else ""
        for kind in ("k", "v"):
            name = f"{column.name}.{kind}{suffix}"
            if (entry := self.find(name)) is None:
                raise missing(f"{self.path}/{name}")
            yield live_file(f"{self.path}/{name}", entry, required=True)

    def other(self, name: str) -> Iterator[PlannedFile]:
        """A file that is kept where it exists."""
        if (entry := self.find(name)) is not None:
            yield live_file(f"{self.path}/{name}", entry)

    def find(self, name: str) -> TreeEntry | None:
        """The entry of that name; a symlink is followed."""
        entry = self.entries.get(name)
        if entry is not None and entry.kind is EntryKind.SYMLINK:
            return find(self.tree, f"{self.path}/{name}")
        return entry

    def _empty(self, column: Column, data: str, aux: str) -> Iterator[PlannedFile]:
        sizes = {data: 0, aux: column.type.aux_size(0)} if column.type.width == 0 else {data: 0}
        for name, size in sizes.items():
            if (entry := self.find(name)) is not None:
                mode, least = entry.mode, min(size, entry.size)
                yield PlannedFile(
                    path=f"{self.path}/{name}",
                    kind=EntryKind.FILE,
                    mode=mode,
                    size=least,
                    exact=False,
                    required=False,
                )

    def _data_size(self, column: Column, rows: int, aux: str) -> int:
        path, needed = f"{self.path}/{aux}", column.type.aux_size(rows)
        entry = self.find(aux)
        if entry is None:
            raise missing(path, needed)
        if entry.size < needed:
            raise too_short(path, entry.size, needed)
        last = read_needed(self.tree, path, *column.type.last_aux(rows))
        try:
            return column.type.data_size(rows, last)
        except ValueError as error:
            raise SourceFileError(f"{path} gives {error}", _DAMAGED) from error
