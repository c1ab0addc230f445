"""Chunks: how plain bytes become stored bytes, and back.

A chunk carries the BLAKE3 digest of its plain bytes and the name of its codec. Which codecs there are and
what each stores is in `questdb_backup.codecs`; docs/FORMAT.md says how to read them without this program.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import zstandard
from blake3 import blake3

from questdb_backup.codecs import choice, decimal, frames, pco, shuffle
from questdb_backup.codecs.base import Buffer, Codec, ColumnMemory, Plan
from questdb_backup.errors import DamagedBackupError, UnsupportedFormatError

__all__ = [
    "CHUNK_BYTES",
    "Codec",
    "ColumnMemory",
    "Encoded",
    "compress_text",
    "decode",
    "decompress_text",
    "digest_of",
    "encode",
    "pack",
]

CHUNK_BYTES = 1 << 20
"""Pieces of files that are larger than a unit are cut at multiples of this."""

_ZEROS = bytes(CHUNK_BYTES)
_TOLERANCE = 1.2
_ALLOWANCE = 1024


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk ready to be stored; ``stored`` is empty for ``zero``."""

    digest: str
    codec: Codec
    stored: bytes
    plain_length: int


def digest_of(data: Buffer) -> str:
    """BLAKE3, 32 bytes in hex."""
    return blake3(data).hexdigest()


def encode(
    plain: Buffer,
    level: int,
    digest: str | None = None,
    column_type: str | None = None,
    memory: ColumnMemory | None = None,
) -> Encoded:
    """Encode a chunk, decode it again and compare the digest: nothing unverified is given back.

    ``level`` is that of ``backup.compression.level``, 1-22. ``digest`` is the plain bytes' where the caller
    has it; ``column_type`` is `PlannedFile.column_type`, a hint; ``memory`` is the column's. Never more is
    stored than ``plain``. Raise DamagedBackupError where even a copy of the bytes does not match the digest
    (a flipped bit in memory).
    """
    digest = digest or digest_of(plain)
    if _is_zero(plain):
        return Encoded(digest, Codec.ZERO, b"", len(plain))
    memory = memory or ColumnMemory()
    for plan, stored in _attempts(plain, level, column_type, memory):
        if len(stored) < len(plain) and _decodes(plan.codec, stored, len(plain), digest):
            memory.note(plan, len(stored) / len(plain))
            return Encoded(digest, plan.codec, stored, len(plain))
    memory.note(None, 1)
    raw = bytes(plain)
    decode(Codec.RAW, raw, len(raw), digest)
    return Encoded(digest, Codec.RAW, raw, len(raw))


def decode(codec: str, stored: Buffer, plain_length: int, digest: str) -> Buffer:
    """The plain bytes of a chunk; no more is allocated than a few times ``plain_length``.

    Raise DamagedBackupError where they do not match the digest, UnsupportedFormatError for a codec
    that this version does not know.
    """
    try:
        plain = _unpack(codec, bytes(stored), plain_length)
    except DamagedBackupError as error:
        raise DamagedBackupError(f"chunk {digest[:16]} ({codec}): {error}") from error
    if len(plain) != plain_length or digest_of(plain) != digest:
        raise DamagedBackupError(f"chunk {digest[:16]} does not match its digest")
    return plain


def pack(plan: Plan, plain: Buffer) -> bytes | None:
    """The stored bytes by a plan; None where its codec does not fit the bytes, or its library fails."""
    if plan.codec is Codec.ZSTD:
        return frames.pack(plain, plan.level)
    if plan.codec in shuffle.WIDTHS:
        return shuffle.pack(plain, shuffle.WIDTHS[plan.codec], plan.level)
    try:
        if plan.codec is Codec.PCO:
            return pco.pack(plain, plan.dtype, plan.level, plan.spec)
        return decimal.pack(plain, plan)
    except DamagedBackupError:
        return None


def compress_text(data: bytes, level: int = 9) -> bytes:
    """A Zstandard frame with its content size, for shards and the scratch of runs."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)


def decompress_text(data: bytes, limit: int = 1 << 30) -> bytes:
    """The inverse of `compress_text`. Raise DamagedBackupError where it is no frame or too large."""
    try:
        size = zstandard.frame_content_size(data)
        if size < 0 or size > limit:
            raise DamagedBackupError(f"a frame declares {size} bytes, more than the limit of {limit}")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))
    except zstandard.ZstdError as error:
        raise DamagedBackupError(f"a compressed object cannot be read: {error}") from error


def _is_zero(plain: Buffer) -> bool:
    """Look at the first bytes before the whole is copied to be compared."""
    head = bytes(plain[:64])
    return head == _ZEROS[: len(head)] and bytes(plain) == bytes(len(plain))


def _attempts(
    plain: Buffer, level: int, column_type: str | None, memory: ColumnMemory
) -> Iterator[tuple[Plan, bytes]]:
    """Stored forms of a chunk, best first; more are made only where one misses its sample, or is refused."""
    made: list[tuple[Plan, bytes]] = []
    known = memory.recall(len(plain))
    for plan in chain((known,) if known else (), choice.plans(plain, level, column_type)):
        stored = pack(plan, plain)
        if stored is None:
            continue
        made.append((plan, stored))
        if len(stored) <= _TOLERANCE * plan.expected + _ALLOWANCE:
            yield from sorted(made, key=lambda pair: len(pair[1]))
            made = []
    yield from sorted(made, key=lambda pair: len(pair[1]))


def _unpack(codec: str, stored: bytes, plain_length: int) -> Buffer:
    if codec == Codec.RAW:
        return stored
    if codec == Codec.ZERO:
        return bytes(plain_length)
    if codec == Codec.ZSTD:
        return frames.unpack(stored, plain_length)
    if codec in shuffle.WIDTHS:
        return shuffle.unpack(stored, shuffle.WIDTHS[Codec(codec)], plain_length)
    if codec == Codec.PCO:
        return pco.decompress(stored, plain_length).data.cast("B")
    if codec in (Codec.PCO_DECIMAL, Codec.ZSTD_SHUFFLE_DECIMAL):
        return decimal.unpack(codec, stored, plain_length)
    raise UnsupportedFormatError(f"codec '{codec}' is unknown", "use a newer questdb-backup")


def _decodes(codec: Codec, stored: bytes, plain_length: int, digest: str) -> bool:
    try:
        decode(codec, stored, plain_length, digest)
    except DamagedBackupError:
        return False
    return True
