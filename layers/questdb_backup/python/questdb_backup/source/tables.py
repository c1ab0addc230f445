"""The groups of a table: its own files, then its partitions one by one.

What recovery needs of the live directory is told by QuestDB's
``core/src/main/java/io/questdb/cairo/TableSnapshotRestore.java`` (9.3.4).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.partitions import partition_directory, partition_key
from questdb_backup.questdb.txn import Partition
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, Tree, TreeEntry
from questdb_backup.source.columns import PartitionFiles
from questdb_backup.source.listing import (
    CHECKPOINT,
    DB,
    directory,
    find,
    list_needed,
    live_file,
    walk,
)
from questdb_backup.source.signature import partition_signature
from questdb_backup.source.state import State, Table
from questdb_backup.source.symbols import symbol_files
from questdb_backup.source.wal import (
    SEQUENCER,
    is_lock,
    pending_segments,
    sequencer_files,
    wal_files,
)

_NEVER_NEEDED = ("_meta", "_txn", "_cv", "_todo_", "_txn_scoreboard")
"""Of the live directory: recovery takes them from the checkpoint or makes them anew."""

_COPIED = ("_meta", "_txn", "_cv", f"{SEQUENCER}/_meta")
"""What CHECKPOINT CREATE copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlanner:
    """Lists tables' groups. ``links``: tables behind a symlink; ``mat_views``: all definitions of views.

    ``live``: there is no checkpoint; the files that it would copy stand for its copies.
    """

    tree: Tree
    links: frozenset[str]
    mat_views: bytes
    signs: bool
    lists_indexes: bool
    live: bool = False

    def outlines(self, table: Table) -> Iterator[GroupOutline]:
        """The table's own group, then its partitions in time order."""
        if table.kind == "unknown":
            yield self._outline(table, "", None, partial(self._whole_table, table))
            return
        entries = list_needed(self.tree, f"{DB}/{table.directory}")
        yield self._outline(table, "", None, partial(self._own_files, table, entries))
        if table.state is not None:
            yield from self._partitions(table, table.state, list(table.state.txn.partitions()), entries)

    def settled(self, table: Table) -> Iterator[GroupOutline]:
        """The partitions of a live table that have a signature, without the last one, which grows.

        Nothing where the table was dropped meanwhile: no checkpoint keeps it yet.
        """
        if table.state is None:
            return
        try:
            entries = list_needed(self.tree, f"{DB}/{table.directory}")
        except SourceFileError:
            return
        partitions = list(table.state.txn.partitions())[:-1]
        for outline in self._partitions(table, table.state, partitions, entries):
            if outline.signature is not None:
                yield outline

    def _partitions(
        self, table: Table, state: State, partitions: list[Partition], entries: list[TreeEntry]
    ) -> Iterator[GroupOutline]:
        links = {entry.name for entry in entries if entry.kind is EntryKind.SYMLINK}
        for partition in partitions:
            yield from self._partition(table, state, partition, links)

    def _outline(
        self, table: Table, partition: str, signature: str | None, files: Callable[[], Iterator[PlannedFile]]
    ) -> GroupOutline:
        return GroupOutline(table=table.directory, partition=partition, signature=signature, list_files=files)

    def _whole_table(self, table: Table) -> Iterator[PlannedFile]:
        """Everything as it stands: the checkpoint's files must be there, others may vanish in a purge."""
        path = f"{DB}/{table.directory}"
        yield from self._copies(table)
        yield directory(self.tree, path, linked=self._is_linked(table))
        files = walk(
            self.tree, path, follow=True, skip=lambda name: is_lock(name) or name == "_txn_scoreboard"
        )
        yield from (file for file in files if file.path != path)
        yield from self._lock(table)

    def _copies(self, table: Table) -> Iterator[PlannedFile]:
        """What the checkpoint holds of the table."""
        if not self.live:
            yield from walk(self.tree, f"{CHECKPOINT}/{table.directory}", exact=True, required=True)
            return
        for name in _COPIED:
            path = f"{DB}/{table.directory}/{name}"
            if (entry := find(self.tree, path)) is not None:
                yield live_file(path, entry)

    def _own_files(self, table: Table, entries: list[TreeEntry]) -> Iterator[PlannedFile]:
        path = f"{DB}/{table.directory}"
        yield from self._copies(table)
        yield directory(self.tree, path, linked=self._is_linked(table))
        symbols: tuple[PlannedFile, ...] = ()
        if table.state is not None:
            known = {entry.name: entry for entry in entries}
            symbols = tuple(symbol_files(self.tree, path, table.state, known, self.lists_indexes))
        listed = {file.path for file in symbols}  # a column's name may begin with an underscore, too
        for entry in entries:
            if entry.kind is EntryKind.FILE and _is_kept(entry.name) and f"{path}/{entry.name}" not in listed:
                yield live_file(f"{path}/{entry.name}", entry)
        yield from symbols
        if table.last_txn is not None:
            yield from sequencer_files(self.tree, table.directory, table.last_txn)
            yield from self._wal(table, entries)
        yield from self._lock(table)

    def _wal(self, table: Table, entries: list[TreeEntry]) -> Iterator[PlannedFile]:
        if table.state is None:
            return
        pending = pending_segments(self.tree, table.directory, table.state.txn.seq_txn, table.last_txn)
        has_mat_view = table.name.encode("utf-16-le") in self.mat_views
        yield from wal_files(self.tree, table.directory, entries, pending, whole=has_mat_view)

    def _lock(self, table: Table) -> Iterator[PlannedFile]:
        """Its presence makes the writer check the table when it opens it first."""
        path = f"{DB}/{table.directory}.lock"
        if (entry := find(self.tree, path)) is not None:
            yield live_file(path, entry)

    def _partition(
        self, table: Table, state: State, partition: Partition, links: set[str]
    ) -> Iterator[GroupOutline]:
        name = partition_directory(
            partition.timestamp, state.meta.partition_by, nanos=state.meta.nanos, name_txn=partition.name_txn
        )
        path = f"{DB}/{table.directory}/{name}"
        if partition.rows == 0 and find(self.tree, path) is None:
            return
        linked = name in links
        # The bytes behind a link are not the server's alone, so nothing vouches for them.
        signature = None
        if self.signs and not linked and not _has_live_indexes(state, partition):
            signature = partition_signature(table.directory, state, partition)
        files = partial(self._partition_files, state, partition, path, linked=linked)
        yield self._outline(table, partition_key(partition.timestamp), signature, files)

    def _partition_files(
        self, state: State, partition: Partition, path: str, *, linked: bool
    ) -> Iterator[PlannedFile]:
        yield directory(self.tree, path, linked=linked)
        listed = PartitionFiles(
            self.tree, path, {entry.name: entry for entry in list_needed(self.tree, path)}
        )
        if partition.is_parquet:
            yield from listed.parquet(partition.last_word)
            return
        yield from listed.other(".squash_ts")
        stored, versions = partition.rows, state.versions.in_partition(partition.timestamp)
        for column in state.meta.columns:
            version = versions.find(column.index)
            if version is None:
                continue
            rows = stored - version.top
            yield from listed.column(column, rows, version.name_txn)
            if self.lists_indexes and column.indexed and column.type.is_symbol and rows > 0:
                yield from listed.indexes(column, version.name_txn)

    def _is_linked(self, table: Table) -> bool:
        return table.directory in self.links


def _has_live_indexes(state: State, partition: Partition) -> bool:
    """Whether index files are stored that no signature covers: the ones beside ``data.parquet``."""
    return partition.is_parquet and any(column.indexed for column in state.meta.symbols)


def _is_kept(name: str) -> bool:
    return name.startswith("_") and name not in _NEVER_NEEDED and not name.startswith("_meta.")
