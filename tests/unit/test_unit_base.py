"""The shards of the previous backup in which a worker looks for chunks."""

from questdb_backup.catalog import Catalog
from questdb_backup.manifest import KeptShard, ShardRef, TableRef
from questdb_backup.planner import Planner
from questdb_backup.source.base import EntryKind, PlannedFile
from questdb_backup.steps.run import Run
from questdb_backup.stores.memory import MemoryObjectStore
from questdb_backup.units import UnitFile, UnitGroup
from tests.support.backups import INSTANCE, bare_manifest


def shard(number: int) -> ShardRef:
    """Ten partitions."""
    return ShardRef(
        key=f"shard-{number}",
        digest="d",
        plain_size=1,
        first=f"{number}0",
        last=f"{number}9",
        groups=10,
        files=10,
        bytes=10,
        closed=True,
    )


def read(partition: str) -> UnitGroup:
    file = PlannedFile(path=f"db/t/{partition}/x.d", kind=EntryKind.FILE, mode=0o644, size=10, exact=True)
    return UnitGroup(table="t", partition=partition, signature=None, files=(UnitFile(file=file),))


def test_only_shards_with_a_partition_that_is_read_are_looked_into() -> None:
    """A late row in an old partition, and new rows in the last: what lies between may be terabytes."""
    shards = [shard(number) for number in range(1, 9)]
    base = bare_manifest((TableRef(table="t", name="t", kind="wal", shards=tuple(shards)),))
    run = Run(instance=INSTANCE, backup_timestamp="2024-08-25T12:34:56.789123Z", token=2)
    planner = Planner(MemoryObjectStore(), run, Catalog(instance=INSTANCE), base, 0)
    between = tuple(KeptShard(table="t", shard=each) for each in shards[2:7])
    unit = planner._unit(
        0, (read("15"), read("20"), read("29"), *between, read("83"), read("99")), settled=False
    )
    assert [each.key for each in unit.base] == ["shard-1", "shard-2", "shard-8"]
