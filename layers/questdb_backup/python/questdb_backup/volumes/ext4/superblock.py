"""The superblock: chapter "Super Block"."""

import os
from dataclasses import dataclass
from uuid import UUID

from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.features import (
    Compatible,
    Incompatible,
    ReadOnlyCompatible,
    refuse_unknown,
)

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_SIZE = 1024
ROOT_INODE = 2
MAGIC = 0xEF53
_CRC32C = 1
_OLDEST_INODE_SIZE = 128
_OLDEST_FIRST_INODE = 11


@dataclass(frozen=True, kw_only=True, slots=True)
class Superblock:
    """What the superblock says, checked; sizes in bytes, places in blocks."""

    uuid: UUID
    label: str
    compatible: Compatible
    incompatible: Incompatible
    read_only_compatible: ReadOnlyCompatible
    block_size: int
    block_count: int
    first_data_block: int
    blocks_per_group: int
    group_count: int
    inode_count: int
    inodes_per_group: int
    inode_size: int
    first_inode: int
    descriptor_size: int
    first_meta_group: int
    backup_groups: tuple[int, int]
    journal_inode: int
    journal_device: int
    checksum_seed: int

    @property
    def needs_recovery(self) -> bool:
        """Whether the file system was mounted: what is in its journal counts."""
        return Incompatible.RECOVER in self.incompatible

    @property
    def has_checksums(self) -> bool:
        """Whether every piece of metadata has a CRC-32C (metadata_csum)."""
        return ReadOnlyCompatible.METADATA_CSUM in self.read_only_compatible

    @property
    def has_large_directories(self) -> bool:
        """Whether a directory's size has 64 bits."""
        return Incompatible.LARGE_DIR in self.incompatible

    def check_blocks(self, first: int, count: int, what: str) -> None:
        """Raise DamagedVolumeError where the blocks are none of this file system's that can hold data."""
        if not self.first_data_block < first <= first + count <= self.block_count:
            raise damaged(f"{what} is at block {first} ({count}), the last one is {self.block_count - 1}")


def parse_superblock(raw: bytes, device_size: int) -> Superblock:
    """Read and check the 1024 bytes of a superblock.

    Raise DamagedVolumeError where they cannot be right or fail their checksum, or where the file system is
    longer than its device; UnsupportedVolumeError for features that are not read.
    """
    if _u16(raw, 0x38) != MAGIC:
        raise damaged(f"the superblock's magic number is {_u16(raw, 0x38):#x}")
    compatible, incompatible, read_only = (_u32(raw, at) for at in (0x5C, 0x60, 0x64))
    if _u32(raw, 0x4C) == 0:
        compatible = incompatible = read_only = 0
    read_only_compatible = ReadOnlyCompatible(read_only)
    if ReadOnlyCompatible.METADATA_CSUM in read_only_compatible:
        _check_checksum(raw)
    refuse_unknown(incompatible)
    return _checked(
        _parse(raw, Compatible(compatible), Incompatible(incompatible), read_only_compatible), device_size
    )


def _parse(
    raw: bytes, compatible: Compatible, incompatible: Incompatible, read_only_compatible: ReadOnlyCompatible
) -> Superblock:
    is_64_bit = Incompatible.BITS_64 in incompatible
    dynamic = _u32(raw, 0x4C) > 0
    block_count = _u32(raw, 0x4) | (_u32(raw, 0x150) << 32 if is_64_bit else 0)
    first_data_block, blocks_per_group = _u32(raw, 0x14), _u32(raw, 0x20)
    if _u32(raw, 0x18) > 6 or not blocks_per_group or block_count <= first_data_block:
        raise damaged("the superblock's geometry cannot be right")
    uuid = raw[0x68:0x78]
    return Superblock(
        uuid=UUID(bytes=uuid),
        label=os.fsdecode(raw[0x78:0x88].split(b"\0")[0]),
        compatible=compatible,
        incompatible=incompatible,
        read_only_compatible=read_only_compatible,
        block_size=1024 << _u32(raw, 0x18),
        block_count=block_count,
        first_data_block=first_data_block,
        blocks_per_group=blocks_per_group,
        group_count=-(-(block_count - first_data_block) // blocks_per_group),
        inode_count=_u32(raw, 0x0),
        inodes_per_group=_u32(raw, 0x28),
        inode_size=_u16(raw, 0x58) if dynamic else _OLDEST_INODE_SIZE,
        first_inode=_u32(raw, 0x54) if dynamic else _OLDEST_FIRST_INODE,
        descriptor_size=_u16(raw, 0xFE) if is_64_bit else 32,
        first_meta_group=_u32(raw, 0x104) if Incompatible.META_BG in incompatible else 1 << 32,
        backup_groups=(_u32(raw, 0x24C), _u32(raw, 0x250)),
        journal_inode=_u32(raw, 0xE0),
        journal_device=_u32(raw, 0xE4),
        checksum_seed=_u32(raw, 0x270)
        if Incompatible.CSUM_SEED in incompatible
        else raw_crc32c(uuid, 0xFFFFFFFF),
    )


def _check_checksum(raw: bytes) -> None:
    if raw[0x175] != _CRC32C:
        raise damaged(f"the superblock names a checksum of unknown type {raw[0x175]}")
    if raw_crc32c(raw[:0x3FC], 0xFFFFFFFF) != _u32(raw, 0x3FC):
        raise damaged("the superblock fails its checksum")


def _checked(found: Superblock, device_size: int) -> Superblock:
    if found.block_count * found.block_size > device_size:
        raise damaged(
            f"the file system has {found.block_count} blocks of {found.block_size} bytes,"
            f" its device only {device_size} bytes"
        )
    good = (
        _is_power_of_two(found.inode_size) and _OLDEST_INODE_SIZE <= found.inode_size <= found.block_size,
        _is_power_of_two(found.descriptor_size) and 32 <= found.descriptor_size <= found.block_size,
        Incompatible.BITS_64 not in found.incompatible or found.descriptor_size >= 64,
        0 < found.inodes_per_group <= 8 * found.block_size,
        found.inodes_per_group * found.group_count == found.inode_count,
        found.first_inode >= _OLDEST_FIRST_INODE,
    )
    if not all(good):
        raise damaged("the superblock's sizes cannot be right")
    return found


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & value - 1 == 0


def _u16(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 2], "little")


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")
