"""Inodes: chapters "Inode Table" and "Dynamic structures: Index Nodes"."""

import stat
import struct
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import xor

from questdb_backup.errors import UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Node
from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.blocks import Blocks
from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.groups import Groups
from questdb_backup.volumes.ext4.superblock import ROOT_INODE, Superblock

ENCRYPTED = 0x800
EXTENTS = 0x80000
INLINE_DATA = 0x10000000
BLOCK_MAP = slice(0x28, 0x64)
"""i_block: pointers, the root of an extent tree, a short symlink, or the begin of inline data."""
BASE_SIZE = 128
_FIELDS = struct.Struct("<H2xI18xH4xI64xI4xI")
"""i_mode, i_size_lo, i_links_count, i_flags, i_generation, i_size_high."""
_HIGH_CHECKSUM_END = 4
"""i_extra_isize from which on i_checksum_hi is there."""
_KEPT = 1 << 20
"""Bytes of inodes that are kept; each costs a few hundred bytes beside its own."""
_KEPT_MARKS = 4096
_LONGEST_FILE = 1 << 32
"""Blocks."""
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFIFO: EntryKind.OTHER,
    stat.S_IFSOCK: EntryKind.OTHER,
    stat.S_IFCHR: EntryKind.OTHER,
    stat.S_IFBLK: EntryKind.OTHER,
}
_HAS_SIZE = (EntryKind.FILE, EntryKind.SYMLINK)


@dataclass(frozen=True, slots=True)
class Inode:
    """An inode: ``size`` is what it says, of a directory too; ``raw`` are its bytes with the space behind."""

    node: Node
    size: int
    flags: int
    raw: bytes

    @property
    def number(self) -> int:
        """As the directory entries have it."""
        return self.node.number

    @property
    def block_map(self) -> bytes:
        """The 60 bytes of i_block."""
        return self.raw[BLOCK_MAP]

    def refuse_encrypted(self) -> None:
        """Raise UnsupportedVolumeError where the names or the bytes are encrypted."""
        if self.flags & ENCRYPTED:
            raise UnsupportedVolumeError(
                f"ext4: inode {self.number} is encrypted (fscrypt): its key is not on the volume",
                "move the server root out of the encrypted directory, or use the source `path` on the host",
            )


class Inodes:
    """The inodes of a file system, each checked when it is read; the last ones are kept."""

    def __init__(self, superblock: Superblock, blocks: Blocks) -> None:
        self._superblock = superblock
        self._blocks = blocks
        self._groups = Groups(superblock, blocks)
        self._per_block = superblock.block_size // superblock.inode_size
        self._has_checksums = superblock.has_checksums
        self._is_good_block = lru_cache(maxsize=_KEPT_MARKS)(self._check_block)
        self.get = lru_cache(maxsize=_KEPT // superblock.inode_size)(self.read)

    def child(self, number: int) -> Inode:
        """The inode of a directory entry. Raise DamagedVolumeError where it can be none."""
        if number < self._superblock.first_inode and number != ROOT_INODE:
            raise damaged(f"a directory has an entry of the reserved inode {number}")
        return self.get(number)

    def read(self, number: int) -> Inode:
        """The inode of that number. Raise DamagedVolumeError where it is free, or not right."""
        raw = self._raw(number)
        mode, size, links, flags, generation, size_high = _FIELDS.unpack_from(raw)
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None or not links:
            raise damaged(f"inode {number} is in use, but it has mode {mode:#o} and {links} links")
        if kind is EntryKind.FILE or (kind is EntryKind.DIRECTORY and self._superblock.has_large_directories):
            size |= size_high << 32
        if size > _LONGEST_FILE * self._superblock.block_size:
            raise damaged(f"inode {number} has a size of {size} bytes")
        node = Node(number, generation, kind, stat.S_IMODE(mode), size if kind in _HAS_SIZE else 0)
        return Inode(node, size, flags, raw)

    def seed(self, number: int, generation: int) -> int:
        """The checksum to begin with for the blocks of an inode's metadata."""
        return raw_crc32c(struct.pack("<II", number, generation), self._superblock.checksum_seed)

    def _raw(self, number: int) -> bytes:
        superblock = self._superblock
        if not 0 < number <= superblock.inode_count:
            raise damaged(f"inode {number} of {superblock.inode_count} is named")
        group, index = divmod(number - 1, superblock.inodes_per_group)
        table = self._groups.inode_table(group)
        raw = self._blocks.read(
            table * superblock.block_size + index * superblock.inode_size, superblock.inode_size
        )
        if self._has_checksums:
            block, place = divmod(index, self._per_block)
            if not self._is_good_block(table + block, number - place) and not self._is_good(number, raw):
                raise damaged(f"inode {number} fails its checksum")
        return raw

    def _is_good(self, number: int, raw: bytes) -> bool:
        has_high = len(raw) > BASE_SIZE and int.from_bytes(raw[0x80:0x82], "little") >= _HIGH_CHECKSUM_END
        return fits_checksum(raw, number, self._superblock.checksum_seed, has_high=has_high)

    def _check_block(self, block: int, number: int) -> bool:
        """Whether all inodes of a block of the table, of which ``number`` is the first, fit their checksums.

        A CRC is linear: that of several messages XORed is the XOR of theirs, so one of them does for all.
        False may also mean that some of them were never used.
        """
        size, count = self._superblock.inode_size, self._per_block
        together = int.from_bytes(self._blocks.block(block), "little")
        numbers = reduce(xor, range(number, number + count))
        while count > 1:
            count //= 2
            together = together >> 8 * size * count ^ together & (1 << 8 * size * count) - 1
        seed = self._superblock.checksum_seed if self._per_block == 1 else 0
        return fits_checksum(together.to_bytes(size, "little"), numbers, seed, has_high=size > BASE_SIZE)


def fits_checksum(raw: bytes, number: int, seed: int, *, has_high: bool) -> bool:
    """Whether an inode fits its checksum, of which ``has_high`` tells whether its upper half is there."""
    found, mask = int.from_bytes(raw[0x7C:0x7E], "little"), 0xFFFF
    parts = [number.to_bytes(4, "little"), raw[0x64:0x68], raw[:0x7C], b"\0\0"]
    if has_high:
        found, mask = found | int.from_bytes(raw[0x82:0x84], "little") << 16, 0xFFFFFFFF
        parts += [raw[0x7E:0x82], b"\0\0", raw[0x84:]]
    else:
        parts.append(raw[0x7E:])
    return raw_crc32c(b"".join(parts), seed) & mask == found
