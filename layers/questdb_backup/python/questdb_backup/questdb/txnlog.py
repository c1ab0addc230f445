"""``txn_seq/_txnlog``: which WAL segment holds a transaction.

From QuestDB's ``core/src/main/java/io/questdb/cairo/wal/seq/TableTransactionLogFile.java`` and
``TableTransactionLogV1.java``. Version 0 (V1) holds every record in the one file; version 1 (V2) holds
them in ``_txn_parts``, which is left unparsed.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from questdb_backup.questdb.layout import check, unpack

HEADER_SIZE = 76
RECORD_SIZE = 28
_V1 = 0
_HEADER = struct.Struct("<iqqi")
_RECORD = struct.Struct("<qiiiq")
_SEQ_TXN = struct.Struct("<q")
_DROPPED = -2
_NO_SEGMENT = (-1, _DROPPED)
"""walId of a change of structure (its content is in ``_txnlog.meta.*``) and of DROP TABLE."""


class LogHeader(NamedTuple):
    """``max_txn`` of the live file may be ahead of the checkpoint."""

    version: int
    max_txn: int
    created: int
    part_size: int


def parse_log_header(data: bytes) -> LogHeader:
    """The header. Raise UnknownLayout where it is short or of a version other than V1."""
    header = LogHeader(*unpack(_HEADER, data, 0, "_txnlog"))
    check(header.version == _V1, f"_txnlog: version {header.version}")
    check(header.max_txn >= 0, f"_txnlog: {header.max_txn} transactions")
    return header


def log_size(last_txn: int) -> int:
    """The bytes of a V1 log up to and with the record of ``last_txn``; transactions count from 1."""
    return HEADER_SIZE + RECORD_SIZE * last_txn


def segments(records: bytes) -> Iterator[tuple[int, int]]:
    """The (walId, segmentId) of each V1 record that has one. Raise UnknownLayout for an impossible one."""
    check(len(records) % RECORD_SIZE == 0, f"_txnlog: records of {len(records)} bytes")
    for _, wal, segment, segment_txn, _ in _RECORD.iter_unpack(records):
        if wal in _NO_SEGMENT:
            continue
        check(wal > 0 and segment >= 0 and segment_txn >= 0, f"_txnlog: wal{wal}/{segment}/{segment_txn}")
        yield wal, segment


def drops_table(record: bytes) -> bool:
    """Whether the record is that of DROP TABLE, after which there is none."""
    return len(record) == RECORD_SIZE and _RECORD.unpack(record)[1] == _DROPPED


def parse_seq_txn(data: bytes) -> int:
    """The checkpoint's ``txn_seq/_txn``: 8 bytes, the last transaction that it counts; -1 for none."""
    return int(unpack(_SEQ_TXN, data, 0, "txn_seq/_txn")[0])
