"""Zstandard frames: one per chunk, with its content size."""

import threading

import zstandard

from questdb_backup.codecs.base import Buffer
from questdb_backup.errors import DamagedBackupError

_local = threading.local()


def pack(plain: Buffer, level: int) -> bytes:
    """One frame of everything."""
    return _compressor(level).compress(plain)


def unpack(stored: bytes, plain_length: int) -> bytes:
    """The ``plain_length`` bytes of a frame. Raise DamagedBackupError where it holds more or fewer."""
    try:
        # A size in the frame's header would win over max_output_size: a bomb declares gigabytes.
        if zstandard.frame_content_size(stored) not in (plain_length, -1):
            raise DamagedBackupError(f"the frame declares another size than its {plain_length} bytes")
        plain = _decompressor().decompress(stored, max_output_size=max(plain_length, 1))
    except zstandard.ZstdError as error:
        raise DamagedBackupError(f"it cannot be decompressed: {error}") from error
    if len(plain) != plain_length:
        raise DamagedBackupError(f"the frame holds {len(plain)} of {plain_length} bytes")
    return plain


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
