"""Bringing back one unit: few large reads of packs, every chunk verified, written where it belongs."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from questdb_backup import keys
from questdb_backup.codec import Codec, decode, digest_of
from questdb_backup.errors import BackupToolError, DamagedBackupError, ObjectNotFoundError
from questdb_backup.manifest import Entry
from questdb_backup.packs import ChunkRef
from questdb_backup.restore.contents import Piece, shares
from questdb_backup.restore.files import SafeTree
from questdb_backup.stores.base import ObjectStore

GAP_BYTES = 256 << 10
"""Unwanted bytes between two chunks that are read along: cheaper than another request."""
RANGE_BYTES = 16 << 20
_AHEAD = 2


@dataclass(slots=True)
class Range:
    """A stretch of a pack, and the chunks in it that are wanted."""

    pack: str
    start: int
    end: int
    chunks: list[ChunkRef] = field(default_factory=list)


class UnitDownload:
    """Writes one unit into the staging tree."""

    def __init__(self, store: ObjectStore, instance: str, tree: SafeTree) -> None:
        self._store = store
        self._instance = instance
        self._tree = tree
        self._seen: set[str] = set()
        self._places: dict[ChunkRef, list[tuple[str, int]]] = {}

    def run(self, pieces: Iterable[Piece]) -> None:
        """Make every file and directory, then fill the files.

        Raise DamagedBackupError naming the object and the file, StorageFullError, RestoreFailedError.
        """
        for piece in pieces:
            for share in shares(self._store, piece):
                if share.owned:
                    self._refuse_second(share.entry)
                self._make(share.entry)
                for offset, chunk in share.chunks:
                    self._want(share.entry, offset, chunk)
        ranges = coalesce(self._places)
        for wanted, data in read_ahead(self._store, self._instance, ranges):
            for chunk in wanted.chunks:
                self._write(wanted, chunk, data)

    def _refuse_second(self, entry: Entry) -> None:
        if entry.path in self._seen:
            raise DamagedBackupError(f"the backup names '{entry.path}' twice", "take another backup")
        self._seen.add(entry.path)

    def _make(self, entry: Entry) -> None:
        if entry.kind == "d":
            self._tree.make_folder(entry.path)
        else:
            self._tree.make_file(entry.path, entry.size, entry.mode)

    def _want(self, entry: Entry, offset: int, chunk: ChunkRef) -> None:
        if chunk.codec != Codec.ZERO:
            self._places.setdefault(chunk, []).append((entry.path, offset))
        elif chunk.digest != _digest_of_zeros(chunk.plain):
            raise DamagedBackupError(f"'{entry.path}' has a hole that its digest does not know of")

    def _write(self, wanted: Range, chunk: ChunkRef, data: bytes) -> None:
        places = self._places[chunk]
        begin = chunk.offset - wanted.start
        stored = data[begin : begin + chunk.stored]
        if len(stored) < chunk.stored:
            raise DamagedBackupError(
                f"{keys.pack(self._instance, chunk.pack)} is truncated: it ends before byte"
                f" {chunk.offset + chunk.stored}, which '{places[0][0]}' needs",
                _DAMAGED_HINT,
            )
        try:
            plain = decode(chunk.codec, stored, chunk.plain, chunk.digest)
        except BackupToolError as error:
            name = keys.pack(self._instance, chunk.pack)
            raise type(error)(
                f"{name} is damaged: {error.fact} ('{places[0][0]}')", error.hint or _DAMAGED_HINT
            ) from error
        for path, offset in places:
            self._tree.write(path, offset, plain)


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


def read_ahead(store: ObjectStore, instance: str, ranges: Iterable[Range]) -> Iterator[tuple[Range, bytes]]:
    """Each range with its bytes, in order; the next ones are on their way while one is worked on.

    Raise DamagedBackupError where a pack is missing; a pack that ends early gives fewer bytes.
    """

    def read(wanted: Range) -> bytes:
        key = keys.pack(instance, wanted.pack)
        try:
            return store.get_range(key, wanted.start, wanted.end - wanted.start)
        except ObjectNotFoundError as error:
            raise DamagedBackupError(f"{key} is missing from {store.location}", _DAMAGED_HINT) from error

    waiting: deque[tuple[Range, Future[bytes]]] = deque()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="restore") as pool:
        try:
            for wanted in ranges:
                waiting.append((wanted, pool.submit(read, wanted)))
                if len(waiting) > _AHEAD:
                    first, answer = waiting.popleft()
                    yield first, answer.result()
            while waiting:
                first, answer = waiting.popleft()
                yield first, answer.result()
        finally:
            for _, answer in waiting:
                answer.cancel()
