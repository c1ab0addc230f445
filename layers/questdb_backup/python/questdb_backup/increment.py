"""What of the previous backup still holds, decided from signatures: what does is not read again.

A signature is worth something within one history only, so a table has to prove its descent first. A
pack of which little is still needed is not referred to any more: its chunks are stored again from the
database, and the pack goes when the backups that need it go. No object is ever rewritten.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from questdb_backup.errors import DamagedBackupError
from questdb_backup.manifest import Group, KeptShard, Manifest, ShardRef, TableRef, fold_signatures
from questdb_backup.services import logger
from questdb_backup.source.base import GroupOutline, PlannedTable, Source

MOSTLY_DEAD = 3
"""A pack is given up when less than one part in so many of it is needed."""

LEAST_WASTE = 1 << 16
"""Bytes; a small pack is mostly index, and not worth to be given up."""

Carried = KeptShard | Group | GroupOutline
ReadShard = Callable[[ShardRef], Iterable[Group]]


def spent_packs(base: Manifest, damaged: Iterable[str]) -> frozenset[str]:
    """What a new backup does not refer to: damaged packs and shards, and packs that are mostly dead."""
    needed = needed_bytes(base.tables)
    dead = (name for name, info in base.packs.items() if _is_mostly_dead(info.size, needed.get(name, 0)))
    return frozenset(chain(dead, damaged))


def _is_mostly_dead(size: int, needed: int) -> bool:
    return needed * MOSTLY_DEAD < size and size - needed > LEAST_WASTE


def needed_bytes(tables: Iterable[TableRef]) -> dict[str, int]:
    """How many stored bytes of each pack a backup refers to; what two shards share counts twice."""
    needed: dict[str, int] = {}
    for table in tables:
        for shard in table.shards:
            for name, size in shard.packs.items():
                needed[name] = needed.get(name, 0) + size
    return needed


def descends(source: Source, previous: TableRef | PlannedTable) -> bool:
    """Whether the table's history goes on from how it was then: its log has the very same record.

    A table without a log that is parsed (non-WAL, a log in parts) proves nothing.
    """
    if previous.last_txn is None or previous.txnlog_record is None:
        return False
    return source.txnlog_record(previous.table, previous.last_txn) == previous.txnlog_record


def carry_over(
    outlines: Iterable[GroupOutline], shards: Iterable[ShardRef], read: ReadShard, spent: frozenset[str]
) -> Iterator[Carried]:
    """A table's groups in order: as the previous backup has them where the signature says so.

    ``outlines`` and ``shards`` are of one table that descends from the previous backup, both in order.
    A shard is taken whole, and not even read, where all its signatures hold; but an open one at the
    table's end only while nothing follows, else small shards would pile up there.
    """
    rest = _Peekable(outlines)
    for shard in shards:
        yield from rest.before(shard.first)
        batch = list(rest.through(shard.last))
        if _holds(shard, batch, spent) and (shard.closed or rest.at_end()):
            yield KeptShard(table=batch[0].table, shard=shard)
        else:
            yield from _match(batch, shard, read, spent)
    yield from rest


def _holds(shard: ShardRef, batch: list[GroupOutline], spent: frozenset[str]) -> bool:
    return (
        shard.key not in spent
        and shard.signatures is not None
        and len(batch) == shard.groups
        and spent.isdisjoint(shard.packs)
        and fold_signatures((outline.partition, outline.signature) for outline in batch) == shard.signatures
    )


def _match(
    batch: list[GroupOutline], shard: ShardRef, read: ReadShard, spent: frozenset[str]
) -> Iterator[Group | GroupOutline]:
    if shard.key in spent or all(outline.signature is None for outline in batch):
        yield from batch
        return
    known = _known_groups(shard, read)
    for outline in batch:
        group = known.get(outline.partition)
        same = group is not None and group.signature == outline.signature
        yield group if group is not None and same and not _needs(group, spent) else outline


def _known_groups(shard: ShardRef, read: ReadShard) -> dict[str, Group]:
    """The shard's groups with a signature; none where it is damaged: then its partitions are read again."""
    try:
        return {group.partition: group for group in read(shard) if group.signature is not None}
    except DamagedBackupError as error:
        logger.warning("its partitions are read again: %s", error)
        return {}


def _needs(group: Group, packs: frozenset[str]) -> bool:
    return any(chunk.pack in packs for entry in group.entries for chunk in entry.chunks)


class _Peekable:
    """Outlines in order, with a look at the next one."""

    def __init__(self, outlines: Iterable[GroupOutline]) -> None:
        self._rest = iter(outlines)
        self._next = next(self._rest, None)

    def __iter__(self) -> Iterator[GroupOutline]:
        while self._next is not None:
            yield self._take()

    def at_end(self) -> bool:
        return self._next is None

    def before(self, partition: str) -> Iterator[GroupOutline]:
        while self._next is not None and self._next.partition < partition:
            yield self._take()

    def through(self, partition: str) -> Iterator[GroupOutline]:
        while self._next is not None and self._next.partition <= partition:
            yield self._take()

    def _take(self) -> GroupOutline:
        taken = self._next
        assert taken is not None, "looked at by the caller"
        self._next = next(self._rest, None)
        return taken
