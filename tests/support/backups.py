"""Real backups of a small folder, made by the real steps without a server, and restores of them."""

import random
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import Catalog, ManifestRef
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.codec import compress_text, digest_of
from questdb_backup.manifest import (
    Group,
    Manifest,
    ShardRef,
    TableRef,
    encode_group,
    encode_manifest,
    read_manifest,
)
from questdb_backup.packs import PackInfo
from questdb_backup.questdb.base import Database, Fence
from questdb_backup.restore.request import Restore
from questdb_backup.services import Config, Services
from questdb_backup.shards import ShardCutter
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, PlannedTable, Tree, TreeEntry
from questdb_backup.source.listing import live_file
from questdb_backup.status.memory import MemoryStatusStore
from questdb_backup.steps.complete import complete_backup
from questdb_backup.steps.complete_restore import complete_restore
from questdb_backup.steps.download import download_partitions
from questdb_backup.steps.fail_restore import fail_restore
from questdb_backup.steps.lock import acquire_lock, release_lock
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.plan_restore import plan_restore
from questdb_backup.steps.run import Run
from questdb_backup.steps.upload import upload_partitions
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.memory import MemoryObjectStore

INSTANCE = "gentle-forest-orchid"
VERSION = "9.3.4"


class FolderTree(Tree):
    """A folder as a source's tree."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self, path: str) -> list[TreeEntry]:
        return [self.stat(f"{path}/{child.name}") for child in sorted((self._root / path).iterdir())]

    def stat(self, path: str) -> TreeEntry:
        info = (self._root / path).stat()
        kind = EntryKind.DIRECTORY if stat.S_ISDIR(info.st_mode) else EntryKind.FILE
        size = info.st_size if kind is EntryKind.FILE else 0
        return TreeEntry(name=Path(path).name, kind=kind, size=size, mode=stat.S_IMODE(info.st_mode))

    def read_link(self, path: str) -> str:
        return str((self._root / path).readlink())

    def read(self, path: str, offset: int, length: int) -> bytes:
        with (self._root / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        data = self.read(path, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class FolderSource:
    """A source that takes everything in a folder: a partition is a directory two below ``db``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tree = FolderTree(root)

    @property
    def tree(self) -> Tree:
        return self._tree

    def tables(self) -> Iterator[PlannedTable]:
        for path in sorted((self._root / ".checkpoint/db").iterdir()):
            name = path.name.partition("~")[0]
            yield PlannedTable(table=path.name, name=name, kind="wal", last_txn=7, rows=3)

    def outlines(self) -> Iterator[GroupOutline]:
        for table in self.tables():
            folder = self._root / "db" / table.table
            own = [f".checkpoint/db/{table.table}", f"db/{table.table}"]
            inner = [path for path in sorted(folder.iterdir()) if path.is_file()]
            files = [*own, *(f"db/{table.table}/{path.name}" for path in inner)]
            files += self._below(f".checkpoint/db/{table.table}")
            yield self._group(table.table, "", files)
            for number, part in enumerate(path for path in sorted(folder.iterdir()) if path.is_dir()):
                path_ = f"db/{table.table}/{part.name}"
                yield self._group(table.table, f"{number:020}", [path_, *self._below(path_)])
        fixed = [".checkpoint", ".checkpoint/_checkpoint_meta.d", ".checkpoint/db", "db"]
        yield self._group("", "", [*fixed, *self._loose()])

    def torn_tables(self) -> list[str]:
        return []

    def _below(self, path: str) -> list[str]:
        return sorted(str(child.relative_to(self._root)) for child in (self._root / path).rglob("*"))

    def _loose(self) -> list[str]:
        inner = sorted(path for path in (self._root / "db").iterdir() if path.is_file())
        database = [f"db/{path.name}" for path in inner if path.name != ".backup_instance_name"]
        return [*(["conf", *self._below("conf")] if (self._root / "conf").exists() else []), *database]

    def settled(self) -> Iterator[tuple[PlannedTable, Iterator[GroupOutline]]]:
        return iter(())

    def txnlog_record(self, table: str, txn: int) -> str | None:
        return None

    def _group(self, table: str, partition: str, paths: list[str]) -> GroupOutline:
        return GroupOutline(
            table=table, partition=partition, signature=None, list_files=partial(map, self._file, paths)
        )

    def _file(self, path: str) -> PlannedFile:
        entry = self._tree.stat(path)
        if path.startswith("conf/"):
            return live_file(path, entry)
        return PlannedFile(path=path, kind=entry.kind, mode=entry.mode, size=entry.size, exact=True)


