"""Symlinks: the target is in the inode, or in blocks with a header each.

Chapter "Symbolic Links" of "XFS Algorithms & Data Structures".
"""

import struct

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.xfs.extents import BlockMaps
from questdb_backup.volumes.xfs.inodes import ForkFormat, Inode
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import DAMAGE_HINT, Superblock, check_crc

_LONGEST = 1024
_CRC_AT = 12
_HEADER_BYTES = 56
_HEADER = struct.Struct(">4sII")
_MAGIC = b"XSLM"


class Symlinks:
    """Reads the targets of symlinks."""

    def __init__(self, device: ReplayedDevice, superblock: Superblock, maps: BlockMaps) -> None:
        self._device = device
        self._superblock = superblock
        self._maps = maps

    def target(self, link: Inode) -> bytes:
        """Raise DamagedVolumeError where it is not whole."""
        if not 0 < link.size <= _LONGEST:
            raise _damaged(link)
        target = link.fork[: link.size] if link.format == ForkFormat.LOCAL else self._remote(link)
        if len(target) != link.size or b"\0" in target:
            raise _damaged(link)
        return target

    def _remote(self, link: Inode) -> bytes:
        target = b""
        for mapping in self._maps.mappings(link):
            length = mapping.blocks << self._superblock.block_bits
            if length > 1 << 17:
                raise _damaged(link)
            block = self._device.read(mapping.offset, length)
            magic, offset, size = _HEADER.unpack_from(block)
            if magic != _MAGIC or offset != len(target) or size > length - _HEADER_BYTES:
                raise _damaged(link)
            if not self._device.is_patched(mapping.offset, length):
                check_crc(block, _CRC_AT, f"the target of symlink {link.number}")
            target += block[_HEADER_BYTES : _HEADER_BYTES + size]
        return target


def _damaged(link: Inode) -> DamagedVolumeError:
    return DamagedVolumeError(f"XFS: the target of symlink {link.number} is damaged", DAMAGE_HINT)
