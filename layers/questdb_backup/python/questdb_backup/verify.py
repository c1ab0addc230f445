"""Verify: whether what the catalog calls a backup could be restored.

The structure always: every manifest, every shard and what the manifest says of it, that the packs are
there with their size, and that each chunk a file needs stands in its pack's index. On demand the data:
each pack is read whole once, its digest compared and every chunk decoded as a restore would do it. That
a share of the data was read is noted in the catalog; nothing else is ever written.
"""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import BackupRow
from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import (
    DamagedBackupError,
    NoRestorePointError,
    ObjectNotFoundError,
    UnsupportedFormatError,
)
from questdb_backup.manifest import Entry, ShardRef, fold_signatures
from questdb_backup.packs import ChunkRef, PackInfo
from questdb_backup.restore.contents import read_groups
from questdb_backup.restore.point import complete_rows, read_point
from questdb_backup.restore.threads import shared_threads
from questdb_backup.restore_point import choose_restore_point
from questdb_backup.services import Services
from questdb_backup.verify_packs import Packs
from questdb_backup.verify_shares import (
    ReadData,
    SharesRead,
    due_share,
    is_in_share,
    parse_read_data,
    remember_share,
    shares_read,
)

__all__ = ["ReadData", "Report", "parse_read_data", "verify"]

_SHOWN_FILES = 3
_NEEDS_KEPT = 100_000
_FAULTS = (DamagedBackupError, UnsupportedFormatError, ObjectNotFoundError)


@dataclass(kw_only=True)
class Report:
    """What was found; ``objects`` and ``bytes`` count what was read, ``read_data`` tells of the data."""

    problems: list[str] = field(default_factory=list)
    backups: int = 0
    objects: int = 0
    bytes: int = 0
    read_data: SharesRead | None = None

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
            "read_data": self.read_data.to_json() if self.read_data else None,
        }


def verify(
    services: Services, instance: str, timestamp: str | None = None, read_data: ReadData | None = None
) -> Report:
    """Verify the backup that a restore would take for ``timestamp``, or every complete one (None).

    Only the share of every backup is noted as read. Damage goes to the report; raise
    StoreUnavailableError and the like where the store does not answer, NoRestorePointError where there
    is nothing at that time.
    """
    try:
        rows = complete_rows(services.store, instance)
        share = due_share(read_catalog(services.store, instance), read_data) if read_data else None
    except (DamagedBackupError, UnsupportedFormatError) as error:
        return Report(problems=[str(error)])
    except NoRestorePointError as error:
        if timestamp is not None:
            raise
        return Report(problems=[str(error)])  # an instance that is known has a catalog
    if timestamp is not None:
        rows = [choose_restore_point(rows, timestamp)]
    if not rows and timestamp is None:
        return Report(problems=[f"instance {instance} has no complete backup"])
    report = _Check(services, instance).run(rows, share)
    if share is not None and timestamp is None:
        report.read_data = remember_share(services, instance, share, {row.backup_timestamp for row in rows})
    elif share is not None:
        report.read_data = shares_read(read_catalog(services.store, instance), share, remembered=False)
    return report


