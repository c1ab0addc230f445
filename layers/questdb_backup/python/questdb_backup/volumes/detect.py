"""What stands on a device, by its magic numbers. Nothing but the names is read here.

The numbers are those of libblkid and of each format's own headers; where several fit, RAID members and
encrypted disks come first: a file system's magic shows through a mirror's first disk.
"""

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.lvm_label import has_label
from questdb_backup.volumes.slots import read_clipped
from questdb_backup.volumes.zfs_label import zfs_pool_name

READABLE = ("ext4", "xfs")
LVM = "lvm2"
_HINT = "keep EBS snapshots of this volume, or use the path source on the host"
_MD_MAGIC = 0xA92B4EFC


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``kind``: ``ext4`` (ext2 and ext3 too), ``xfs``, ``lvm2``, a name of what is not read, "" if not known.

    ``refusal``: why it is not read; None for the first three.
    """

    kind: str
    refusal: UnsupportedVolumeError | None = None


@dataclass(frozen=True, slots=True)
class _Magic:
    kind: str
    offset: int
    magic: bytes
    words: str


_PLAIN = (
    _Magic("luks", 0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    _Magic("bcache", 4120, uuid.UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81").bytes, "a bcache device"),
    _Magic("btrfs", 0x10040, b"_BHRfS_M", "a btrfs file system"),
    _Magic("ntfs", 3, b"NTFS    ", "an NTFS file system"),
    _Magic("exfat", 3, b"EXFAT   ", "an exFAT file system"),
    _Magic("vfat", 82, b"FAT32   ", "a FAT file system"),
    _Magic("vfat", 54, b"FAT16   ", "a FAT file system"),
    _Magic("vfat", 54, b"FAT12   ", "a FAT file system"),
)


def detect(device: Device) -> Found:
    """The first of what is known that stands on the device."""
    for look in _LOOKS:
        if found := look(device):
            return found
    return Found(kind="", refusal=UnsupportedVolumeError("no file system that is known stands here"))


def _md_raid(device: Device) -> Found | None:
    """Version 1.1 at the start, 1.2 behind 4 KiB, 1.0 and 0.90 near the end (md(4))."""
    ends = ((device.size // 512 - 16) & ~7) * 512, (device.size & ~0xFFFF) - 0x10000
    for offset in (0, 4096, *ends):
        head = read_clipped(device, offset, 128)
        if len(head) < 128:
            continue
        magic, major = struct.unpack_from("<II", head)
        if magic == _MD_MAGIC and major == (0 if offset == ends[1] else 1):
            name = head[32:64].partition(b"\0")[0].decode("utf-8", "replace") if major else ""
            words = f"a member of the Linux software RAID{' ' + name if name else ''} (mdraid)"
            return _refused(
                "mdraid", words, "; if that is history, `mdadm --zero-superblock` removes the mark"
            )
    return None


def _plain(device: Device) -> Found | None:
    for one in _PLAIN:
        if read_clipped(device, one.offset, len(one.magic)) == one.magic:
            return _refused(one.kind, one.words)
    return None


def _lvm(device: Device) -> Found | None:
    return Found(kind=LVM) if has_label(device) else None


def _xfs(device: Device) -> Found | None:
    return Found(kind="xfs") if read_clipped(device, 0, 4) == b"XFSB" else None


def _ext(device: Device) -> Found | None:
    """Magic and block size of the superblock at byte 1024; also of ext2 and ext3."""
    head = read_clipped(device, 1024, 64)
    sound = head[56:58] == b"\x53\xef" and struct.unpack_from("<I", head, 24)[0] <= 6
    return Found(kind="ext4") if sound else None


def _swap(device: Device) -> Found | None:
    for page in (4096, 8192, 16384, 65536):
        if read_clipped(device, page - 10, 10) in (b"SWAPSPACE2", b"SWAP-SPACE"):
            return _refused("swap", "swap space")
    return None


def _zfs(device: Device) -> Found | None:
    name = zfs_pool_name(device)
    if name is None:
        return None
    return _refused("zfs", f"a member of the ZFS pool {name!r}" if name else "a member of a ZFS pool")


def _refused(kind: str, words: str, more: str = "") -> Found:
    return Found(kind=kind, refusal=UnsupportedVolumeError(f"{words} is not read", _HINT + more))


_LOOKS: tuple[Callable[[Device], Found | None], ...] = (_md_raid, _plain, _lvm, _xfs, _ext, _swap, _zfs)
