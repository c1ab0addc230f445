"""Verify: whether what the catalog calls a backup could be restored. It reads, and changes nothing.

The structure always: every manifest, every shard, that every chunk lies inside its pack, and that the
packs are there with their size. On demand the data: each pack is read whole once, its digest compared
and every chunk decoded as a restore would do it.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import BackupRow
from questdb_backup.codec import decode, digest_of
from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    DamagedBackupError,
    NoRestorePointError,
    ObjectNotFoundError,
    UnsupportedFormatError,
)
from questdb_backup.manifest import Entry, ShardRef
from questdb_backup.packs import MAGIC, ChunkRef, PackInfo
from questdb_backup.restore.contents import read_entries
from questdb_backup.restore.point import complete_rows, read_point
from questdb_backup.restore_point import choose_restore_point
from questdb_backup.services import Services
from questdb_backup.verify_chunks import ChunkTable

_SHOWN_FILES = 3
_FAULTS = (DamagedBackupError, UnsupportedFormatError, ObjectNotFoundError)

ReadData = tuple[int, int]
"""Which part of the packs to read whole: ``(n, t)`` is the n-th of t parts, ``(1, 1)`` is all."""


@dataclass(kw_only=True)
class Report:
    """What was found; ``objects`` and ``bytes`` count what was read."""

    problems: list[str] = field(default_factory=list)
    backups: int = 0
    objects: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The JSON of `verify`."""
        return {
            "ok": self.ok,
            "problems": self.problems,
            "backups": self.backups,
            "objects": self.objects,
            "bytes": self.bytes,
        }


def parse_read_data(text: str | None) -> ReadData:
    """``n/t`` as the part to read; None or empty text is all. Raise ConfigurationError."""
    if not text:
        return 1, 1
    part, _, parts = text.partition("/")
    if part.isascii() and parts.isascii() and part.isdecimal() and parts.isdecimal():
        n, t = int(part), int(parts)
        if 1 <= n <= t:
            return n, t
    raise ConfigurationError(f"'{text}' is no part of the data", "write it as 1/7: the first of seven parts")


def verify(
    services: Services, instance: str, timestamp: str | None = None, read_data: ReadData | None = None
) -> Report:
    """Verify the backup that a restore would take for ``timestamp``, or every complete one (None).

    Damage goes to the report; raise StoreUnavailableError and the like where the store does not answer,
    NoRestorePointError where there is nothing at that time.
    """
    report = Report()
    try:
        rows = complete_rows(services.store, instance)
    except (DamagedBackupError, UnsupportedFormatError) as error:
        return Report(problems=[str(error)])
    except NoRestorePointError:
        if timestamp is not None:
            raise
        rows = []
    if timestamp is not None:
        rows = [choose_restore_point(rows, timestamp)]
    with ChunkTable() if read_data else nullcontext() as chunks:
        check = _Check(services, instance, report, chunks)
        for row in rows:
            check.backup(row)
        check.packs(read_data)
    return report


