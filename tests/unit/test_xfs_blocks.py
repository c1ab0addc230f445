"""Directories and symlinks of several blocks, made by hand: what is read of them, and what is damage."""

import lzma
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.crc32c import crc32c
from questdb_backup.volumes.xfs.directories import Directories
from questdb_backup.volumes.xfs.extents import BlockMaps
from questdb_backup.volumes.xfs.inodes import ForkFormat, Inode
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import Superblock, read_superblock
from questdb_backup.volumes.xfs.symlinks import Symlinks
from tests.support.memory_files import MemoryDevice

FOLDER = Path(__file__).parents[1] / "fixtures" / "filesystems"
BLOCK = 4096
PLACES = (3000, 3010, 3020)
"""Unused blocks of the first group."""


@pytest.fixture(scope="module")
def image() -> MemoryDevice:
    return MemoryDevice(bytearray(lzma.decompress((FOLDER / "xfs_dirty.img.xz").read_bytes())))


@pytest.fixture
def superblock(image: MemoryDevice) -> Superblock:
    return replace(read_superblock(image), folder_block_bytes=2 * BLOCK)


def sealed(block: bytearray, at: int) -> bytearray:
    block[at : at + 4] = crc32c(bytes(block)).to_bytes(4, "little")
    return block


def extent(start: int, block: int, count: int) -> bytes:
    return struct.pack(">QQ", start << 9, block << 21 | count)


def mapped(size: int, *extents: bytes) -> Inode:
    return Inode(99, size, ForkFormat.EXTENTS, 0, len(extents), b"".join(extents).ljust(336, b"\0"))


