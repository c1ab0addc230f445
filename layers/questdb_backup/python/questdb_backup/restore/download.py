"""Bringing back one unit: few large reads of packs, every chunk verified, written where it belongs."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from questdb_backup import keys
from questdb_backup.codec import Codec, decode, digest_of
from questdb_backup.errors import BackupToolError, DamagedBackupError, ObjectNotFoundError
from questdb_backup.manifest import Entry
from questdb_backup.packs import PACK_BYTES, ChunkRef
from questdb_backup.restore.contents import Piece, Share, shares
from questdb_backup.restore.files import SafeTree, Trees
from questdb_backup.restore.threads import Job, Threads
from questdb_backup.stores.base import ObjectStore

GAP_BYTES = 4 << 20
"""Unwanted bytes between two chunks that are read along: cheaper than another request."""
RANGE_BYTES = PACK_BYTES
"""A pack that is wanted whole is one request; `threads` bounds how many are in memory."""
_PART_BYTES, _PART_CHUNKS = 4 << 20, 256


@dataclass(slots=True)
class Range:
    """A stretch of a pack, and the chunks in it that are wanted."""

    pack: str
    start: int
    end: int
    chunks: list[ChunkRef] = field(default_factory=list)


class UnitDownload:
    """Writes one unit into the staging tree."""

    def __init__(self, store: ObjectStore, instance: str, trees: Trees, threads: Threads) -> None:
        self._store = store
        self._instance = instance
        self._trees = trees
        self._threads = threads
        self._seen: set[str] = set()
        self._places: dict[ChunkRef, list[tuple[Entry, int]]] = {}

    def run(self, pieces: Iterable[Piece]) -> None:
        """Make every file and directory of the unit, and fill the files.

        Raise DamagedBackupError naming the object and the file, StorageFullError, RestoreFailedError.
        """
        with self._trees.one() as tree:
            for found in self._threads.ahead(lambda piece: list(shares(self._store, piece)), pieces):
                for share in found:
                    self._take(tree, share)
        self._threads.run(self._job(wanted) for wanted in coalesce(self._places))

    def _take(self, tree: SafeTree, share: Share) -> None:
        if share.owned:
            self._refuse_second(share.entry)
        if share.entry.kind == "d":
            tree.make_folder(share.entry.path)
        elif not self._want(share):
            tree.make_file(share.entry.path, share.entry.size, share.entry.mode)

    def _refuse_second(self, entry: Entry) -> None:
        if entry.path in self._seen:
            raise DamagedBackupError(f"the backup names '{entry.path}' twice", "take another backup")
        self._seen.add(entry.path)

    def _want(self, share: Share) -> bool:
        """Note where chunks belong; give whether any will be written, which makes the file."""
        written = False
        for offset, chunk in share.chunks:
            if chunk.codec != Codec.ZERO:
                self._places.setdefault(chunk, []).append((share.entry, offset))
                written = True
            elif chunk.digest != _digest_of_zeros(chunk.plain):
                raise DamagedBackupError(f"'{share.entry.path}' has a hole that its digest does not know of")
        return written

    def _job(self, wanted: Range) -> Job:
        def parts(data: bytes) -> Iterator[Callable[[], None]]:
            for chunks in _in_parts(wanted.chunks):
                yield functools.partial(self._write, wanted, chunks, data)

        return Job(read=functools.partial(self._read, wanted), parts=parts)

    def _read(self, wanted: Range) -> bytes:
        key = keys.pack(self._instance, wanted.pack)
        try:
            return self._store.get_range(key, wanted.start, wanted.end - wanted.start)
        except ObjectNotFoundError as error:
            raise DamagedBackupError(
                f"{key} is missing from {self._store.location}", _DAMAGED_HINT
            ) from error

    def _write(self, wanted: Range, chunks: list[ChunkRef], data: bytes) -> None:
        with self._trees.one() as tree:
            for chunk in chunks:
                plain = self._plain(wanted, chunk, data)
                for entry, offset in self._places[chunk]:
                    tree.write(entry.path, entry.size, entry.mode, offset, plain)

    def _plain(self, wanted: Range, chunk: ChunkRef, data: bytes) -> bytes:
        begin = chunk.offset - wanted.start
        stored = data[begin : begin + chunk.stored]
        name, path = keys.pack(self._instance, chunk.pack), self._places[chunk][0][0].path
        if len(stored) < chunk.stored:
            raise DamagedBackupError(
                f"{name} is truncated: it ends before byte {chunk.offset + chunk.stored},"
                f" which '{path}' needs",
                _DAMAGED_HINT,
            )
        try:
            return bytes(decode(chunk.codec, stored, chunk.plain, chunk.digest))
        except BackupToolError as error:
            raise type(error)(
                f"{name} is damaged: {error.fact} ('{path}')", error.hint or _DAMAGED_HINT
            ) from error


_DAMAGED_HINT = "`questdb-backup verify --read-data` tells what else is damaged; restore an older backup"


@functools.lru_cache(maxsize=256)
def _digest_of_zeros(length: int) -> str:
    return digest_of(bytes(length))


def coalesce(chunks: Iterable[ChunkRef]) -> list[Range]:
    """The ranges to read: neighbours of one pack together, up to `RANGE_BYTES`."""
    ranges: list[Range] = []
    for chunk in sorted(chunks, key=lambda chunk: (chunk.pack, chunk.offset, chunk.stored)):
        last = ranges[-1] if ranges else None
        end = chunk.offset + chunk.stored
        if (
            last is None
            or last.pack != chunk.pack
            or chunk.offset - last.end > GAP_BYTES
            or end - last.start > RANGE_BYTES
        ):
            last = Range(chunk.pack, chunk.offset, end)
            ranges.append(last)
        last.end = max(last.end, end)
        last.chunks.append(chunk)
    return ranges


def _in_parts(chunks: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    """Neighbours together: enough to be worth a thread's while, few enough to share the work."""
    part: list[ChunkRef] = []
    size = 0
    for chunk in chunks:
        part.append(chunk)
        size += chunk.plain
        if size >= _PART_BYTES or len(part) >= _PART_CHUNKS:
            yield part
            part, size = [], 0
    if part:
        yield part
