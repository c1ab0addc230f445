"""The WAL of a table: the sequencer's log, and the segments that are not applied yet.

A transaction after the ``seqTxn`` of ``_txn`` and up to the checkpoint's last one was acknowledged, but
its rows are in a segment only: recovery applies it again. Other segments are left out, except where a
materialized view reads the table's WAL for its next refresh (QuestDB's ``WalPurgeJob.java`` keeps them
for that too; without them the view is made anew from the whole table, and what the table's TTL has
dropped by then is lost), or where the log is not a V1 log that parses fully: then every ``walN`` is taken.
"""

import re
from collections.abc import Iterator

from questdb_backup.questdb.layout import UnknownLayout
from questdb_backup.questdb.txnlog import RECORD_SIZE, log_size, parse_log_header, segments
from questdb_backup.source.base import EntryKind, PlannedFile, Tree, TreeEntry
from questdb_backup.source.listing import (
    DB,
    directory,
    find,
    live_file,
    missing,
    needed_file,
    read_needed,
    read_some,
    walk,
)

SEQUENCER = "txn_seq"
_LOG = "_txnlog"
_HEADER_BYTES = 24
_RECORDS_AT_ONCE = 1 << 18
"""7 MiB of the log: a table that was suspended may have tens of millions to apply."""
_WAL = re.compile(r"wal\d+", re.ASCII)


def is_lock(name: str) -> bool:
    """Whether the file is a lock of the running server."""
    return name.endswith(".lock")


def sequencer_files(tree: Tree, table: str, last_txn: int | None) -> Iterator[PlannedFile]:
    """``txn_seq`` without its ``_meta``, which recovery takes from the checkpoint.

    Of a V1 log the records up to ``last_txn`` are needed; what lies behind them recovery cuts off.
    """
    folder = f"{DB}/{table}/{SEQUENCER}"
    log = f"{folder}/{_LOG}"
    entry = find(tree, log)
    if entry is None:
        raise missing(log)
    yield from walk(tree, folder, required=True, skip=lambda name: name in ("_meta", _LOG) or is_lock(name))
    if last_txn is not None and last_txn >= 0 and _is_v1(tree, log):
        yield needed_file(log, entry, log_size(last_txn))
    else:
        yield live_file(log, entry, required=True)


def txn_record(tree: Tree, table: str, txn: int | None, *, needed: bool = False) -> str | None:
    """The log's record of a transaction in hex; None where the log does not reach it, or is not V1.

    ``needed``: raise SourceFileError where the log is missing or shorter than what it says.
    """
    if txn is None or txn < 1:
        return None
    log = f"{DB}/{table}/{SEQUENCER}/{_LOG}"
    read = read_needed if needed else read_some
    try:
        if parse_log_header(read(tree, log, 0, _HEADER_BYTES)).max_txn < txn:
            return None
    except UnknownLayout:
        return None
    record = read(tree, log, log_size(txn - 1), RECORD_SIZE)
    return record.hex() if len(record) == RECORD_SIZE else None


def last_txn_of(tree: Tree, table: str) -> int | None:
    """The last transaction of the live log; None where it is not V1."""
    try:
        return parse_log_header(read_some(tree, f"{DB}/{table}/{SEQUENCER}/{_LOG}", 0, _HEADER_BYTES)).max_txn
    except UnknownLayout:
        return None


def pending_segments(
    tree: Tree, table: str, applied: int, last_txn: int | None
) -> dict[int, set[int]] | None:
    """Segments by WAL that hold a transaction after ``applied`` up to ``last_txn``; None for all of them."""
    log = f"{DB}/{table}/{SEQUENCER}/{_LOG}"
    if last_txn is None or last_txn < 0 or not _is_v1(tree, log):
        return None
    found: dict[int, set[int]] = {}
    try:
        for first in range(applied, last_txn, _RECORDS_AT_ONCE):
            count = min(_RECORDS_AT_ONCE, last_txn - first)
            for wal, segment in segments(read_needed(tree, log, log_size(first), count * RECORD_SIZE)):
                found.setdefault(wal, set()).add(segment)
    except UnknownLayout:
        return None
    return found


def wal_files(
    tree: Tree, table: str, entries: list[TreeEntry], pending: dict[int, set[int]] | None, *, whole: bool
) -> Iterator[PlannedFile]:
    """The pending segments, which must be there; with ``whole``, or where nothing is known, every WAL."""
    base = f"{DB}/{table}"
    needed = {f"{base}/wal{wal}/{segment}" for wal, found in (pending or {}).items() for segment in found}
    for folder in needed:
        if find(tree, folder) is None:
            raise missing(folder)
    if whole or pending is None:
        for entry in entries:
            if entry.kind is EntryKind.DIRECTORY and _WAL.fullmatch(entry.name):
                yield from _whole_wal(tree, f"{base}/{entry.name}", needed)
        return
    for wal in sorted(pending):
        yield directory(tree, f"{base}/wal{wal}")
        for segment in sorted(pending[wal]):
            yield from walk(tree, f"{base}/wal{wal}/{segment}", required=True, skip=is_lock)


def _whole_wal(tree: Tree, folder: str, needed: set[str]) -> Iterator[PlannedFile]:
    for file in walk(tree, folder, skip=is_lock):
        parent = file.path.rpartition("/")[0]
        yield file._replace(required=parent in needed or file.path in needed)


def _is_v1(tree: Tree, log: str) -> bool:
    try:
        parse_log_header(read_needed(tree, log, 0, _HEADER_BYTES))
    except UnknownLayout:
        return False
    return True
