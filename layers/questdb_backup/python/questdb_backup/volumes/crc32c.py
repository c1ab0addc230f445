"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), as ext4, XFS and their journals use it."""

from google_crc32c import extend

_MASK = 0xFFFFFFFF


def crc32c(data: bytes, crc: int = 0) -> int:
    """The checksum of RFC 3720, inverted first and last; ``crc`` is that of the bytes before these."""
    found: int = extend(crc, data)
    return found


def raw_crc32c(data: bytes, crc: int = 0) -> int:
    """The same without inversions: the kernel's ``crc32c_le(crc, data)``.

    ext4 and jbd2 pass ~0 (0xFFFFFFFF) or a seed and store the result as it is; XFS passes ~0 and stores
    the result inverted.
    """
    found: int = extend(crc ^ _MASK, data)
    return found ^ _MASK