class _Check:
    """One verification; what several backups share is looked at once."""

    def __init__(self, services: Services, instance: str) -> None:
        self._store = services.store
        self._instance = instance
        self._report = Report()
        self._infos: dict[str, PackInfo] = {}
        self._shards: dict[tuple[str, str], ShardRef] = {}
        self._packs = Packs(services.store, instance, self._infos, self._count)
        self._needed: dict[str, dict[ChunkRef, str]] = {}
        self._needs = 0
        self._lock = threading.Lock()

    def run(self, rows: list[BackupRow], share: ReadData | None) -> Report:
        """Manifests, packs, shards; then the files that wrong packs are needed by."""
        for row in rows:
            self._backup(row)
        whole = {name for name in self._infos if share and is_in_share(name, share)}
        self._packs.read(sorted(whole))
        self._packs.look(name for name in self._infos if name not in whole)
        self._look_at_shards()
        self._tell_wrong_packs()
        return self._report

    def _backup(self, row: BackupRow) -> None:
        """The manifest, the shards and the packs that it names."""
        assert row.manifest is not None, "complete rows have one"
        self._report.backups += 1
        try:
            manifest = read_point(self._store, self._instance, row)
        except _FAULTS as error:
            self._tell(f"{row.backup_timestamp}: {error}")
            return
        self._count(row.manifest.size)
        for name, info in manifest.packs.items():
            if self._infos.setdefault(name, info) != info:
                self._tell(
                    f"{row.manifest.key}: pack {name} has another size or digest than in an older manifest"
                )
        for table in manifest.tables:
            for shard in table.shards:
                described = replace(shard, closed=True)  # where a shard ends may be told in two ways
                if self._shards.setdefault((shard.key, shard.digest), described) != described:
                    self._tell(f"{row.manifest.key}: shard {shard.key} is not as an older manifest says")

    def _look_at_shards(self) -> None:
        with shared_threads() as threads:
            for _ in threads.ahead(self._shard, self._shards.values()):
                pass

    def _shard(self, shard: ShardRef) -> None:
        found: list[tuple[str, str | None]] = []
        packs: set[str] = set()
        told: set[str] = set()
        try:
            for group in read_groups(self._store, shard):
                found.append((group.partition, group.signature))
                for entry in group.entries:
                    packs.update(chunk.pack for chunk in entry.chunks)
                    self._entry(shard, entry, told)
        except _FAULTS as error:
            self._tell(str(error))
        else:
            self._compare(shard, found, packs, told | {""})
        self._count(shard.plain_size)

    def _compare(
        self, shard: ShardRef, found: list[tuple[str, str | None]], packs: set[str], told: set[str]
    ) -> None:
        first, last = (found[0][0], found[-1][0]) if found else ("", "")
        for what, said, is_so in (
            ("groups", shard.groups, len(found)),
            ("partitions", (shard.first, shard.last), (first, last)),
            ("signatures", shard.signatures, fold_signatures(found)),
            ("packs", set(shard.packs) - told, packs - told),
        ):
            if said != is_so:
                self._tell(f"shard {shard.key} has other {what} than the manifest says")

    def _entry(self, shard: ShardRef, entry: Entry, told: set[str]) -> None:
        """Look at each chunk's place; what is wrong with a pack is told once for a shard."""
        for chunk in entry.chunks:
            if chunk.pack == "" or chunk.pack in told:
                continue
            wrong = self._wrong(shard, chunk)
            if wrong is not None:
                told.add(chunk.pack)
                self._tell(f"shard {shard.key}: '{entry.path}' {wrong}")
            elif chunk.pack in self._packs.wrong:
                self._need(chunk, entry.path)

    def _wrong(self, shard: ShardRef, chunk: ChunkRef) -> str | None:
        if chunk.pack not in self._infos:
            return f"needs pack {chunk.pack}, which is not in its manifest"
        if chunk.pack not in shard.packs:
            return f"needs pack {chunk.pack}, which the manifest does not name for the shard"
        key = keys.pack(self._instance, chunk.pack)
        if self._packs.is_beyond(chunk):
            return f"has a chunk beyond the end of {key}"
        return None if self._packs.has(chunk) else f"has a chunk that is not in the index of {key}"

    def _need(self, chunk: ChunkRef, path: str) -> None:
        with self._lock:
            self._needs += 1
            if self._needs <= _NEEDS_KEPT:
                self._needed.setdefault(chunk.pack, {})[chunk] = path

    def _tell_wrong_packs(self) -> None:
        for name, why in sorted(self._packs.wrong.items()):
            damaged = self._packs.damaged(name, self._needed.get(name, {}))
            files = f"needed by {_listed(damaged)}" if damaged else "no file needs those bytes"
            self._tell(f"{keys.pack(self._instance, name)} {why}; {files}")

    def _tell(self, problem: str) -> None:
        with self._lock:
            self._report.problems.append(problem)

    def _count(self, size: int) -> None:
        with self._lock:
            self._report.objects += 1
            self._report.bytes += size


def _listed(paths: list[str]) -> str:
    unique = sorted(set(paths))
    more = f" and {len(unique) - _SHOWN_FILES} more" if len(unique) > _SHOWN_FILES else ""
    return ", ".join(f"'{path}'" for path in unique[:_SHOWN_FILES]) + more
