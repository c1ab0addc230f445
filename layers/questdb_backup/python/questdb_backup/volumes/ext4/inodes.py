"""Inodes: chapters "Inode Table" and "Dynamic structures: Index Nodes"."""

import stat
import struct
from functools import lru_cache
from typing import NamedTuple

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
_FIELDS = struct.Struct("<H2xI4xi10xH4xI64xI4xI16xH2xI")
"""i_mode, i_size_lo, i_ctime, i_links_count, i_flags, i_generation, i_size_high; i_extra_isize and
i_ctime_extra, which are behind the first 128 bytes."""
_EXTRA_CTIME_END = 8
"""i_extra_isize from which on i_ctime_extra is there: 30 bits of nanoseconds above 2 bits for the years
from 2038 on."""
_HIGH_CHECKSUM_END = 4
"""i_extra_isize from which on i_checksum_hi is there."""
_SUMMED_EXTRA = 12
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


class Inode(NamedTuple):
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
        self._first = 0
        self._block = b""
        self._all_are_good = False

    def child(self, number: int) -> Inode:
        """The inode of a directory entry. Raise DamagedVolumeError where it can be none."""
        if number < self._superblock.first_inode and number != ROOT_INODE:
            raise damaged(f"a directory has an entry of the reserved inode {number}")
        return self.get(number)

    def read(self, number: int) -> Inode:
        """The inode of that number. Raise DamagedVolumeError where it is free, or not right."""
        raw = self._raw(number)
        fields = raw if len(raw) > BASE_SIZE else raw + bytes(_FIELDS.size - BASE_SIZE)
        mode, size, changed, links, flags, generation, size_high, extra, fine = _FIELDS.unpack_from(fields)
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None or not links:
            raise damaged(f"inode {number} is in use, but it has mode {mode:#o} and {links} links")
        if kind is EntryKind.FILE or (kind is EntryKind.DIRECTORY and self._superblock.has_large_directories):
            size |= size_high << 32
        if size > _LONGEST_FILE * self._superblock.block_size:
            raise damaged(f"inode {number} has a size of {size} bytes")
        if extra >= _EXTRA_CTIME_END:
            changed += ((fine & 3) << 32) + (fine >> 2) / 1e9
        shown = size if kind in _HAS_SIZE else 0
        node = Node(number, generation, kind, stat.S_IMODE(mode), shown, float(changed))
        return Inode(node, size, flags, raw)

    def seed(self, number: int, generation: int) -> int:
        """The checksum to begin with for the blocks of an inode's metadata."""
        return raw_crc32c(struct.pack("<II", number, generation), self._superblock.checksum_seed)

    def _raw(self, number: int) -> bytes:
        superblock = self._superblock
        if not 0 < number <= superblock.inode_count:
            raise damaged(f"inode {number} of {superblock.inode_count} is named")
        group, index = divmod(number - 1, superblock.inodes_per_group)
        block, place = divmod(index, self._per_block)
        if number - place != self._first:
            self._enter(self._groups.inode_table(group) + block, number - place)
        size = superblock.inode_size
        raw = self._block[place * size : (place + 1) * size]
        if not self._all_are_good and not self._is_good(number, raw):
            raise damaged(f"inode {number} fails its checksum")
        return raw

    def _enter(self, block: int, first: int) -> None:
        """Take up a block of the table; the inodes of a directory mostly follow each other there."""
        self._block = self._blocks.block(block)
        self._all_are_good = not self._has_checksums or self._is_good_block(block, first)
        self._first = first

    def _is_good(self, number: int, raw: bytes) -> bool:
        seed = self._superblock.checksum_seed
        if len(raw) > BASE_SIZE and int.from_bytes(raw[0x80:0x82], "little") >= _HIGH_CHECKSUM_END:
            return raw_crc32c(_summed(number, raw, seed)) == 0
        plain = raw[:0x7C] + bytes(2) + raw[0x7E:]
        found = raw_crc32c(struct.pack("<I", number) + raw[0x64:0x68] + plain, seed) & 0xFFFF
        return found == int.from_bytes(raw[0x7C:0x7E], "little")

    def _check_block(self, block: int, first: int) -> bool:
        """Whether all inodes of a block of the table, of which ``first`` is the first, fit their checksums.

        What leaves the remainder 0 does so shifted, and so does the XOR of several that do: that all of them
        are right is seen by one CRC. False may also mean that one of them was never used.
        """
        size, count = self._superblock.inode_size, self._per_block
        if size == BASE_SIZE:
            return False
        raw, seed, together = self._blocks.block(block), self._superblock.checksum_seed, 0
        for place in range(count):
            message = _summed(first + place, raw[place * size : (place + 1) * size], seed)
            together ^= int.from_bytes(message, "little") << 8 * place
        return raw_crc32c(together.to_bytes(size + _SUMMED_EXTRA + count, "little")) == 0


def _summed(number: int, raw: bytes, seed: int) -> bytes:
    """What an inode's checksum is of, and it itself behind that: the CRC of both, from 0 on, has to be 0."""
    parts = (
        (number ^ seed).to_bytes(4, "little"),
        raw[0x64:0x68],
        raw[:0x7C],
        b"\0\0",
        raw[0x7E:0x82],
        b"\0\0",
        raw[0x84:],
        raw[0x7C:0x7E],
        raw[0x82:0x84],
    )
    return b"".join(parts)
