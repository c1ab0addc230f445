"""What will hardly change any more, told by the live files before there is a checkpoint.

The state of a table is read as QuestDB's own reader does it (``TableReader.java``, ``TxReader.java``):
``_txn`` again and again until its version stands still around ``_cv`` and ``_meta``. A state that was
read torn does no harm: its signatures are those of no checkpoint, so nothing of it is taken over.
"""

import struct

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.cv import parse_cv
from questdb_backup.questdb.layout import UnknownLayout
from questdb_backup.questdb.meta import parse_meta
from questdb_backup.questdb.partitions import PartitionBy
from questdb_backup.questdb.txn import parse_txn
from questdb_backup.source.base import EntryKind, Tree
from questdb_backup.source.listing import DB, find, list_needed, read_some, read_whole
from questdb_backup.source.state import State, Table
from questdb_backup.source.wal import SEQUENCER, last_txn_of

_TRIES = 5
_VERSION = struct.Struct("<q")


def live_table(tree: Tree, name: str) -> Table | None:
    """A WAL table's state now; None where it is not one, is of an unknown layout, or does not stand still."""
    folder = f"{DB}/{name}"
    try:
        if find(tree, f"{folder}/{SEQUENCER}") is None or (last_txn := last_txn_of(tree, name)) is None:
            return None
        for _ in range(_TRIES):
            state = _read_state(tree, folder)
            if state is not None:
                return Table(directory=name, name=name, kind="wal", last_txn=last_txn, state=state)
    except (UnknownLayout, SourceFileError):
        pass  # dropped, renamed or altered at this moment: the checkpoint will tell
    return None


def live_tables(tree: Tree) -> list[str]:
    """The directories below ``db`` that may be tables."""
    return [entry.name for entry in list_needed(tree, DB) if entry.kind is EntryKind.DIRECTORY]


def _read_state(tree: Tree, folder: str) -> State | None:
    before = _version(tree, folder)
    meta = parse_meta(read_whole(tree, f"{folder}/_meta"))
    txn_bytes = read_whole(tree, f"{folder}/_txn")
    cv_bytes = read_whole(tree, f"{folder}/_cv")
    if before is None or _version(tree, folder) != before or _VERSION.unpack_from(txn_bytes)[0] != before:
        return None
    txn = parse_txn(txn_bytes, partitioned=meta.partition_by is not PartitionBy.NONE)
    return State(meta=meta, txn=txn, versions=parse_cv(cv_bytes))


def _version(tree: Tree, folder: str) -> int | None:
    data = read_some(tree, f"{folder}/_txn", 0, _VERSION.size)
    return int(_VERSION.unpack(data)[0]) if len(data) == _VERSION.size else None
