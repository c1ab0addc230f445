"""The packs of a verification: that each is there, whole, and has what is said to be in it.

The manifest knows a pack's digest, and the pack's own index every chunk in it. So a pack that is read is
proved by its digest, and each chunk decoded once by its index; a reference from a shard is proved by an
equal row of that index, for which a pack's last bytes are enough.
"""

import functools
import struct
import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from questdb_backup import keys
from questdb_backup.codec import decode, digest_of
from questdb_backup.errors import (
    BackupToolError,
    DamagedBackupError,
    ObjectNotFoundError,
    UnsupportedFormatError,
)
from questdb_backup.packs import MAGIC, ChunkRef, PackInfo, read_index
from questdb_backup.restore.threads import Job, shared_threads
from questdb_backup.stores.base import ObjectStore

_TAIL_BYTES = 64 << 10
"""Enough for the index of most packs: then one small request tells all of it."""
_ROWS_KEPT = 8_000_000
"""Rows of indexes in memory, of 8 bytes; an index beyond that is read again where it is needed again."""
_PART_ROWS = 32
_LENGTH = struct.Struct("<I")


class Packs:
    """The packs that backups need; ``count`` is told the bytes of each object that is read."""

    def __init__(
        self, store: ObjectStore, instance: str, infos: dict[str, PackInfo], count: Callable[[int], None]
    ) -> None:
        self._store = store
        self._instance = instance
        self._infos = infos
        self._count = count
        self._lock = threading.Lock()
        self._indexes: OrderedDict[str, array[int]] = OrderedDict()
        self._rows = 0
        self.wrong: dict[str, str] = {}
        """Packs that are not as they should be, and what is wrong."""

    def look(self, names: Iterable[str]) -> None:
        """Read the end of each pack: it is there, with its size and its index."""
        with shared_threads() as threads:
            for _ in threads.ahead(self._look, names):
                pass

    def read(self, names: Iterable[str]) -> None:
        """Read each pack whole, compare its digest, and decode every chunk in it."""
        with shared_threads() as threads:
            threads.run(
                Job(
                    read=functools.partial(self._whole, name),
                    parts=functools.partial(self._parts, name),
                )
                for name in names
            )

    def has(self, chunk: ChunkRef) -> bool:
        """Whether the pack's index has that very chunk; True where the pack is known to be wrong."""
        if chunk.pack in self.wrong:
            return True
        with self._lock:
            index = self._indexes.get(chunk.pack)
        if index is None:
            self._look(chunk.pack)
            return self.has(chunk)
        row = _row(chunk)
        place = bisect_left(index, row)
        return place < len(index) and index[place] == row

    def is_beyond(self, chunk: ChunkRef) -> bool:
        """Whether the chunk goes beyond its pack."""
        return chunk.offset + chunk.stored > self._infos[chunk.pack].size

    def damaged(self, name: str, needed: dict[ChunkRef, str]) -> list[str]:
        """Of the files that need chunks of a wrong pack, those that cannot be restored."""
        data = self._whole(name)
        return [path for chunk, path in needed.items() if not _decodes(data, chunk)]

    def _look(self, name: str) -> None:
        size = self._infos[name].size
        tail = self._end(name, min(size, _TAIL_BYTES))
        if tail is None:
            return
        length = _LENGTH.unpack(tail[-8:-4])[0] + 8 if len(tail) >= 8 else 0
        if len(tail) < length <= size:
            tail = self._end(name, length) or b""
        self._keep(name, tail)

    def _end(self, name: str, length: int) -> bytes | None:
        """The last bytes, or None where the pack is missing or has another size."""
        start = self._infos[name].size - length
        tail = self._range(name, start, length + 1)
        if tail is None:
            return None
        if len(tail) != length:
            self._has_other_size(name)
            return None
        if tail[-len(MAGIC) :] != MAGIC:
            self._is_wrong(name, "does not end as a pack does")
            return None
        return tail

    def _whole(self, name: str) -> bytes:
        """The pack's bytes, never more than one byte too many."""
        data = self._range(name, 0, self._infos[name].size + 1)
        return b"" if data is None else data

    def _range(self, name: str, start: int, length: int) -> bytes | None:
        try:
            data = self._store.get_range(keys.pack(self._instance, name), start, length)
        except ObjectNotFoundError:
            self._is_wrong(name, f"is missing from {self._store.location}")
            return None
        except DamagedBackupError as error:
            self._is_wrong(name, f"cannot be read: {error}")
            return None
        self._count(len(data))
        return data

    def _parts(self, name: str, data: bytes) -> Iterator[Callable[[], None]]:
        """What is to be decoded of a pack that was read."""
        info = self._infos[name]
        if name in self.wrong:
            return
        if len(data) != info.size:
            self._has_other_size(name)
        elif digest_of(data) != info.digest:
            self._is_wrong(name, "is damaged")
        else:
            rows = self._keep(name, data)
            for start in range(0, len(rows), _PART_ROWS):
                yield functools.partial(self._decode, name, data, rows[start : start + _PART_ROWS])

    def _decode(self, name: str, data: bytes, rows: list[ChunkRef]) -> None:
        if not all(_decodes(data, chunk) for chunk in rows):
            self._is_wrong(name, "is damaged")

    def _keep(self, name: str, tail: bytes) -> list[ChunkRef]:
        try:
            rows = read_index(tail, name)
        except (DamagedBackupError, UnsupportedFormatError) as error:
            self._is_wrong(name, f"is damaged: {error.fact}")
            return []
        index = array("q", sorted(map(_row, rows)))
        with self._lock:
            self._rows += len(index) - len(self._indexes.pop(name, ()))
            self._indexes[name] = index
            while self._rows > _ROWS_KEPT and len(self._indexes) > 1:
                self._rows -= len(self._indexes.popitem(last=False)[1])
        return rows

    def _has_other_size(self, name: str) -> None:
        self._is_wrong(name, f"has not the {self._infos[name].size} bytes that the manifest says")

    def _is_wrong(self, name: str, why: str) -> None:
        with self._lock:
            self.wrong.setdefault(name, why)


def _row(chunk: ChunkRef) -> int:
    return hash((chunk.offset, chunk.stored, chunk.plain, chunk.digest, chunk.codec))


def _decodes(data: bytes, chunk: ChunkRef) -> bool:
    try:
        decode(chunk.codec, data[chunk.offset : chunk.offset + chunk.stored], chunk.plain, chunk.digest)
    except BackupToolError:
        return False
    return True
