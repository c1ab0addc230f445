"""Packs: objects of up to 32 MiB that hold many chunks, with their index at the end.

Layout: the stored chunks one after the other; a Zstandard frame with the index, a JSON array of
``[offset, stored length, plain length, digest, codec]``; the frame's length as 4 bytes little
endian; the 4 bytes ``QBP1``. Readers need the index only to rebuild what shards say as well.
"""

import json
import mmap
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from questdb_backup.chunker import MAX_CHUNK_BYTES
from questdb_backup.codec import Codec, Encoded, compress_text, decompress_text, digest_of
from questdb_backup.errors import DamagedBackupError
from questdb_backup.stores.base import Data

MAGIC = b"QBP1"
PACK_BYTES = 32 << 20
"""Half of what a worker could hold: the next pack fills while this one is on its way."""
_ROOM = PACK_BYTES + MAX_CHUNK_BYTES
_TAIL = struct.Struct("<I4s")


class ChunkRef(NamedTuple):
    """Where a chunk is stored; as a JSON array in shards, in this order. ``pack`` is "" for ``zero``."""

    pack: str
    offset: int
    stored: int
    plain: int
    digest: str
    codec: str

    @classmethod
    def from_json(cls, value: Any) -> "ChunkRef":
        """Check the shape and the signs. Raise DamagedBackupError."""
        # Written out: a backup that builds upon another one reads tens of thousands of them.
        try:
            pack, offset, stored, plain, digest, codec = value
            sound = (
                type(offset) is type(stored) is type(plain) is int
                and type(pack) is type(digest) is type(codec) is str
                and offset >= 0
                and 0 <= stored <= PACK_BYTES
                and 0 <= plain <= PACK_BYTES
            )
        except (TypeError, ValueError):
            sound = False
        if not sound:
            raise DamagedBackupError(f"a chunk reference is malformed: {str(value)[:120]}")
        return cls(pack, offset, stored, plain, digest, codec)


@dataclass(frozen=True, slots=True)
class PackInfo:
    """What the manifest keeps of a pack: the object's size in bytes and its BLAKE3 digest."""

    size: int
    digest: str


class PackWriter:
    """Gathers chunks into packs and hands each full one to ``put(name, data)``, on a thread of its own.

    One pack is on its way at a time. Use it as a context manager; an error of ``put`` comes out of the
    next call of `add` or `flush`. ``data`` is gone when ``put`` returns.
    """

    def __init__(self, name: Callable[[int], str], put: Callable[[str, Data], None]) -> None:
        self._name = name
        self._put = put
        # No memory before it is used, then used again: one fills while the other is on its way.
        self._data, self._sent = (mmap.mmap(-1, _ROOM, mmap.MAP_PRIVATE) for _ in range(2))
        self._size = 0
        self._index: list[list[int | str]] = []
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._sending: Future[None] | None = None
        self.packs: dict[str, PackInfo] = {}

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.shutdown(wait=True)
        for memory in (self._data, self._sent):
            with suppress(BufferError):  # an error of `put` refers to it as long as it lives
                memory.close()

    def add(self, chunk: Encoded) -> ChunkRef:
        """Place a chunk; the pack it lands in may be written later, at the latest by `flush`."""
        if chunk.codec is Codec.ZERO:
            return ChunkRef("", 0, 0, chunk.plain_length, chunk.digest, chunk.codec)
        if self._size and self._size + len(chunk.stored) > PACK_BYTES:
            self._send()
        name, offset = self._name(len(self.packs)), self._size
        self._size += len(chunk.stored)
        self._data[offset : self._size] = chunk.stored
        self._index.append([offset, len(chunk.stored), chunk.plain_length, chunk.digest, chunk.codec])
        return ChunkRef(name, offset, len(chunk.stored), chunk.plain_length, chunk.digest, chunk.codec)

    def flush(self) -> None:
        """Write what is gathered, and wait until all of it is stored."""
        if self._size:
            self._send()
        self._wait()

    def _send(self) -> None:
        self._wait()  # two packs are in memory at most
        name = self._name(len(self.packs))
        data = self._with_index()
        self._size, self._index = 0, []
        self._data, self._sent = self._sent, self._data
        self.packs[name] = PackInfo(len(data), digest_of(data))
        self._sending = self._sender.submit(self._put_once, name, data)

    def _with_index(self) -> memoryview:
        """The pack; in the memory where its chunks are, unless an index of very many does not fit there."""
        index = compress_text(json.dumps(self._index, separators=(",", ":")).encode())
        tail = index + _TAIL.pack(len(index), MAGIC)
        end = self._size + len(tail)
        if end > len(self._data):
            return memoryview(self._data[: self._size] + tail)
        self._data[self._size : end] = tail
        return memoryview(self._data)[:end]

    def _put_once(self, name: str, data: memoryview) -> None:
        with data:  # its memory is used again
            self._put(name, data)

    def _wait(self) -> None:
        if self._sending is not None:
            sent, self._sending = self._sending, None
            sent.result()


def read_index(data: bytes, name: str) -> list[ChunkRef]:
    """The index of a pack given whole. Raise DamagedBackupError, naming the pack."""
    if len(data) < _TAIL.size:
        raise DamagedBackupError(f"pack {name} has {len(data)} bytes: it is truncated")
    length, magic = _TAIL.unpack(data[-_TAIL.size :])
    end = len(data) - _TAIL.size
    if magic != MAGIC or length > end:
        raise DamagedBackupError(f"pack {name} has no index at its end: it is truncated or foreign")
    try:
        rows = json.loads(decompress_text(data[end - length : end]))
        return [ChunkRef.from_json([name, *row]) for row in rows]
    except (ValueError, TypeError) as error:
        raise DamagedBackupError(f"the index of pack {name} cannot be read: {error}") from error
