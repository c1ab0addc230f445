"""A deployment without a server: in-memory adapters, and a source that is a dictionary of files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog_store import read_catalog
from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.codec import decode
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.execution import Execution, ExecutionResult
from questdb_backup.local.bundle import read_definition, substitutions, tasks
from questdb_backup.manifest import Entry, Manifest, read_manifest, read_shard
from questdb_backup.questdb.memory import InMemoryQuestDB
from questdb_backup.services import Config, Services
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, PlannedTable, TreeEntry
from questdb_backup.source.clones import NoClones
from questdb_backup.status.memory import MemoryStatusStore
from questdb_backup.stores.counting import CountingStore
from questdb_backup.stores.memory import MemoryObjectStore

INSTANCE = "gentle-forest-orchid"


@dataclass
class DictSource:
    """A root as a dictionary: path to bytes. ``db/<table>/<partition>/<file>`` are partitions."""

    files: dict[str, bytes] = field(default_factory=dict)
    signatures: dict[tuple[str, str], str] = field(default_factory=dict)
    records: dict[tuple[str, int], str] = field(default_factory=dict)
    """Of the tables' logs; a table's last one is its newest."""
    listed: list[str] = field(default_factory=list)
    """Paths that were planned: an unchanged partition's are not."""
    reads: list[str] = field(default_factory=list)

    @property
    def tree(self) -> "DictSource":
        return self

    def entries(self, path: str) -> list[TreeEntry]:
        raise NotImplementedError

    def stat(self, path: str) -> TreeEntry:
        if path not in self.files:
            raise FileNotFoundError(path)
        return TreeEntry(path.rpartition("/")[2], EntryKind.FILE, len(self.files[path]), 0o644)

    def read_link(self, path: str) -> str:
        raise NotImplementedError

    def read(self, path: str, offset: int, length: int) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        self.reads.append(path)
        return self.files[path][offset : offset + length]

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        data = self.read(path, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def tables(self) -> Iterator[PlannedTable]:
        for table in sorted({self._group(path)[0] for path in self.files} - {""}):
            last = max((txn for name, txn in self.records if name == table), default=None)
            record = None if last is None else self.records[table, last]
            yield PlannedTable(table=table, name=table, kind="wal", last_txn=last, txnlog_record=record)

    def outlines(self) -> Iterator[GroupOutline]:
        keys = {self._group(path) for path in self.files}
        for table, partition in sorted(keys, key=lambda key: (key[0] == "", key)):
            yield GroupOutline(
                table=table,
                partition=partition,
                signature=self.signatures.get((table, partition)),
                list_files=partial(self._planned, table, partition),
            )

    def _planned(self, table: str, partition: str) -> Iterator[PlannedFile]:
        for path in sorted(self.files):
            if self._group(path) == (table, partition):
                self.listed.append(path)
                yield PlannedFile(
                    path=path, kind=EntryKind.FILE, mode=0o644, size=len(self.files[path]), exact=True
                )

    def settled(self) -> Iterator[tuple[PlannedTable, Iterator[GroupOutline]]]:
        for table in self.tables():
            found = [o for o in self.outlines() if o.table == table.table and o.signature is not None]
            yield table, iter(found[:-1])

    def txnlog_record(self, table: str, txn: int) -> str | None:
        return self.records.get((table, txn))

    def torn_tables(self) -> list[str]:
        return []

    def _group(self, path: str) -> tuple[str, str]:
        parts = path.split("/")
        if parts[0] != "db" or len(parts) < 3:
            return "", ""
        return parts[1], parts[2] if len(parts) > 3 else ""


class Clock:
    """Stands still until it is moved; every reading is a microsecond later."""

    def __init__(self, start: str = "2026-01-01T00:00:00.000000Z") -> None:
        self.at = parse_timestamp(start)

    def __call__(self) -> Any:
        self.at += timedelta(microseconds=1)
        return self.at

    def forward(self, **step: float) -> None:
        self.at += timedelta(**step)


@dataclass
class Kit:
    """One deployment: change ``source.files``, call `backup`."""

    source: DictSource = field(default_factory=DictSource)
    clock: Clock = field(default_factory=Clock)
    inner: MemoryObjectStore = field(default_factory=MemoryObjectStore)
    keep: int = 5
    started: int = 0

    def __post_init__(self) -> None:
        self.store = CountingStore(self.inner)
        self.status = MemoryStatusStore()
        self.database = InMemoryQuestDB(clock=self.clock)
        self.services = self.make_services()

    def make_services(self, **changes: Any) -> Services:
        """Services over this deployment's adapters, or over others that are given."""
        return Services(
            config=changes.pop(
                "config",
                Config(
                    source="path",
                    instance_name=INSTANCE,
                    keep_latest_n=self.keep,
                    max_concurrency=2,
                    lease_seconds=900.0,
                ),
            ),
            make_store=lambda: changes.get("store", self.store),
            make_status=lambda: changes.get("status", self.status),
            make_database=lambda: changes.get("database", self.database),
            make_source=lambda _version: changes.get("source", self.source),
            make_clones=lambda: changes.get("clones") or NoClones(),
            clock=self.clock,
        )

    def backup(
        self, services: Services | None = None, request: dict[str, Any] | None = None, **replaced: Any
    ) -> ExecutionResult:
        """One execution of the deployed state machine; ``replaced`` are tasks by state name."""
        definition = read_definition("backup")
        used = services or self.services
        self.started += 1
        execution = Execution(
            StateMachine.load(definition, substitutions(definition)),
            {
                **tasks(definition, used),
                "CheckPreflight": lambda _event: {"warnings": []},
                "CheckCheckpoint": lambda _event: {"outcome": "ok", "torn": []},
                **replaced,
            },
            request or {},
            name=f"execution-{self.started}",
            execution_id=f"execution-{self.started}",
            read_object=lambda _bucket, key: used.store.get(key),
            max_workers=2,
            time_scale=0.0,
        )
        return execution.run()

    def backed_up(self) -> dict[str, Any]:
        """A backup that must succeed; give its output."""
        result = self.backup()
        assert result.status == "SUCCEEDED", (result.error, result.cause)
        output = json.loads(json.dumps(result.output))
        assert isinstance(output, dict)
        return output

    def manifest(self, timestamp: str | None = None) -> Manifest:
        """The manifest of a complete backup, by default the newest."""
        catalog = read_catalog(self.inner, INSTANCE)
        row = catalog.row(timestamp) if timestamp else catalog.latest_complete()
        assert row is not None
        assert row.manifest is not None
        return read_manifest(self.inner, row.manifest)

    def stored_files(self, timestamp: str | None = None) -> dict[str, bytes]:
        """What a stranger would read from the store: every file of a backup, by default the newest."""
        files = {}
        for entry in self.entries(timestamp):
            parts = []
            for chunk in entry.chunks:
                pack = self.inner.get(keys.pack(INSTANCE, chunk.pack)) if chunk.pack else b""
                stored = pack[chunk.offset : chunk.offset + chunk.stored]
                parts.append(decode(chunk.codec, stored, chunk.plain, chunk.digest))
            files[entry.path] = b"".join(parts)
        return files

    def entries(self, timestamp: str | None = None) -> Iterator[Entry]:
        """Everything that a backup's shards list."""
        for table in self.manifest(timestamp).tables:
            for shard in table.shards:
                for group in read_shard(self.inner, shard):
                    yield from group.entries

    def now(self) -> str:
        return format_timestamp(self.clock())
