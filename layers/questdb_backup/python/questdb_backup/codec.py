"""Chunks: how plain bytes become stored bytes, and back.

A chunk carries the BLAKE3 digest of its plain bytes. Codecs: ``zero`` (all bytes are zero: nothing
is stored), ``zstd`` (one Zstandard frame), ``raw`` (as it is, where compression does not pay).
"""

import threading
from dataclasses import dataclass
from enum import StrEnum

import zstandard
from blake3 import blake3

from questdb_backup.errors import DamagedBackupError, UnsupportedFormatError

CHUNK_BYTES = 1 << 20
"""Files are cut at multiples of this, so that an append changes the last chunk only."""

_ZEROS = bytes(CHUNK_BYTES)
_local = threading.local()


class Codec(StrEnum):
    """Names of the codecs, as they stand in shards and pack indexes."""

    ZERO = "zero"
    ZSTD = "zstd"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk ready to be stored; ``stored`` is empty for ``zero``."""

    digest: str
    codec: Codec
    stored: bytes
    plain_length: int


def digest_of(data: bytes) -> str:
    """BLAKE3, 32 bytes in hex."""
    return blake3(data).hexdigest()


def encode(plain: bytes, level: int, digest: str | None = None) -> Encoded:
    """Encode a chunk, decode it again and compare the digest: nothing unverified is stored.

    ``digest`` is the plain bytes' where the caller has it. Raise DamagedBackupError where the
    decoded bytes differ (a broken library, a flipped bit in memory).
    """
    digest = digest or digest_of(plain)
    if plain == _ZEROS[: len(plain)]:
        return Encoded(digest, Codec.ZERO, b"", len(plain))
    frame = _compressor(level).compress(plain)
    if len(frame) >= len(plain):
        return Encoded(digest, Codec.RAW, plain, len(plain))
    decode(Codec.ZSTD, frame, len(plain), digest)
    return Encoded(digest, Codec.ZSTD, frame, len(plain))


def decode(codec: str, stored: bytes, plain_length: int, digest: str) -> bytes:
    """The plain bytes of a chunk, never more than ``plain_length`` of them.

    Raise DamagedBackupError where they do not match the digest, UnsupportedFormatError for a codec
    that this version does not know.
    """
    if codec == Codec.ZSTD:
        try:
            # A size in the frame's header would win over max_output_size: a bomb declares gigabytes.
            if zstandard.frame_content_size(stored) not in (plain_length, -1):
                raise DamagedBackupError(
                    f"chunk {digest[:16]} declares another size than its {plain_length} bytes"
                )
            plain = _decompressor().decompress(stored, max_output_size=max(plain_length, 1))
        except zstandard.ZstdError as error:
            raise DamagedBackupError(f"chunk {digest[:16]} cannot be decompressed: {error}") from error
    elif codec == Codec.RAW:
        plain = bytes(stored)
    elif codec == Codec.ZERO:
        plain = bytes(plain_length)
    else:
        raise UnsupportedFormatError(f"codec '{codec}' is unknown", "use a newer questdb-backup")
    if len(plain) != plain_length or digest_of(plain) != digest:
        raise DamagedBackupError(f"chunk {digest[:16]} does not match its digest")
    return plain


def compress_text(data: bytes) -> bytes:
    """A Zstandard frame with its content size, for shards and the scratch of runs."""
    return zstandard.ZstdCompressor(level=9, write_content_size=True).compress(data)


def decompress_text(data: bytes, limit: int = 1 << 30) -> bytes:
    """The inverse of `compress_text`. Raise DamagedBackupError where it is no frame or too large."""
    try:
        size = zstandard.frame_content_size(data)
        if size < 0 or size > limit:
            raise DamagedBackupError(f"a frame declares {size} bytes, more than the limit of {limit}")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))
    except zstandard.ZstdError as error:
        raise DamagedBackupError(f"a compressed object cannot be read: {error}") from error


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One compressor per thread and level: they are not safe to share between threads."""
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in made:
        made[level] = zstandard.ZstdCompressor(level=level, write_checksum=False)
    return made[level]


def _decompressor() -> zstandard.ZstdDecompressor:
    made = _local.__dict__.get("decompressor")
    if made is None:
        made = _local.decompressor = zstandard.ZstdDecompressor()
    return made
