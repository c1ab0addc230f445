"""QuestDB's small files made by hand, and a server root of one table that holds a checkpoint of itself."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

INT, TIMESTAMP, STRING, SYMBOL, VARCHAR = 5, 8, 11, 12, 26
DAY = 86_400_000_000
START = 1_704_067_200_000_000
"""2024-01-01 in microseconds."""


def make_string(text: str) -> bytes:
    encoded = text.encode("utf-16-le")
    return struct.pack("<i", len(encoded) // 2) + encoded


def make_txn(
    *,
    version: int = 4,
    transient: int = 0,
    fixed: int = 0,
    seq_txn: int = 0,
    symbols: Sequence[int] = (),
    partitions: Sequence[tuple[int, int, int, int]] = (),
    truncate: int = 0,
    base: int = 64,
) -> bytes:
    """``_txn`` with the area that the version's parity selects."""
    table = b"".join(struct.pack("<4q", *entry) for entry in partitions)
    area = struct.pack("<iii", base, 8 * len(symbols), len(table))
    header = struct.pack("<q", version) + (bytes(24) + area if version & 1 else area)
    longs = (version, transient, fixed, 0, 0, 7, 0, 0, 0, truncate, seq_txn)
    record = struct.pack("<11q", *longs) + struct.pack("<3i2q", 0, 0, 0, 0, 0)
    record = record.ljust(128, b"\0") + struct.pack("<i", len(symbols))
    counts = b"".join(struct.pack("<ii", count, count) for count in symbols)
    return header.ljust(base, b"\0") + record + counts + struct.pack("<i", len(table)) + table


def make_cv(blocks: Sequence[tuple[int, int, int, int]] = (), *, version: int = 2) -> bytes:
    area = struct.pack("<qq", 40, 32 * len(blocks))
    header = struct.pack("<q", version) + (bytes(16) + area if version & 1 else area)
    return header.ljust(40, b"\0") + b"".join(struct.pack("<4q", *block) for block in blocks)


def make_meta(
    columns: Sequence[tuple[str, int, int]],
    *,
    by: int = 0,
    timestamp: int = -1,
    version: int = 426,
    wal: bool = False,
) -> bytes:
    """``_meta``; columns are (name, type, flags), a negative type is a dropped column."""
    header = struct.pack("<6i2q?", len(columns), by, timestamp, version, 9, 0, 0, 3, wal)
    described = b"".join(struct.pack("<iqi16x", kind, flags, 256) for _, kind, flags in columns)
    return header.ljust(128, b"\0") + described + b"".join(make_string(name) for name, _, _ in columns)


def make_log(
    records: Sequence[tuple[int, int, int]], *, version: int = 0, max_txn: int | None = None
) -> bytes:
    """``_txnlog``; records are (walId, segmentId, segmentTxn)."""
    header = struct.pack("<iqqi", version, len(records) if max_txn is None else max_txn, 0, 0)
    return header.ljust(76, b"\0") + b"".join(struct.pack("<qiiiq", 0, *record, 0) for record in records)


@dataclass
class OneTable:
    """A root with the WAL table ``t~9``: three rows on a day, two on the next, one transaction pending."""

    root: Path
    directory: str = "t~9"
    columns: tuple[tuple[str, int, int], ...] = (
        ("ts", TIMESTAMP, 0),
        ("n", INT, 0),
        ("s", SYMBOL, 1),
        ("text", STRING, 0),
        ("v", VARCHAR, 0),
    )
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self) -> "OneTable":
        """Write all files; ``files`` holds them by path."""
        saved, live = f".checkpoint/db/{self.directory}", f"db/{self.directory}"
        partitions = ((START, 3, -1, -1), (START + DAY, 0, 5, -1))
        txn = make_txn(transient=2, fixed=3, seq_txn=1, symbols=(2,), partitions=partitions)
        self.files |= {
            f"{saved}/_meta": make_meta(self.columns, timestamp=0, wal=True),
            f"{saved}/_txn": txn,
            f"{saved}/_cv": make_cv(),
            f"{saved}/_name": make_string("t") + b"\0",
            f"{saved}/txn_seq/_meta": b"meta",
            f"{saved}/txn_seq/_txn": struct.pack("<q", 2),
            ".checkpoint/db/_checkpoint_meta.d": bytes(4),
            ".checkpoint/db/tables.d.0": b"registry",
            "conf/server.conf": b"a=b\n",
            "db/_tab_index.d": bytes(8),
            "db/.data_id": bytes(16),
            "db/.backup_instance_name": b"ours",
            "db/tables.d.0": b"live",
            f"db/{self.directory}.lock": b"",
            "log/x.log": b"log",
            "import/x.csv": b"csv",
            f"{live}/_todo_": bytes(64),
            f"{live}/_txn": b"torn",
            f"{live}/s.o": bytes(64) + struct.pack("<3q", 0, 6, 14),
            f"{live}/s.c": make_string("a") + make_string("bc") + bytes(100),
            f"{live}/s.k": bytes(100),
            f"{live}/s.v": bytes(100),
            f"{live}/txn_seq/_txnlog": make_log(((1, 0, 0), (2, 7, 0), (2, 8, 0))),
            f"{live}/txn_seq/_meta": b"live",
            f"{live}/txn_seq/_wal_index.d": bytes(4),
            f"{live}/wal1/0/_event": b"applied",
            f"{live}/wal2/7/_event": b"pending",
            f"{live}/wal2/8/_event": b"later",
            f"{live}/2024-01-05/n.d": b"not in the checkpoint",
        }
        self._partition(f"{live}/2024-01-01", 3)
        self._partition(f"{live}/2024-01-02.5", 2)
        for path, data in self.files.items():
            self.put(path, data)
        return self

    def put(self, path: str, data: bytes) -> None:
        """Write one file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _partition(self, path: str, rows: int) -> None:
        """Every file is longer than its rows need, as those of an open table are."""
        texts = make_string("ab") * rows
        self.files |= {
            f"{path}/ts.d": bytes(8 * rows + 64),
            f"{path}/n.d": bytes(4 * rows + 64),
            f"{path}/s.d": bytes(4 * rows + 64),
            f"{path}/s.k": bytes(96),
            f"{path}/s.v": bytes(96),
            f"{path}/text.d": texts + bytes(64),
            f"{path}/text.i": b"".join(struct.pack("<q", 8 * row) for row in range(rows + 1)) + bytes(64),
            f"{path}/v.d": b"x" * 20 * rows + bytes(64),
            f"{path}/v.i": b"".join(struct.pack("<I4xQ", 20 << 4 | 2, 20 * row << 16) for row in range(rows))
            + bytes(64),
        }
