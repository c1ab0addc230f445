"""The superblock: geometry, features, and where blocks and inodes lie.

Chapter "Superblocks" of "XFS Algorithms & Data Structures".
"""

from dataclasses import dataclass

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.crc32c import crc32c

SECTOR = 512
"""The log and disk addresses count in these, whatever the device's sectors are."""
DAMAGE_HINT = "take another snapshot; where it stays so, look at the volume with xfs_repair -n"

_MAGIC = b"XFSB"
_CRC_AT = 224
_KNOWN_SIZE = 264
_REFUSED_INCOMPATIBLE = {
    0x10: "needs repair (mount refuses it too: run xfs_repair)",
    0x100: "metadir",
    0x200: "zoned",
    0x400: "zone gaps",
}
_KNOWN_INCOMPATIBLE = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""ftype, sparse inodes, meta_uuid, bigtime, nrext64, exchange-range, parent pointers."""
_FILE_TYPES = 0x1
_META_UUID = 0x4
_KNOWN_READ_ONLY = 0xF
"""finobt, rmapbt, reflink, inobtcount."""
_KNOWN_LOG_INCOMPATIBLE = 0x1
"""Logged extended attributes."""
_SMALLEST_CLUSTER = 8192
"""Bytes of an inode cluster of 256-byte inodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """What the reader needs of it; sizes are bytes, ``*_bits`` are their powers of two."""

    block_bytes: int
    block_bits: int
    blocks: int
    group_blocks: int
    groups: int
    group_bits: int
    inode_bytes: int
    inodes_per_block_bits: int
    inode_alignment: int
    root_inode: int
    folder_block_bytes: int
    typed_entries: bool
    log_start: int
    log_blocks: int
    read_only_features: int
    log_features: int
    uuid: bytes
    meta_uuid: bytes
    label: str

    @property
    def cluster_blocks(self) -> int:
        """Blocks of an inode cluster: what inodes are read, written and freed by."""
        wanted = _SMALLEST_CLUSTER * (self.inode_bytes // 256)
        if self.inode_alignment < wanted >> self.block_bits:
            wanted = _SMALLEST_CLUSTER
        return max(1, wanted >> self.block_bits)

    def block_offset(self, block: int, count: int = 1) -> int:
        """Byte offset of file system blocks. Raise DamagedVolumeError where they are in no group."""
        group, within = block >> self.group_bits, block & (1 << self.group_bits) - 1
        return self.group_block_offset(group, within, count)

    def group_block_offset(self, group: int, within: int, count: int = 1) -> int:
        """Byte offset of blocks of a group. Raise DamagedVolumeError where the group has them not."""
        first = group * self.group_blocks + within
        if group >= self.groups or within + count > self.group_blocks or first + count > self.blocks:
            raise DamagedVolumeError(
                f"XFS: {count} blocks from {within} of group {group} are beyond the file system", DAMAGE_HINT
            )
        return first << self.block_bits

    def inode_offset(self, number: int) -> int:
        """Byte offset of an inode. Raise DamagedVolumeError where its number is beyond the file system."""
        block = number >> self.inodes_per_block_bits
        within = number & (1 << self.inodes_per_block_bits) - 1
        return self.block_offset(block) + within * self.inode_bytes

    def check_recovery(self) -> None:
        """Raise UnsupportedVolumeError where a dirty log may hold what is not understood."""
        unknown = self.read_only_features & ~_KNOWN_READ_ONLY
        if unknown:
            raise UnsupportedVolumeError(
                f"the XFS log is dirty and the file system has unknown features (ro_compat {unknown:#x})",
                "unmount the volume, or freeze it, before the snapshot",
            )
        unknown = self.log_features & ~_KNOWN_LOG_INCOMPATIBLE
        if unknown:
            raise UnsupportedVolumeError(
                f"the XFS log uses unknown features (log_incompat {unknown:#x})",
                "unmount the volume, or freeze it, before the snapshot",
            )


def read_superblock(device: Device, *, sealed: bool = True) -> Superblock:
    """Read and check the first superblock; ``sealed`` false where its CRC was not renewed after a replay.

    Raise DamagedVolumeError, or UnsupportedVolumeError for what is not read.
    """
    raw = device.read(0, _KNOWN_SIZE)
    if raw[:4] != _MAGIC:
        raise DamagedVolumeError("there is no XFS superblock", DAMAGE_HINT)
    version = int.from_bytes(raw[100:102], "big") & 0xF
    if version != 5:
        raise UnsupportedVolumeError(
            f"the XFS is of version {version}, without checksums",
            "only version 5 (the default since 2014) is read",
        )
    sector = int.from_bytes(raw[102:104], "big")
    if sector not in (512, 1024, 2048, 4096, 8192, 16384, 32768):
        raise DamagedVolumeError(f"XFS: a sector of {sector} bytes", DAMAGE_HINT)
    if sealed:
        check_crc(device.read(0, sector), _CRC_AT, "the superblock")
    return _parsed(raw, device.size)


def check_crc(block: bytes, at: int, what: str) -> None:
    """Raise DamagedVolumeError where the little-endian CRC-32C at byte ``at`` does not fit the block."""
    crc = crc32c(block[at + 4 :], crc32c(bytes(4), crc32c(block[:at])))
    if crc != int.from_bytes(block[at : at + 4], "little"):
        raise DamagedVolumeError(f"XFS: the checksum of {what} is wrong", DAMAGE_HINT)


def _parsed(raw: bytes, device_bytes: int) -> Superblock:
    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "big")

    incompatible = number(216, 4)
    _refuse_features(incompatible, realtime_blocks=number(16, 8))
    found = Superblock(
        block_bytes=number(4, 4),
        block_bits=raw[120],
        blocks=number(8, 8),
        group_blocks=number(84, 4),
        groups=number(88, 4),
        group_bits=raw[124],
        inode_bytes=number(104, 2),
        inodes_per_block_bits=raw[123],
        inode_alignment=number(180, 4),
        root_inode=number(56, 8),
        folder_block_bytes=number(4, 4) << min(raw[192], 16),
        typed_entries=bool(incompatible & _FILE_TYPES),
        log_start=number(48, 8),
        log_blocks=number(96, 4),
        read_only_features=number(212, 4),
        log_features=number(220, 4),
        uuid=raw[32:48],
        meta_uuid=raw[248:264] if incompatible & _META_UUID else raw[32:48],
        label=raw[108:120].split(b"\0")[0].decode("utf-8", "replace"),
    )
    if raw[126]:
        raise DamagedVolumeError("XFS: mkfs did not finish", DAMAGE_HINT)
    _check_geometry(found, device_bytes)
    return found


