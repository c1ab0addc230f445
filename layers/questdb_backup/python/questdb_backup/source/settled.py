"""What will hardly change any more, told by the live files before there is a checkpoint.

The state of a table is read as QuestDB's own reader does it (``TableReader.java``, ``TxReader.java``):
``_txn`` again and again until its version stands still around ``_cv`` and ``_meta``. A state that was
read torn does no harm: its signatures are those of no checkpoint, so nothing of it is taken over.
"""

import struct

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.layout import UnknownLayout
from questdb_backup.source.base import EntryKind, Tree
from questdb_backup.source.listing import DB, find, list_needed, read_some
from questdb_backup.source.state import State, Table, read_state
from questdb_backup.source.wal import SEQUENCER, last_txn_of

TRIES = 5
_VERSION = struct.Struct("<q")


def live_table(tree: Tree, name: str) -> Table | None:
    """A WAL table's state now; None where it is not one, is of an unknown layout, or does not stand still."""
    folder = f"{DB}/{name}"
    try:
        if find(tree, f"{folder}/{SEQUENCER}") is None or (last_txn := last_txn_of(tree, name)) is None:
            return None
        for _ in range(TRIES):
            state = read_live_state(tree, folder)
            if state is not None:
                return Table(directory=name, name=name, kind="wal", last_txn=last_txn, state=state)
    except (UnknownLayout, SourceFileError):
        pass  # dropped, renamed or altered at this moment: the checkpoint will tell
    return None


def live_tables(tree: Tree) -> list[str]:
    """The directories below ``db`` that may be tables."""
    return [entry.name for entry in list_needed(tree, DB) if entry.kind is EntryKind.DIRECTORY]


def read_live_state(tree: Tree, folder: str) -> State | None:
    """The state, where no commit came between; what a commit tears may be of no known layout.

    Raise UnknownLayout, SourceFileError where a file is missing.
    """
    before = _version(tree, folder)
    try:
        state = read_state(tree, folder)
    except UnknownLayout:
        if _version(tree, folder) == before:
            raise
        return None
    return state if before is not None and _version(tree, folder) == before else None


def _version(tree: Tree, folder: str) -> int | None:
    data = read_some(tree, f"{folder}/_txn", 0, _VERSION.size)
    return int(_VERSION.unpack(data)[0]) if len(data) == _VERSION.size else None