class Ticking:
    """A clock that moves on by a second with every look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def make_root(root: Path, *, big: int = 300_000) -> Path:
    """A folder like a server root under a checkpoint; ``big`` bytes of a column do not compress."""
    noise = random.Random(7)
    for table in ("trades~1", "quotes~2"):
        checkpoint = root / ".checkpoint/db" / table
        checkpoint.mkdir(parents=True)
        for name in ("_meta", "_txn", "_cv"):
            (checkpoint / name).write_bytes(f"{table} {name}".encode())
        for number in range(3):
            part = root / "db" / table / f"2026-03-0{number + 1}"
            part.mkdir(parents=True)
            (part / "price.d").write_bytes(noise.randbytes(big) if number == 0 else b"price" * 2_000)
            (part / "zeros.d").write_bytes(bytes(2_500_000))
            (part / "empty.d").write_bytes(b"")
        (root / "db" / table / "sym.c").write_bytes(b"symbols of " + table.encode())
        (root / "db" / table / "wal1").mkdir()
    (root / "db" / "_tab_index.d").write_bytes(b"\x02" + bytes(7))
    (root / "db" / ".data_id").write_bytes(bytes.fromhex("00112233445566778899aabbccddeeff"))
    (root / ".checkpoint" / "_checkpoint_meta.d").write_bytes(b"\0\0\0\0")
    (root / "conf").mkdir()
    (root / "conf" / "server.conf").write_text("# mine\npg.user=admin\n")
    (root / "conf" / "log.conf").write_text("writers=stdout\n")
    (root / "conf" / "log.conf").chmod(0o600)
    return root


def make_services(source: Path | None = None, store: ObjectStore | None = None, **config: Any) -> Services:
    """Services on a store, with a source where a folder is given."""

    def no_database() -> Database:
        raise AssertionError("nothing here talks to a server")

    held = store or MemoryObjectStore()
    status = MemoryStatusStore()
    return Services(
        config=Config(source="frozen", root=source, **{"instance_name": INSTANCE, **config}),
        make_store=lambda: held,
        make_status=lambda: status,
        make_database=no_database,
        make_source=lambda _version: FolderSource(source) if source else no_source(),
        clock=Ticking(),
    )


def no_source() -> FolderSource:
    raise AssertionError("nothing here reads a source")


def back_up(services: Services, execution: str = "run-1", version: str | None = VERSION) -> Run:
    """One backup by the real steps."""
    state = acquire_lock(services, execution, {})
    run = Run.from_json(state["run"])
    plan = plan_backup(services, run, "frozen", version, None, 0)
    for unit in range(plan["units"]):
        upload_partitions(services, run, {"unit": unit, "attempt": 0}, 0, workers=1)
    complete_backup(services, run, "frozen", plan, version, Fence(), None)
    release_lock(services, run)
    return run


def restore_by_steps(
    services: Services, request: dict[str, Any], execution: str = "restore-1"
) -> dict[str, Any]:
    """One restore as the state machine runs it, its units one after the other."""
    planned = plan_restore(services, execution, request)
    if planned["target"] == "none":
        return dict(planned["result"])
    restore = Restore.from_json(planned["restore"])
    try:
        for unit in planned["units"]:
            download_partitions(services, restore, unit)
        return complete_restore(services, restore)
    except Exception as error:
        fail_restore(services, restore, {"Error": type(error).__name__, "Cause": str(error)})
        raise


def listing(root: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[str, int, bytes]]:
    """Every path below a root: kind, mode, bytes."""
    found: dict[str, tuple[str, int, bytes]] = {}
    for path in sorted(root.rglob("*")):
        name, mode = str(path.relative_to(root)), stat.S_IMODE(path.lstat().st_mode)
        if name not in without:
            found[name] = ("d", mode, b"") if path.is_dir() else ("f", mode, path.read_bytes())
    return found


def bare_manifest(tables: tuple[TableRef, ...], **more: Any) -> Manifest:
    """A previous backup of these tables, of which no pack is asked for."""
    facts: dict[str, Any] = dict.fromkeys(("server_version", "data_id", "checkpoint_started_at", "previous"))
    return Manifest(
        backup_timestamp="2024-08-24T12:34:56.789123Z",
        backup_instance_name=INSTANCE,
        token=1,
        tables=tables,
        packs={},
        **{"source": "path", **facts, **more},
    )


def the_manifest(store: ObjectStore, instance: str = INSTANCE) -> tuple[ManifestRef, Manifest]:
    """The newest listed manifest."""
    row = read_catalog(store, instance).latest_complete()
    assert row is not None
    assert row.manifest is not None
    return row.manifest, read_manifest(store, row.manifest)


def put_over(store: ObjectStore, key: str, data: bytes) -> None:
    """Replace any object, as only damage or an attacker does."""
    store.delete([key])
    store.create(key, data)


def forge(store: ObjectStore, manifest: Manifest, instance: str = INSTANCE) -> None:
    """List another manifest in the newest one's place, digests and all."""
    ref, _ = the_manifest(store, instance)
    put_bytes(store, ref, encode_manifest(_only_its_packs(manifest)), instance)


