"""A server root as it stands now, without a checkpoint: what one would reference, for `plan` only.

It is a look at what changes meanwhile, so it is never what a backup is made of.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.layout import UnknownLayout, check
from questdb_backup.questdb.txnlog import drops_table
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, PlannedTable, Tree
from questdb_backup.source.listing import DB, find, list_needed, read_whole
from questdb_backup.source.path import CheckpointSource
from questdb_backup.source.rest import root_outline
from questdb_backup.source.settled import TRIES, read_live_state
from questdb_backup.source.state import State, Table, table_name
from questdb_backup.source.wal import SEQUENCER, last_txn_of, txn_record

_MOST_TOLD = 10


class LiveSource(CheckpointSource):
    """The source of a backup that would begin now. Tables of an unknown layout are taken whole.

    ``missed`` are the first files that were not as the live state says: they changed meanwhile, or a
    backup would fail there.
    """

    def __init__(self, tree: Tree, *, server_version: str | None) -> None:
        super().__init__(tree, server_version=server_version)
        self.missed: list[str] = []

    def tables(self) -> Iterator[PlannedTable]:
        """As Source says, of what stands below ``db`` now."""
        for table in self._live_tables():
            try:
                yield table.describe(self._tree)
            except SourceFileError as error:
                self._miss(error)

    def outlines(self) -> Iterator[GroupOutline]:
        """As Source says; a group whose files are not there has none."""
        planner = replace(self._planner(self._mat_view_definitions), live=True)
        for table in self._live_tables():
            try:
                yield from map(self._tolerant, planner.outlines(table))
            except SourceFileError as error:
                self._miss(error)
        yield self._tolerant(root_outline(self._tree, live=True))

    def torn_tables(self) -> list[str]:
        """There is no checkpoint to be torn."""
        return []

    def _live_tables(self) -> Iterator[Table]:
        for name in self._table_names():
            try:
                table = live_table_of_any_kind(self._tree, name)
            except SourceFileError as error:
                self._miss(error)
                continue
            if table is not None:
                yield table

    def _tolerant(self, outline: GroupOutline) -> GroupOutline:
        return replace(outline, list_files=partial(self._list, outline))

    def _list(self, outline: GroupOutline) -> Iterable[PlannedFile]:
        try:
            return list(outline.list_files())
        except SourceFileError as error:
            self._miss(error)
            return []

    def _miss(self, error: SourceFileError) -> None:
        if len(self.missed) < _MOST_TOLD:
            self.missed.append(error.fact)

    def _table_names(self) -> list[str]:
        """Directories below ``db``, and the symlinks of tables on other volumes."""
        kinds = (EntryKind.DIRECTORY, EntryKind.SYMLINK)
        return [entry.name for entry in list_needed(self._tree, DB) if entry.kind in kinds]

    @cached_property
    def _mat_view_definitions(self) -> bytes:
        """The definitions of all materialized views."""
        paths = (f"{DB}/{name}/_mv" for name in self._table_names())
        return b"".join(read_whole(self._tree, path) for path in paths if find(self._tree, path) is not None)


def live_table_of_any_kind(tree: Tree, name: str) -> Table | None:
    """The table in a directory below ``db``; None where it is none, or was dropped and waits for its purge.

    One of a layout that is not parsed, or that does not stand still, has the kind ``unknown``. Raise
    SourceFileError where it was dropped meanwhile.
    """
    folder = f"{DB}/{name}"
    names = {entry.name for entry in list_needed(tree, folder)}
    if "_meta" not in names:
        return None
    last_txn, state = None, None
    try:
        check("_lv" not in names, "a live view")
        if SEQUENCER in names:
            last_txn = last_txn_of(tree, name)
            if last_txn is None:
                raise UnknownLayout("a log in parts")
            if drops_table(bytes.fromhex(txn_record(tree, name, last_txn) or "")):
                return None
        if "_view" in names:
            kind = "view"
        else:
            state = _state(tree, folder)
            check(state.meta.wal_enabled == (last_txn is not None), "a WAL table without a log")
            kind = "mat view" if "_mv" in names else "wal" if state.meta.wal_enabled else "non-wal"
    except UnknownLayout:
        kind, last_txn, state = "unknown", None, None
    return Table(directory=name, name=table_name(tree, name), kind=kind, last_txn=last_txn, state=state)


def _state(tree: Tree, folder: str) -> State:
    for _ in range(TRIES):
        state = read_live_state(tree, folder)
        if state is not None:
            check(len(state.txn.symbol_counts) == len(state.meta.symbols), "symbol columns differ")
            return state
    raise UnknownLayout(f"{folder} does not stand still")
