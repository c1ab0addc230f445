"""The byte shuffle: the first bytes of all values, then the second ones, and so on.

Values of one column differ little in their high bytes, which then stand together for Zstandard.
"""

from questdb_backup.codecs import frames
from questdb_backup.codecs.base import Buffer, Codec
from questdb_backup.errors import DamagedBackupError

WIDTHS = {
    Codec.ZSTD_SHUFFLE_4: 4,
    Codec.ZSTD_SHUFFLE_8: 8,
    Codec.ZSTD_SHUFFLE_16: 16,
    Codec.ZSTD_SHUFFLE_32: 32,
}
"""The bytes of a value."""

_WORD = 4
CODECS = {width: codec for codec, width in WIDTHS.items()}


def pack(plain: Buffer, width: int, level: int) -> bytes | None:
    """A frame of the shuffled bytes; None where the length is no multiple of ``width``."""
    if len(plain) % width:
        return None
    return frames.pack(shuffled(plain, width), level)


def unpack(stored: bytes, width: int, plain_length: int) -> bytes:
    """The inverse of `pack`. Raise DamagedBackupError."""
    import numpy as np

    if plain_length % width:
        raise DamagedBackupError(f"its {plain_length} bytes are no multiple of {width}")
    planes = np.frombuffer(frames.unpack(stored, plain_length), np.uint8).reshape(width, -1)
    if width == _WORD:
        words = planes[3].astype("<u4")
        for byte in (2, 1, 0):
            words <<= 8
            words |= planes[byte]
        return bytes(words.data)
    plain = np.empty((plain_length // width, width), np.uint8)
    # Byte by byte is up to six times faster than one assignment of the transposed array.
    for byte in range(width):
        plain[:, byte] = planes[byte]
    return plain.tobytes()


def shuffled(plain: Buffer, width: int) -> memoryview:
    """The bytes of ``plain``, a multiple of ``width``, shuffled."""
    import numpy as np

    values = np.frombuffer(plain, np.uint8).reshape(-1, width)
    planes = np.empty((width, len(values)), np.uint8)
    if width == _WORD:  # a shift is done for many values at once, a stride is not
        words = np.frombuffer(plain, "<u4")
        for byte in range(width):
            np.copyto(planes[byte], words >> 8 * byte, casting="unsafe")
        return planes.data.cast("B")
    for byte in range(width):
        planes[byte] = values[:, byte]
    return planes.data.cast("B")
