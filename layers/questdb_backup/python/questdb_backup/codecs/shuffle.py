"""The byte shuffle: the first bytes of all values, then the second ones, and so on.

Values of one column differ little in their high bytes, which then stand together for Zstandard.
"""

from typing import TYPE_CHECKING, Any

from questdb_backup.codecs import frames
from questdb_backup.codecs.base import Buffer, Codec
from questdb_backup.errors import DamagedBackupError

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def unpack(stored: bytes, width: int, plain_length: int) -> memoryview:
    """The inverse of `pack`. Raise DamagedBackupError."""
    return unshuffled(stored, width, plain_length).reshape(-1).data.cast("B")


def unshuffled(stored: bytes, width: int, plain_length: int) -> "NDArray[Any]":
    """The plain bytes as words of 8, 4 or 2 bytes. Raise DamagedBackupError.

    Two bytes are put together at a time, and a shift is done for many values at once: a stride of
    single bytes takes half as long again. Values of 8 bytes that need only 4, as most, take half as long.
    """
    import numpy as np

    if plain_length % width:
        raise DamagedBackupError(f"its {plain_length} bytes are no multiple of {width}")
    planes = np.frombuffer(frames.unpack(stored, plain_length), np.uint8).reshape(width, -1)
    if width == _WORD:
        return _words(planes)
    if width == 2 * _WORD and not planes[_WORD:].max(initial=0):
        return _words(planes).astype("<u8")
    plain: NDArray[Any] = np.empty((plain_length // width, width // 2), "<u2")
    for pair in range(width // 2):
        word = planes[2 * pair + 1].astype("<u2")
        word <<= 8
        word |= planes[2 * pair]
        plain[:, pair] = word
    return plain


def _words(planes: "NDArray[Any]") -> "NDArray[Any]":
    """Of the four lowest bytes."""
    words: NDArray[Any] = planes[3].astype("<u4")
    for byte in (2, 1, 0):
        words <<= 8
        words |= planes[byte]
    return words


def shuffled(plain: Buffer, width: int) -> memoryview:
    """The bytes of ``plain``, a multiple of ``width``, shuffled."""
    import numpy as np

    planes = np.empty((width, len(plain) // width), np.uint8)
    if width == _WORD:
        words = np.frombuffer(plain, "<u4")
        for byte in range(width):
            np.copyto(planes[byte], words >> 8 * byte, casting="unsafe")
        return planes.data.cast("B")
    pairs = np.frombuffer(plain, "<u2").reshape(-1, width // 2)
    for pair in range(width // 2):
        word = np.ascontiguousarray(pairs[:, pair])
        np.copyto(planes[2 * pair], word, casting="unsafe")
        np.copyto(planes[2 * pair + 1], word >> 8, casting="unsafe")
    return planes.data.cast("B")
