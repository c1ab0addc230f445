"""Cutting a table's groups into shards, so that shards of unchanged partitions stay the same.

A table's own files are a shard of their own: they change with every backup. Among partitions a shard
ends after one whose name hashes to a mark (about every 32nd): the cut does not move when partitions
before it are rewritten, added or dropped, so a changed partition renews one shard only. A shard that
holds many chunks ends sooner.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, pairwise
from operator import attrgetter

from questdb_backup.codec import digest_of
from questdb_backup.errors import SourceFileError
from questdb_backup.manifest import Entry, Group, KeptShard, ShardRef, encode_group, fold_signatures

PARTITIONS_PER_SHARD = 32
CHUNKS_PER_SHARD = 8192


@dataclass(slots=True)
class ShardCutter:
    """Takes groups in order and writes shards through ``write(digest, plain) -> key``.

    ``known`` maps digests of shards that exist to their keys: those are shared, not written.
    """

    write: Callable[[str, bytes], str]
    known: dict[str, str]
    _groups: list[Group] = field(default_factory=list)
    _chunks: int = 0

    def add(self, group: Group) -> ShardRef | None:
        """Take one group; give the shard that it completes, if any."""
        self._groups.append(group)
        self._chunks += sum(len(entry.chunks) for entry in group.entries)
        full = self._chunks >= CHUNKS_PER_SHARD
        return self.finish(closed=True) if full or _is_mark(group.partition) else None

    def take(self, item: Group | KeptShard) -> Iterator[ShardRef]:
        """Take what comes next; give the shards that it completes. A kept shard is one, and ends another."""
        if isinstance(item, KeptShard):
            if before := self.finish(closed=True):
                yield before
            yield item.shard
        elif shard := self.add(item):
            yield shard

    def finish(self, *, closed: bool = False) -> ShardRef | None:
        """The shard of what is gathered; None where nothing is."""
        groups, self._groups, self._chunks = self._groups, [], 0
        if not groups:
            return None
        for group in groups:
            if path := named_twice(group):
                raise SourceFileError(
                    f"the backup would name '{path}' twice, and could not be restored",
                    "this is a fault of questdb-backup: report it with the table's definition",
                )
        plain = b"".join(encode_group(group) for group in groups)
        digest = digest_of(plain)
        files = [entry for group in groups for entry in group.entries if entry.kind == "f"]
        return ShardRef(
            key=self.known.get(digest) or self.write(digest, plain),
            digest=digest,
            plain_size=len(plain),
            first=groups[0].partition,
            last=groups[-1].partition,
            groups=len(groups),
            files=len(files),
            bytes=sum(entry.size for entry in files),
            closed=closed,
            signatures=fold_signatures((group.partition, group.signature) for group in groups),
            packs=_pack_bytes(files),
        )


def named_twice(group: Group) -> str | None:
    """A path that two entries of the group have; None where each has its own."""
    if len({entry.path for entry in group.entries}) == len(group.entries):
        return None
    paths = sorted(entry.path for entry in group.entries)
    return next(path for path, following in pairwise(paths) if path == following)


def _pack_bytes(files: list[Entry]) -> dict[str, int]:
    """Stored bytes by pack; a chunk that stands twice counts once."""
    sizes: dict[str, int] = {}
    for chunk in {chunk for entry in files for chunk in entry.chunks}:
        if chunk.pack:
            sizes[chunk.pack] = sizes.get(chunk.pack, 0) + chunk.stored
    return dict(sorted(sizes.items()))


def _is_mark(partition: str) -> bool:
    if partition == "":
        return True
    return int(digest_of(partition.encode())[:8], 16) % PARTITIONS_PER_SHARD == 0


def merge_groups(parts: Iterable[Group | KeptShard]) -> Iterator[Group | KeptShard]:
    """Join what units cut apart: consecutive parts of one group, and pieces of one file in it."""
    pending: Group | None = None
    for part in parts:
        if isinstance(part, KeptShard):
            if pending:
                yield pending
            pending = None
            yield part
            continue
        if pending and (pending.table, pending.partition) == (part.table, part.partition):
            pending = _join(pending, part)
            continue
        if pending:
            yield pending
        pending = part
    if pending:
        yield pending


def _join(left: Group, right: Group) -> Group:
    entries = tuple(join_entries((*left.entries, *right.entries)))
    return Group(table=left.table, partition=left.partition, signature=left.signature, entries=entries)


def join_entries(pieces: Iterable[Entry]) -> Iterator[Entry]:
    """Entries in order, consecutive pieces of one file joined."""
    for path, same in groupby(pieces, key=attrgetter("path")):
        first, *others = same
        if others:
            chunks = chain(first.chunks, *(piece.chunks for piece in others))
            size = first.size + sum(piece.size for piece in others)
            first = replace(others[-1], path=path, size=size, chunks=tuple(chunks))
        yield first