def _refuse_features(incompatible: int, realtime_blocks: int) -> None:
    refused = [name for bit, name in _REFUSED_INCOMPATIBLE.items() if incompatible & bit]
    unknown = incompatible & ~_KNOWN_INCOMPATIBLE & ~sum(_REFUSED_INCOMPATIBLE)
    if unknown:
        refused.append(f"unknown incompat bits {unknown:#x}")
    if realtime_blocks:
        refused.append("a realtime device")
    if refused:
        raise UnsupportedVolumeError(f"the XFS has features that are not read: {', '.join(refused)}")


def _check_geometry(found: Superblock, device_bytes: int) -> None:
    sane = (
        10 <= found.block_bits <= 16
        and found.block_bytes == 1 << found.block_bits
        and found.inode_bytes in (512, 1024, 2048)
        and found.inode_bytes << found.inodes_per_block_bits == found.block_bytes
        and found.folder_block_bytes <= 1 << 16
        and 0 < found.group_blocks <= 1 << found.group_bits <= 1 << 31
        and found.groups > 0
        and found.group_blocks * (found.groups - 1) < found.blocks <= found.group_blocks * found.groups
    )
    if not sane:
        raise DamagedVolumeError("XFS: the sizes in the superblock contradict each other", DAMAGE_HINT)
    if found.blocks << found.block_bits > device_bytes:
        raise DamagedVolumeError(
            f"XFS: {found.blocks << found.block_bits} bytes on a device of {device_bytes} bytes", DAMAGE_HINT
        )