class _Check:
    """One verification; what several backups share is looked at once."""

    def __init__(self, services: Services, instance: str, report: Report, chunks: ChunkTable | None) -> None:
        self._store = services.store
        self._threads = max(1, services.config.max_concurrency)
        self._instance = instance
        self._report = report
        self._chunks = chunks
        self._packs: dict[str, PackInfo] = {}
        self._shards: set[tuple[str, str]] = set()

    def backup(self, row: BackupRow) -> None:
        """The manifest, its shards, and the packs that they name."""
        assert row.manifest is not None, "complete rows have one"
        self._report.backups += 1
        try:
            manifest = read_point(self._store, self._instance, row)
        except _FAULTS as error:
            self._report.problems.append(f"{row.backup_timestamp}: {error}")
            return
        self._count(row.manifest.size)
        for name, info in manifest.packs.items():
            if self._packs.setdefault(name, info) != info:
                self._report.problems.append(
                    f"{row.manifest.key}: pack {name} has another size or digest than in an older manifest"
                )
        for table in manifest.tables:
            for shard in table.shards:
                if (shard.key, shard.digest) not in self._shards:
                    self._shards.add((shard.key, shard.digest))
                    self._shard(shard, manifest.packs)

    def _shard(self, shard: ShardRef, packs: dict[str, PackInfo]) -> None:
        try:
            for entry in read_entries(self._store, shard):
                self._entry(shard, entry, packs)
        except _FAULTS as error:
            self._report.problems.append(str(error))
        self._count(shard.plain_size)

    def _entry(self, shard: ShardRef, entry: Entry, packs: dict[str, PackInfo]) -> None:
        for chunk in entry.chunks:
            if chunk.pack == "":
                continue
            info = packs.get(chunk.pack)
            if info is None:
                self._report.problems.append(
                    f"shard {shard.key}: '{entry.path}' needs pack {chunk.pack}, which is not in its manifest"
                )
            elif chunk.offset + chunk.stored > info.size:
                self._report.problems.append(
                    f"shard {shard.key}: '{entry.path}' has a chunk beyond the end of"
                    f" {keys.pack(self._instance, chunk.pack)}"
                )
            elif self._chunks is not None:
                self._chunks.add(chunk, entry.path)

    def packs(self, read_data: ReadData | None) -> None:
        """Every pack is there with its size; those of the part are read whole."""
        names = sorted(self._packs)
        whole = names[read_data[0] - 1 :: read_data[1]] if read_data else []
        for name in whole:
            self._report.problems += self._data(name, self._packs[name])
        rest = sorted(set(names) - set(whole))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="verify") as pool:
            for batch in _batches(rest, 8 * self._threads):
                for problem in pool.map(self._tail, batch):
                    self._count(len(MAGIC))
                    self._report.problems += [problem] if problem else []

    def _tail(self, name: str) -> str | None:
        """Read the last bytes: the cheapest proof of existence and size."""
        key, size = keys.pack(self._instance, name), self._packs[name].size
        start = max(0, size - len(MAGIC))
        try:
            tail = self._store.get_range(key, start, len(MAGIC) + 1)
        except ObjectNotFoundError:
            return f"{key} is missing from {self._store.location}"
        except DamagedBackupError as error:
            return f"{key}: {error}"
        if len(tail) != size - start:
            return f"{key} has not the {size} bytes that the manifest says"
        return None if tail == MAGIC else f"{key} does not end as a pack does"

    def _data(self, name: str, info: PackInfo) -> list[str]:
        """Read the pack whole; name what is wrong and which files need it."""
        key = keys.pack(self._instance, name)
        assert self._chunks is not None, "made where data is read"
        try:
            data = self._store.get(key)
        except (ObjectNotFoundError, DamagedBackupError):
            paths = [path for _, path in self._chunks.of_pack(name)]
            return [f"{key} is missing from {self._store.location}; needed by {_listed(paths)}"]
        self._count(len(data))
        damaged = [path for chunk, path in self._chunks.of_pack(name) if not _decodes(data, chunk)]
        if len(data) == info.size and digest_of(data) == info.digest and not damaged:
            return []
        what = f"has {len(data)} bytes instead of {info.size}" if len(data) != info.size else "is damaged"
        return [
            f"{key} {what}; {f'needed by {_listed(damaged)}' if damaged else 'no file needs those bytes'}"
        ]

    def _count(self, size: int) -> None:
        self._report.objects += 1
        self._report.bytes += size


def _decodes(data: bytes, chunk: ChunkRef) -> bool:
    stored = data[chunk.offset : chunk.offset + chunk.stored]
    try:
        decode(chunk.codec, stored, chunk.plain, chunk.digest)
    except BackupToolError:
        return False
    return True


def _listed(paths: list[str]) -> str:
    unique = sorted(set(paths))
    more = f" and {len(unique) - _SHOWN_FILES} more" if len(unique) > _SHOWN_FILES else ""
    return ", ".join(f"'{path}'" for path in unique[:_SHOWN_FILES]) + more if unique else "no file"


def _batches(names: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, size)):
        yield batch
