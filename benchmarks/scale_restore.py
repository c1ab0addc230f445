"""How a restore grows with the number of files; nearly all of them are holes, so there is little data.

    python -m benchmarks.scale_restore 10000 100000 1000000 [--restore]

Each size runs in a process of its own, so that the memory that is told is its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from questdb_backup import keys
from questdb_backup.catalog import BackupRow, Catalog, ManifestRef, encode_catalog
from questdb_backup.codec import compress_text, digest_of, encode
from questdb_backup.instances import Instance, encode_instances
from questdb_backup.manifest import Entry, Group, Manifest, ShardRef, TableRef, encode_manifest
from questdb_backup.packs import ChunkRef, PackWriter
from questdb_backup.questdb.base import Database
from questdb_backup.restore.request import Restore
from questdb_backup.restore.staging import Staging
from questdb_backup.services import Config, Services
from questdb_backup.shards import ShardCutter
from questdb_backup.source.base import Source
from questdb_backup.status.memory import MemoryStatusStore
from questdb_backup.steps.complete_restore import complete_restore
from questdb_backup.steps.download import download_partitions
from questdb_backup.steps.plan_restore import plan_restore
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.fs import FsObjectStore
from questdb_backup.words import BackupStatus

INSTANCE = "gentle-forest-orchid"
RUN = "2026-01-01T00:00:00.000000Z"
FILES_PER_PARTITION = 20
PARTITIONS_PER_TABLE = 500
HOLE = 4096


def make_store(folder: Path, files: int) -> ObjectStore:
    """A store with one backup of so many files, written without a database."""
    store = FsObjectStore(folder, folder / "atomic")
    pack_run = RUN.replace("-", "").replace(":", "")
    packs = PackWriter(
        lambda number: f"{pack_run}/0-0-{number}",
        lambda name, data: store.create(keys.pack(INSTANCE, name), data),
    )
    tables = tuple(_tables(store, packs, files))
    packs.flush()
    manifest = Manifest(
        backup_timestamp=RUN,
        backup_instance_name=INSTANCE,
        token=1,
        source="path",
        server_version=None,
        data_id=None,
        checkpoint_started_at=None,
        previous=None,
        tables=tables,
        packs=packs.packs,
    )
    data = encode_manifest(manifest)
    ref = ManifestRef(key=keys.manifest(INSTANCE, RUN), digest=digest_of(data), size=len(data))
    store.create(ref.key, data)
    row = BackupRow(backup_timestamp=RUN, status=BackupStatus.BACKUP_COMPLETE, start_ts=RUN, manifest=ref)
    catalog = Catalog(instance=INSTANCE, last_token=1, rows=(row,))
    store.replace(keys.catalog(INSTANCE), encode_catalog(catalog), None)
    store.replace(keys.INSTANCES, encode_instances([Instance(name=INSTANCE)]), None)
    return store


def _tables(store: ObjectStore, packs: PackWriter, files: int) -> Iterator[TableRef]:
    def write(digest: str, plain: bytes) -> str:
        key = keys.shard(INSTANCE, digest, RUN)
        store.create(key, compress_text(plain))
        return key

    fixed = [".checkpoint", ".checkpoint/db", "db"]
    cutter = ShardCutter(write=write, known={})
    own = _group("", "", tuple(Entry(path=path, kind="d", mode=0o755, size=0) for path in fixed))
    yield _table("", [cutter.add(own), cutter.finish(closed=True)])
    per_table = FILES_PER_PARTITION * PARTITIONS_PER_TABLE
    for number in range(-(-files // per_table)):
        table, cutter, shards = f"t{number}~{number + 1}", ShardCutter(write=write, known={}), []
        for place in range(min(PARTITIONS_PER_TABLE, (files - number * per_table) // FILES_PER_PARTITION)):
            shards.append(cutter.add(_partition(packs, table, place)))
        yield _table(table, [*shards, cutter.finish(closed=True)])


def _table(name: str, shards: list[ShardRef | None]) -> TableRef:
    return TableRef(table=name, name=name, kind="wal", shards=tuple(filter(None, shards)))


def _group(table: str, partition: str, entries: tuple[Entry, ...]) -> Group:
    return Group(table=table, partition=partition, signature="1", entries=entries)


def _partition(packs: PackWriter, table: str, place: int) -> Group:
    hole = (ChunkRef("", 0, 0, HOLE, _DIGEST_OF_HOLE, "zero"),)
    text = f"{table} {place}".encode()
    data = (packs.add(encode(text, 1)),)
    names = [f"db/{table}/p{place}/c{number}.d" for number in range(FILES_PER_PARTITION)]
    entries = (
        Entry(path=names[0], kind="f", mode=0o644, size=len(text), chunks=data),
        *(Entry(path=name, kind="f", mode=0o644, size=HOLE, chunks=hole) for name in names[1:]),
    )
    return _group(table, f"{place:020}", entries)


_DIGEST_OF_HOLE = digest_of(bytes(HOLE))


def make_services(store: ObjectStore) -> Services:
    """Services that have a store and nothing else."""

    def none() -> Database:
        raise AssertionError("a restore talks to no server")

    def no_source(_version: str | None) -> Source:
        raise AssertionError("a restore reads no database")

    return Services(
        config=Config(instance_name=INSTANCE, max_concurrency=2),
        make_store=lambda: store,
        make_status=MemoryStatusStore,
        make_database=none,
        make_source=no_source,
    )


def measure(store: Path, folder: Path, *, whole: bool) -> str:
    """Plan a restore, look at each of its units, restore where asked; give one line of figures."""
    services = make_services(FsObjectStore(store, store / "atomic"))
    before = time.monotonic()
    state = plan_restore(services, "execution", {"root": str(folder / "new")})
    planned = time.monotonic()
    with Staging(folder / "new") as staging:
        pieces = sum(len(staging.unit(number)) for number in state["units"])
        staging.progress()
    looked = time.monotonic()
    memory = _memory()
    line = (
        f"plan {planned - before:6.2f} s, {len(state['units'])} units of {pieces} pieces in all"
        f" looked up in {looked - planned:5.2f} s, {memory:4.0f} MiB"
    )
    if not whole:
        return line
    restore = Restore.from_json(state["restore"])
    for unit in state["units"]:
        download_partitions(services, restore, unit)
    written = time.monotonic()
    complete_restore(services, restore)
    return (
        f"{line}; write {written - looked:6.1f} s, check and place {time.monotonic() - written:6.1f} s,"
        f" {_memory():4.0f} MiB"
    )


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", type=int, nargs="+")
    parser.add_argument("--restore", action="store_true", help="restore as well")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(measure(arguments.folder / "store", arguments.folder, whole=arguments.restore))
        return
    for files in arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            make_store(Path(folder, "store"), files)
            again = [sys.executable, "-m", "benchmarks.scale_restore", str(files), "--folder", folder]
            more = ["--restore"] if arguments.restore else []
            told = subprocess.run([*again, *more], check=True, stdout=subprocess.PIPE, text=True).stdout
            print(f"{files:9,} files: {told.strip()}", flush=True)


if __name__ == "__main__":
    main()
