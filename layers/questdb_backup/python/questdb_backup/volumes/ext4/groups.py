"""Group descriptors: chapters "Block Group Descriptors", "Meta Block Groups", "Block Groups"."""

import struct
from functools import cache

from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.blocks import Blocks
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.features import Compatible, ReadOnlyCompatible
from questdb_backup.volumes.ext4.superblock import SUPERBLOCK_OFFSET, Superblock

_CHECKSUM = slice(0x1E, 0x20)
_REFLECTED_CRC16 = 0xA001


class Groups:
    """Where the inode table of each block group is; descriptors are read and checked when they are needed."""

    def __init__(self, superblock: Superblock, blocks: Blocks) -> None:
        self._superblock = superblock
        self._blocks = blocks
        self._table_blocks = -(-superblock.inodes_per_group * superblock.inode_size // superblock.block_size)
        self.inode_table = cache(self._inode_table)

    def _inode_table(self, group: int) -> int:
        """First block of a group's inode table. Raise DamagedVolumeError for a bad descriptor."""
        raw = self._descriptor(group)
        self._check(group, raw)
        (table,) = struct.unpack_from("<I", raw, 0x8)
        if len(raw) >= 64:
            table |= struct.unpack_from("<I", raw, 0x28)[0] << 32
        self._superblock.check_blocks(table, self._table_blocks, f"the inode table of group {group}")
        return int(table)

    def _descriptor(self, group: int) -> bytes:
        size = self._superblock.descriptor_size
        number, index = divmod(group, self._superblock.block_size // size)
        offset = self._descriptor_block(number) * self._superblock.block_size
        return self._blocks.read(offset + index * size, size)

    def _descriptor_block(self, number: int) -> int:
        superblock = self._superblock
        after_superblock = SUPERBLOCK_OFFSET // superblock.block_size + 1
        if number < superblock.first_meta_group:
            return after_superblock + number
        group = number * (superblock.block_size // superblock.descriptor_size)
        if group == 0:
            return after_superblock
        first = superblock.first_data_block + group * superblock.blocks_per_group
        return first + has_superblock(superblock, group)

    def _check(self, group: int, raw: bytes) -> None:
        superblock, features = self._superblock, self._superblock.read_only_compatible
        number = group.to_bytes(4, "little")
        (found,) = struct.unpack("<H", raw[_CHECKSUM])
        if superblock.has_checksums:
            plain = raw[: _CHECKSUM.start] + bytes(2) + raw[_CHECKSUM.stop :]
            expected = raw_crc32c(number + plain, superblock.checksum_seed) & 0xFFFF
        elif ReadOnlyCompatible.GDT_CSUM in features:
            plain = raw[: _CHECKSUM.start] + raw[_CHECKSUM.stop :]
            expected = _crc16(superblock.uuid.bytes + number + plain)
        else:
            return
        if found != expected:
            raise damaged(f"the descriptor of block group {group} fails its checksum")


def has_superblock(superblock: Superblock, group: int) -> bool:
    """Whether a group begins with a copy of the superblock."""
    if Compatible.SPARSE_SUPER2 in superblock.compatible:
        return group == 0 or group in superblock.backup_groups
    if group <= 1 or ReadOnlyCompatible.SPARSE_SUPER not in superblock.read_only_compatible:
        return True
    return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def _crc16(data: bytes) -> int:
    """CRC-16 (ANSI, reflected) that begins with ~0, for gdt_csum; descriptors are few and short."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_REFLECTED_CRC16 if crc & 1 else 0)
    return crc
