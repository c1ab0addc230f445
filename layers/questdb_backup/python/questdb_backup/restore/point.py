"""Which backup is restored: from the store's instances down to a manifest whose numbers are checked."""

from dataclasses import dataclass

from questdb_backup import keys
from questdb_backup.catalog import BackupRow
from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import DamagedBackupError, NoRestorePointError, UnsupportedFormatError
from questdb_backup.instances import read_instances
from questdb_backup.manifest import Manifest, ShardRef, TableRef, read_manifest
from questdb_backup.restore_point import choose_instance, choose_restore_point
from questdb_backup.stores.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """A listed backup and its manifest."""

    instance: str
    row: BackupRow
    manifest: Manifest

    @property
    def shards(self) -> list[ShardRef]:
        """Every shard, in the manifest's order."""
        return [shard for table in self.manifest.tables for shard in table.shards]


def find_instance(store: ObjectStore, asked: str | None) -> str:
    """The asked instance, or the only one that has complete backups: others never had any.

    Raise as `choose_instance` does.
    """
    names = [known.name for known in read_instances(store)[0]]
    if asked is None and len(names) > 1:
        names = [name for name in names if _may_have_backups(store, name)] or names
    return choose_instance(names, asked)


def _may_have_backups(store: ObjectStore, name: str) -> bool:
    try:
        return read_catalog(store, name).latest_complete() is not None
    except (DamagedBackupError, UnsupportedFormatError):
        return True


def find_restore_point(store: ObjectStore, asked: str | None, timestamp: str | None) -> RestorePoint:
    """Choose instance and backup, and read the manifest.

    Raise NoRestorePointError, ConfigurationError (several instances), DamagedBackupError naming the object.
    """
    instance = find_instance(store, asked)
    row = choose_restore_point(complete_rows(store, instance), timestamp)
    return RestorePoint(instance=instance, row=row, manifest=read_point(store, instance, row))


def complete_rows(store: ObjectStore, instance: str) -> list[BackupRow]:
    """The restore points of an instance. Raise DamagedBackupError, NoRestorePointError naming the catalog."""
    key = keys.catalog(instance)
    catalog = read_catalog(store, instance)
    if catalog.instance != instance:
        raise DamagedBackupError(
            f"{key} is the catalog of '{catalog.instance}'", "put the instance's own catalog back there"
        )
    if catalog.last_token == 0 and not catalog.rows:
        raise NoRestorePointError(
            f"{key} is missing from {store.location}: the instance has no catalog",
            "`questdb-backup check` tells whether it was lost, and makes it anew with --rebuild; start no"
            " backup before. Else make its first one",
        )
    return catalog.complete_rows()


def read_point(store: ObjectStore, instance: str, row: BackupRow) -> Manifest:
    """The row's manifest, checked. Raise DamagedBackupError, UnsupportedFormatError."""
    assert row.manifest is not None, "complete rows have one"
    manifest = read_manifest(store, row.manifest)
    check_manifest(manifest, row.manifest.key)
    told = (manifest.backup_instance_name, manifest.backup_timestamp)
    if told != (instance, row.backup_timestamp):
        raise DamagedBackupError(f"manifest {row.manifest.key} is the one of {told[0]} {told[1]}")
    return manifest


def check_manifest(manifest: Manifest, key: str) -> None:
    """Check the types and signs of all that a restore uses. Raise DamagedBackupError."""
    for table in manifest.tables:
        if not (_texts(table.table, table.name) and all(_is_sound(shard) for shard in table.shards)):
            raise DamagedBackupError(f"manifest {key} has a malformed table {str(table.table)[:80]!r}")
    for name, info in manifest.packs.items():
        if not (_texts(name, info.digest) and _count(info.size)):
            raise DamagedBackupError(f"manifest {key} has a malformed pack {name[:80]!r}")
    version = manifest.server_version
    if version is not None and not isinstance(version, str):
        raise DamagedBackupError(f"manifest {key} has a malformed server version")


def _is_sound(shard: ShardRef) -> bool:
    return _texts(shard.key, shard.digest, shard.first, shard.last) and _count(
        shard.plain_size, shard.groups, shard.files, shard.bytes, *shard.packs.values()
    )


def _texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _count(*values: object) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def table_count(tables: tuple[TableRef, ...]) -> int:
    """The tables of a backup, without the root's own files."""
    return sum(1 for table in tables if table.table)
