"""ZFS labels: whether a disk belongs to a pool, and the pool's name.

A disk has four labels of 256 KiB, two at its start and two at its end; each holds the pool's
configuration at 16 KiB, as a name-value list in XDR (RFC 4506), and a ring of uberblocks from 128 KiB on.
"""

import struct

from questdb_backup.volumes.base import Device
from questdb_backup.volumes.slots import read_clipped

_LABEL = 256 << 10
_PAIRS_AT = 16 << 10
_PAIRS_SIZE = 112 << 10
_RING_AT = 128 << 10
_UBERBLOCK = 1024
_MAGICS = (struct.pack("<Q", 0x00BAB10C), struct.pack(">Q", 0x00BAB10C))
_STRING = 9


def zfs_pool_name(device: Device) -> str | None:
    """The pool's name, "" where its label does not give it; None where no label has an uberblock."""
    last = device.size // _LABEL * _LABEL
    for start in (0, _LABEL, last - 2 * _LABEL, last - _LABEL):
        ring = read_clipped(device, start + _RING_AT, _LABEL - _RING_AT) if start >= 0 else b""
        if any(ring[at : at + 8] in _MAGICS for at in range(0, len(ring), _UBERBLOCK)):
            return _name(read_clipped(device, start + _PAIRS_AT, _PAIRS_SIZE))
    return None


def _name(pairs: bytes) -> str:
    """The string ``name`` of an XDR name-value list: encoding, version and flags stand before its pairs."""
    at = 12
    while at + 12 <= len(pairs):
        size, _, name_length = struct.unpack_from(">III", pairs, at)
        if size < 20:
            break
        value = at + 12 + (name_length + 3 & ~3)
        if pairs[at + 12 : at + 12 + name_length] == b"name" and value + 12 <= len(pairs):
            kind, _, length = struct.unpack_from(">III", pairs, value)
            return pairs[value + 12 :][:length].decode("utf-8", "replace") if kind == _STRING else ""
        at += size
    return ""
