"""What the checkpoint says of a table: its kind, its parsed files, whether they are whole.

The mandatory files of ``.checkpoint/db/<table>`` are those that QuestDB's
``core/src/main/java/io/questdb/cairo/DatabaseCheckpointAgent.java`` writes (9.3.4).
"""

from dataclasses import dataclass

from questdb_backup.questdb.cv import ColumnVersions, parse_cv
from questdb_backup.questdb.layout import UnknownLayout, check, read_string
from questdb_backup.questdb.meta import TableMeta, parse_meta
from questdb_backup.questdb.partitions import PartitionBy, partition_directory
from questdb_backup.questdb.txn import Txn, parse_txn
from questdb_backup.questdb.txnlog import parse_seq_txn
from questdb_backup.source.base import PlannedTable, Tree
from questdb_backup.source.listing import CHECKPOINT, DB, find, list_needed, read_some, read_whole
from questdb_backup.source.wal import SEQUENCER, txn_record


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was parsed of a table or a materialized view."""

    meta: TableMeta
    txn: Txn
    versions: ColumnVersions


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An entry of ``.checkpoint/db``; ``state`` is None for a view and for an unknown layout."""

    directory: str
    name: str
    kind: str
    last_txn: int | None
    state: State | None

    def describe(self, tree: Tree) -> PlannedTable:
        """What the manifest keeps."""
        known = self.kind != "unknown"
        return PlannedTable(
            table=self.directory,
            name=self.name,
            kind=self.kind,
            last_txn=self.last_txn,
            txnlog_record=txn_record(tree, self.directory, self.last_txn, needed=True) if known else None,
            rows=self.state.txn.rows if self.state else None,
        )


def is_torn(tree: Tree, name: str) -> bool:
    """Whether a mandatory file is missing: the table was dropped while CREATE ran; recovery would abort."""
    folder = f"{CHECKPOINT}/{name}"
    names = {entry.name for entry in list_needed(tree, folder)}
    mandatory = {"_meta", "_txn", "_view"} if "_view" in names else {"_meta", "_txn", "_cv"}
    if not mandatory <= names:
        return True
    if SEQUENCER not in names:
        return False
    return not {"_meta", "_txn"} <= {entry.name for entry in list_needed(tree, f"{folder}/{SEQUENCER}")}


def load_table(tree: Tree, name: str) -> Table:
    """Parse a table's entry; one of an unknown layout has the kind ``unknown``.

    Raise SourceFileError where a mandatory file is missing.
    """
    folder = f"{CHECKPOINT}/{name}"
    names = {entry.name for entry in list_needed(tree, folder)}
    last_txn = None
    try:
        if SEQUENCER in names:
            last_txn = parse_seq_txn(read_whole(tree, f"{folder}/{SEQUENCER}/_txn"))
        if "_view" in names:
            return Table(
                directory=name, name=table_name(tree, name), kind="view", last_txn=last_txn, state=None
            )
        check("_lv" not in names, "a live view")
        state = read_state(tree, folder)
        check(state.meta.wal_enabled == (last_txn is not None), "a WAL table without a sequencer's copy")
    except UnknownLayout:
        return Table(
            directory=name, name=table_name(tree, name), kind="unknown", last_txn=last_txn, state=None
        )
    kind = "mat view" if "_mv" in names else "wal" if state.meta.wal_enabled else "non-wal"
    return Table(directory=name, name=table_name(tree, name), kind=kind, last_txn=last_txn, state=state)


def read_state(tree: Tree, folder: str) -> State:
    """Parse ``_meta``, ``_txn`` and ``_cv`` of a folder.

    Raise UnknownLayout, and SourceFileError where one is missing.
    """
    meta = parse_meta(read_whole(tree, f"{folder}/_meta"))
    partitioned = meta.partition_by is not PartitionBy.NONE
    txn = parse_txn(read_whole(tree, f"{folder}/_txn"), partitioned=partitioned)
    check(len(txn.symbol_counts) == len(meta.symbols), "symbol columns of _txn and _meta differ")
    partition_directory(
        txn.last_timestamp, meta.partition_by, nanos=meta.nanos
    )  # the last has a name: so have all
    return State(meta=meta, txn=txn, versions=parse_cv(read_whole(tree, f"{folder}/_cv")))


def table_name(tree: Tree, directory: str) -> str:
    """The name as users know it, from ``_name``; servers before 9.3 leave it out of the checkpoint."""
    for folder in (CHECKPOINT, DB):
        path = f"{folder}/{directory}/_name"
        if (entry := find(tree, path)) is not None:
            try:
                return read_string(read_some(tree, path, 0, entry.size), 0, path)[0]
            except UnknownLayout:
                continue
    return directory.rpartition("~")[0] or directory
