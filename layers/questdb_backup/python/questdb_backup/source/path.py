"""The source on this host: a server root under a checkpoint, or a frozen copy that holds its own."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.features import counts_squashes, rebuilds_indexes
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedTable, Tree
from questdb_backup.source.listing import CHECKPOINT, DB, list_needed, read_whole
from questdb_backup.source.local_tree import LocalTree
from questdb_backup.source.rest import root_outline
from questdb_backup.source.settled import live_table, live_tables
from questdb_backup.source.state import is_torn, load_table
from questdb_backup.source.tables import TablePlanner
from questdb_backup.source.wal import txn_record

__all__ = ["CheckpointSource", "LocalTree"]


class CheckpointSource:
    """Source on any tree that holds a checkpoint.

    ``server_version`` decides what the version can do; None is an unknown one. ``lists_indexes``
    includes the files of indexes; by default where recovery by that version cannot make them anew.
    Signatures are given where the version counts squashes.
    """

    def __init__(self, tree: Tree, *, server_version: str | None, lists_indexes: bool | None = None) -> None:
        self._tree = tree
        self._signs = counts_squashes(server_version)
        self._lists_indexes = not rebuilds_indexes(server_version) if lists_indexes is None else lists_indexes

    @property
    def tree(self) -> Tree:
        """As Source says."""
        return self._tree

    def tables(self) -> Iterator[PlannedTable]:
        """As Source says."""
        for name in self._table_names():
            yield load_table(self._tree, name).describe(self._tree)

    def outlines(self) -> Iterator[GroupOutline]:
        """As Source says; the root's own group comes last, because ``_tab_index.d`` must be read late."""
        planner = self._planner(self._mat_view_definitions)
        for name in self._table_names():
            yield from planner.outlines(load_table(self._tree, name))
        yield root_outline(self._tree)

    def settled(self) -> Iterator[tuple[PlannedTable, Iterator[GroupOutline]]]:
        """As Source says."""
        if not self._signs:
            return
        planner = self._planner(b"")
        for name in live_tables(self._tree):
            table = live_table(self._tree, name)
            with suppress(SourceFileError):  # dropped meanwhile
                if table is not None:
                    yield table.describe(self._tree), planner.settled(table)

    def _planner(self, mat_views: bytes) -> TablePlanner:
        return TablePlanner(
            tree=self._tree,
            links=frozenset(self._links),
            mat_views=mat_views,
            signs=self._signs,
            lists_indexes=self._lists_indexes,
        )

    def txnlog_record(self, table: str, txn: int) -> str | None:
        """As Source says."""
        return txn_record(self._tree, table, txn)

    def torn_tables(self) -> list[str]:
        """As Source says."""
        return [name for name in self._table_names() if is_torn(self._tree, name)]

    def _table_names(self) -> list[str]:
        entries = list_needed(self._tree, CHECKPOINT)
        return [entry.name for entry in entries if entry.kind is EntryKind.DIRECTORY]

    @cached_property
    def _links(self) -> set[str]:
        """Tables on other volumes."""
        return {entry.name for entry in list_needed(self._tree, DB) if entry.kind is EntryKind.SYMLINK}

    @cached_property
    def _mat_view_definitions(self) -> bytes:
        """The definitions of all materialized views; the names of their base tables are in there."""
        found = []
        for name in self._table_names():
            if any(entry.name == "_mv" for entry in list_needed(self._tree, f"{CHECKPOINT}/{name}")):
                found.append(read_whole(self._tree, f"{CHECKPOINT}/{name}/_mv"))
        return b"".join(found)