def _only_its_packs(manifest: Manifest) -> Manifest:
    """A shard cannot even name a pack that the manifest lacks; its chunks can."""

    def fit(shard: ShardRef) -> ShardRef:
        return replace(
            shard, packs={name: size for name, size in shard.packs.items() if name in manifest.packs}
        )

    tables = (replace(table, shards=tuple(map(fit, table.shards))) for table in manifest.tables)
    return replace(manifest, tables=tuple(tables))


def put_bytes(store: ObjectStore, ref: ManifestRef, data: bytes, instance: str = INSTANCE) -> None:
    """Put these very bytes in the place of a manifest, the catalog knowing of them."""
    forged = ManifestRef(key=ref.key, digest=digest_of(data), size=len(data))
    put_over(store, ref.key, data)

    def swap(before: Catalog) -> Catalog:
        rows = (replace(row, manifest=forged) if row.manifest else row for row in before.rows)
        return replace(before, rows=tuple(rows))

    update_catalog(store, instance, swap)


def forge_groups(
    store: ObjectStore, *groups: Group | bytes, packs: dict[str, PackInfo] | None = None, **lies: Any
) -> ShardRef:
    """Add a table whose one shard has these groups (or raw lines) to the newest manifest."""
    _, manifest = the_manifest(store)
    real = [group for group in groups if isinstance(group, Group)]
    cutter = ShardCutter(write=lambda _digest, _plain: "unused", known={})
    facts = None
    for group in real:
        facts = cutter.add(group) or facts
    facts = cutter.finish() or facts
    plain = b"".join(encode_group(group) if isinstance(group, Group) else group for group in groups)
    digest = digest_of(plain)
    key = keys.shard(INSTANCE, digest, manifest.backup_timestamp)
    put_over(store, key, compress_text(plain))
    shard = ShardRef(
        **{
            "key": key,
            "digest": digest,
            "plain_size": len(plain),
            "first": "",
            "last": "",
            "groups": len(real),
            "files": facts.files if facts else 0,
            "bytes": facts.bytes if facts else 0,
            "closed": True,
            "packs": facts.packs if facts else {},
            **lies,
        }
    )
    table = replace(manifest.tables[0], table="evil~9", name="evil", shards=(shard,))
    forge(
        store, replace(manifest, tables=(*manifest.tables, table), packs={**manifest.packs, **(packs or {})})
    )
    return shard
