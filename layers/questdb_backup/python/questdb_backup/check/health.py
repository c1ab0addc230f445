"""Which backups can be restored in full, and which files of the others are lost."""

from questdb_backup import keys
from questdb_backup.catalog import BackupRow
from questdb_backup.check.inventory import Inventory
from questdb_backup.check.judging import FAULTS
from questdb_backup.check.report import BackupHealth
from questdb_backup.manifest import Manifest, ShardRef, read_shard
from questdb_backup.restore.point import read_point
from questdb_backup.stores.base import ObjectStore


def health_of(
    store: ObjectStore, inventory: Inventory, instance: str, rows: list[BackupRow]
) -> list[BackupHealth]:
    """One verdict for each listed backup, by the damage that the inventory knows."""
    damaged = any(True for _ in inventory.damaged(keys.instance_prefix(instance)))
    found = []
    for row in rows:
        health = BackupHealth(backup_timestamp=row.backup_timestamp)
        if damaged:
            _look(store, inventory, instance, row, health)
        found.append(health)
    return found


def _look(
    store: ObjectStore, inventory: Inventory, instance: str, row: BackupRow, health: BackupHealth
) -> None:
    try:
        manifest = read_point(store, instance, row)
    except FAULTS as error:
        health.error = str(error)
        return
    for table in manifest.tables:
        for shard in table.shards:
            if inventory.is_damaged(shard.key):
                health.add(f"every file of {_stretch(table.table, shard)}", shard.files)
            elif bad := _damaged_packs(inventory, instance, manifest, shard):
                _files(store, shard, bad, health)


def _damaged_packs(inventory: Inventory, instance: str, manifest: Manifest, shard: ShardRef) -> set[str]:
    names = shard.packs or manifest.packs
    return {name for name in names if inventory.is_damaged(keys.pack(instance, name))}


def _files(store: ObjectStore, shard: ShardRef, bad: set[str], health: BackupHealth) -> None:
    try:
        for group in read_shard(store, shard):
            for entry in group.entries:
                if any(chunk.pack in bad for chunk in entry.chunks):
                    health.add(entry.path)
    except FAULTS as error:
        health.error = str(error)


def _stretch(table: str, shard: ShardRef) -> str:
    name = f"table '{table}'" if table else "the root"
    return f"{name} in {shard.key}"