def entry(name: bytes, number: int) -> bytes:
    data = struct.pack(">QB", number, len(name)) + name + b"\1"
    return data.ljust(-(-(len(data) + 2) // 8) * 8, b"\0")


def free(length: int) -> bytes:
    return struct.pack(">HH", 0xFFFF, length).ljust(length, b"\0")


def folder_block(*parts: bytes, magic: bytes = b"XDD3", indexed: int = 0) -> bytearray:
    body = b"".join(parts)
    tail = bytes(8 * indexed) + struct.pack(">II", indexed, 0) if magic == b"XDB3" else b""
    rest = 2 * BLOCK - 64 - len(body) - len(tail)
    filler = free(rest) if rest else b""
    return sealed(bytearray(magic.ljust(64, b"\0") + body + filler + tail), 4)


def placed(image: MemoryDevice, *pieces: bytes | bytearray) -> ReplayedDevice:
    """A device where these pieces lie at the `PLACES`."""
    data = bytearray(image.data)
    for place, piece in zip(PLACES, pieces, strict=False):
        data[place * BLOCK : place * BLOCK + len(piece)] = piece
    return ReplayedDevice(MemoryDevice(data))


def listed(device: ReplayedDevice, superblock: Superblock, folder: Inode) -> list[tuple[bytes, int]]:
    return list(Directories(device, superblock, BlockMaps(device, superblock)).entries(folder))


def test_a_block_of_a_directory_may_lie_in_two_extents(image: MemoryDevice, superblock: Superblock) -> None:
    block = folder_block(entry(b".", 99), entry(b"..", 98), entry(b"one", 1), free(24), entry(b"two", 2))
    device = placed(image, block[:BLOCK], block[BLOCK:])
    index = extent((1 << 35) // BLOCK, PLACES[2], 1)
    folder = mapped(2 * BLOCK, extent(0, PLACES[0], 1), extent(1, PLACES[1], 1), index)
    assert listed(device, superblock, folder) == [(b"one", 1), (b"two", 2)]
    for damaged in (
        mapped(2 * BLOCK, extent(0, PLACES[0], 1), index),
        mapped(2 * BLOCK, extent(1, PLACES[1], 1)),
        mapped(2 * BLOCK, extent(0, PLACES[1], 1), extent(1, PLACES[0], 1)),
    ):
        with pytest.raises(DamagedVolumeError):
            listed(device, superblock, damaged)


def test_the_index_at_the_end_of_a_single_block_is_not_read_as_entries(
    image: MemoryDevice, superblock: Superblock
) -> None:
    device = placed(image, folder_block(entry(b"one", 1), magic=b"XDB3", indexed=3))
    assert listed(device, superblock, mapped(2 * BLOCK, extent(0, PLACES[0], 2))) == [(b"one", 1)]


@pytest.mark.parametrize(
    ("block", "what"),
    [
        (folder_block(entry(b"a/b", 1)), "is called b'a/b'"),
        (folder_block(entry(b"a\0b", 1)), "is called"),
        (folder_block(entry(b"", 1)), "is called b''"),
        (folder_block(free(0)[:4].ljust(8, b"\0")), "free stretch of no length"),
        (folder_block(magic=b"XDF3"), "begins with b'XDF3'"),
        (folder_block(entry(b"one", 1))[:4] + b"12345678" + bytes(2 * BLOCK - 12), "checksum of block 0"),
    ],
)
def test_entries_that_cannot_be_are_damage(
    image: MemoryDevice, superblock: Superblock, block: bytearray, what: str
) -> None:
    with pytest.raises(DamagedVolumeError, match=what):
        listed(placed(image, block), superblock, mapped(2 * BLOCK, extent(0, PLACES[0], 2)))


def short(count: int, *entries: bytes, wide: int = 0) -> Inode:
    fork = bytes([count, wide]) + bytes(8 if wide else 4) + b"".join(entries)
    return Inode(99, len(fork), ForkFormat.LOCAL, 0, 0, fork.ljust(336, b"\0"))


def test_short_directories_have_numbers_of_four_or_eight_bytes(
    image: MemoryDevice, superblock: Superblock
) -> None:
    device = placed(image)
    narrow = short(2, b"\3\0\0one\1" + bytes([0, 0, 0, 1]), b"\2\0\0no\2" + bytes([0, 0, 1, 0]))
    assert listed(device, superblock, narrow) == [(b"one", 1), (b"no", 256)]
    wide = short(1, b"\3\0\0one\1" + (1 << 40).to_bytes(8, "big"), wide=1)
    assert listed(device, superblock, wide) == [(b"one", 1 << 40)]
    for damaged in (replace(narrow, size=16), replace(narrow, size=3), short(200), short(1, b"\xff")):
        with pytest.raises(DamagedVolumeError):
            listed(device, superblock, damaged)


def link_block(offset: int, text: bytes) -> bytearray:
    header = struct.pack(">4sII", b"XSLM", offset, len(text))
    return sealed(bytearray((header.ljust(56, b"\0") + text).ljust(BLOCK, b"\0")), 12)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda one, two: (one, two), ""),
        (lambda one, two: (two, one), "target of symlink 99 is damaged"),
        (lambda one, two: (one[:100] + b"#" + one[101:], two), "checksum of the target of symlink 99"),
        (lambda one, two: (b"XSLN" + one[4:], two), "target of symlink 99 is damaged"),
        (lambda one, _: (one, link_block(600, b"b" * 99)), "target of symlink 99 is damaged"),
        (lambda one, _: (one, link_block(600, b"b" * 99 + b"\0")), "target of symlink 99 is damaged"),
    ],
)
def test_long_targets_are_put_together_of_their_blocks(
    image: MemoryDevice,
    superblock: Superblock,
    change: Callable[[bytearray, bytearray], tuple[bytearray, bytearray]],
    what: str,
) -> None:
    device = placed(image, *change(link_block(0, b"a" * 600), link_block(600, b"b" * 100)))
    link = mapped(700, extent(0, PLACES[0], 1), extent(1, PLACES[1], 1))
    links = Symlinks(device, superblock, BlockMaps(device, superblock))
    if not what:
        assert links.target(link) == b"a" * 600 + b"b" * 100
        return
    with pytest.raises(DamagedVolumeError, match=what):
        links.target(link)
