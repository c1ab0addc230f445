"""What a source gives: a tree to read, and the list of files that a checkpoint references.

The list comes in groups, so that a database of a million files is never held in memory: first each
table's own files (symbols, sequencer, WAL, its entry of ``.checkpoint``), then each partition, then
the files of the root that belong to no table.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class EntryKind(StrEnum):
    """What a directory entry is."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"
    OTHER = "o"


class TreeEntry(NamedTuple):
    """One directory entry: ``mode`` is the permission bits, ``size`` bytes (0 for what is no file)."""

    name: str
    kind: EntryKind
    size: int
    mode: int


class Tree(Protocol):
    """Read access to a server root; paths are relative to it, ``/`` separated, ``""`` is the root.

    Missing paths raise FileNotFoundError, unreadable ones PermissionError or OSError: planner and
    worker know which of them is fatal and wrap them.
    """

    def entries(self, path: str) -> list[TreeEntry]:
        """The entries of a directory, sorted by name; a symlink is given as one, not followed."""

    def stat(self, path: str) -> TreeEntry:
        """One path, symlinks followed."""

    def read_link(self, path: str) -> str:
        """The target text of a symlink."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer where the file ends."""

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from ``offset`` on; give how many bytes, fewer where the file ends."""


class PlannedFile(NamedTuple):
    """One file or directory to store. A named tuple, as there are so many: it is made in a third of the time.

    ``exact``: the checkpoint's rows need all ``size`` bytes, so a shorter or missing file fails the
    backup. Not exact: a live file (configuration, WAL, ``_tab_index.d``): stored as far as it goes; where
    ``required`` is false it may vanish too. ``grows``: to the end that it has when it is read, which may
    lie behind ``size``: a head that the server wrote meanwhile counts what stands there, and QuestDB maps
    what the head says. ``column_type`` is QuestDB's type name
    in lower case for a column's data file (a hint for codecs), ``aux`` for the fixed-width index of a
    variable-size column, ``symbol`` for a symbol file, None otherwise. ``link``: the directory stands
    behind this symlink (information only).
    """

    path: str
    kind: EntryKind
    mode: int
    size: int
    exact: bool
    required: bool = True
    column_type: str | None = None
    link: str | None = None
    grows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGroup:
    """The files of one partition, of one table without its partitions, or of the root.

    ``table``: the table's directory name, "" for the root. ``partition``: "" for a table's or the
    root's own files, else the partition's timestamp as 20 digits, offset so that it sorts as text;
    it does not change when the partition is rewritten. ``signature``: the text that is equal only
    while the partition's bytes are (within one history), None where content must decide.
    """

    table: str
    partition: str
    signature: str | None
    files: tuple[PlannedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutline:
    """A group before its files are listed: an unchanged partition's directory is never looked at.

    ``list_files`` raises SourceFileError where a referenced file is missing or shorter than its rows need.
    """

    table: str
    partition: str
    signature: str | None
    list_files: Callable[[], Iterable[PlannedFile]]

    def plan(self) -> PlannedGroup:
        """List the files. Raise SourceFileError."""
        return PlannedGroup(
            table=self.table,
            partition=self.partition,
            signature=self.signature,
            files=tuple(self.list_files()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTable:
    """What the manifest keeps of a table; ``txnlog_record`` is the proof of descent."""

    table: str
    name: str
    kind: str
    """``wal``, ``non-wal``, ``view``, ``mat view``, or ``unknown``: a layout not known to the parser."""
    last_txn: int | None = None
    txnlog_record: str | None = None
    rows: int | None = None


class Source(Protocol):
    """A server root under a checkpoint."""

    @property
    def tree(self) -> Tree:
        """To read the files that the groups name."""

    def tables(self) -> Iterator[PlannedTable]:
        """Every directory of ``.checkpoint/db``, sorted; one at a time."""

    def outlines(self) -> Iterator[GroupOutline]:
        """Everything to store, tables sorted, each table's own group before its partitions in time order."""

    def settled(self) -> Iterator[tuple[PlannedTable, Iterator[GroupOutline]]]:
        """Tables of the live root with partitions that hardly change any more; needs no checkpoint.

        Only with signatures, and only of tables that can prove their descent. Anything may vanish.
        """

    def txnlog_record(self, table: str, txn: int) -> str | None:
        """The record of that transaction in the table's log, in hex; None where there is none.

        It holds the commit's time, so two histories that part before it have different ones.
        """

    def torn_tables(self) -> list[str]:
        """Directories of ``.checkpoint/db`` that lack a mandatory file (a table dropped during CREATE)."""
