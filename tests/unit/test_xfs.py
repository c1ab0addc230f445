"""The XFS reader: a snapshot of a mounted volume reads as the kernel shows it once its log is recovered."""

import json
import lzma
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.crc32c import crc32c
from questdb_backup.volumes.xfs.extents import BlockMaps
from questdb_backup.volumes.xfs.filesystem import XfsFileSystem
from questdb_backup.volumes.xfs.inodes import ForkFormat, Inode, InodeTable
from questdb_backup.volumes.xfs.log_bounds import find_bounds
from questdb_backup.volumes.xfs.log_items import ItemKind, Transaction, transactions
from questdb_backup.volumes.xfs.log_records import LogRegion, Record, RecordHeader
from questdb_backup.volumes.xfs.log_replay import replay
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import SECTOR, read_superblock
from tests.support.made_xfs_log import (
    COMMIT,
    CONTINUED,
    CONTINUES,
    END,
    START,
    TRANSACTION,
    item,
    operation,
)
from tests.support.memory_files import MemoryDevice
from tests.support.volume_views import View, differences, view_of

FOLDER = Path(__file__).parents[1] / "fixtures" / "filesystems"
CRC_AT = 224


@pytest.fixture(scope="module")
def image() -> MemoryDevice:
    return MemoryDevice(bytearray(lzma.decompress((FOLDER / "xfs_dirty.img.xz").read_bytes())))


@pytest.fixture
def device(image: MemoryDevice) -> ReplayedDevice:
    """The snapshot; what a test writes into it stays in memory."""
    return ReplayedDevice(image)


@pytest.fixture(scope="module")
def expected() -> View:
    listed = json.loads((FOLDER / "xfs_dirty.json").read_text())
    return {path: (kind, size, value) for path, (kind, size, value) in listed.items()}


def change_superblock(device: ReplayedDevice, at: int, value: bytes) -> None:
    """Change it, and renew its checksum."""
    device.write(at, value)
    sector = bytearray(device.read(0, SECTOR))
    sector[CRC_AT : CRC_AT + 4] = bytes(4)
    device.write(CRC_AT, crc32c(bytes(sector)).to_bytes(4, "little"))


def test_a_dirty_snapshot_reads_as_the_kernel_shows_it(image: MemoryDevice, expected: View) -> None:
    filesystem = XfsFileSystem.open(image)
    assert differences(expected, view_of(filesystem)) == []
    assert filesystem.was_dirty
    assert (filesystem.kind, filesystem.label) == ("xfs", "")
    assert filesystem.uuid == "a5c9bc1c-aee4-435f-be53-9e85fc01e54b"
    assert filesystem.device is image


def test_entries_are_found_by_name(image: MemoryDevice) -> None:
    filesystem = XfsFileSystem.open(image)
    folder = filesystem.find(filesystem.root, "questdb")
    assert folder is not None
    assert folder.kind is EntryKind.DIRECTORY
    for name, node in filesystem.entries(folder):
        assert filesystem.find(folder, name) == node
    assert filesystem.find(folder, "no such name") is None
    link = filesystem.find(folder, "longlink")
    assert link is not None
    assert (filesystem.read_link(link), link.size) == ("y" * 150, 150)
    assert list(filesystem.extents(link)) == []
    for call in (lambda: list(filesystem.entries(link)), lambda: filesystem.find(link, "a")):
        with pytest.raises(NotADirectoryError):
            call()


def test_what_was_allocated_but_not_written_is_left_out(image: MemoryDevice) -> None:
    filesystem = XfsFileSystem.open(image)
    node = filesystem.root
    for name in ("questdb", "db", "prealloc.d"):
        found = filesystem.find(node, name)
        assert found is not None
        node = found
    assert sum(extent.length for extent in filesystem.extents(node)) < node.size


@pytest.mark.parametrize(
    ("at", "value", "name"),
    [
        (100, b"\xb4\xa4", "version 4, without checksums"),
        (216, b"\x00\x00\x00\x1b", "needs repair"),
        (216, b"\x00\x00\x01\x0b", "metadir"),
        (216, b"\x00\x00\x02\x0b", "zoned"),
        (216, b"\x00\x01\x00\x0b", "incompat bits 0x10000"),
        (16, b"\x00\x00\x00\x00\x00\x00\x00\x01", "realtime device"),
        (212, b"\x00\x00\x00\x1d", "ro_compat 0x10"),
        (220, b"\x00\x00\x00\x02", "log_incompat 0x2"),
        (48, bytes(8), "log on another device"),
    ],
)
def test_features_that_are_not_read_are_refused_by_name(
    device: ReplayedDevice, at: int, value: bytes, name: str
) -> None:
    change_superblock(device, at, value)
    with pytest.raises(UnsupportedVolumeError, match=name):
        XfsFileSystem.open(device)


@pytest.mark.parametrize(
    "features", [b"\x00\x00\x00\x2b", b"\x00\x00\x00\xcb"], ids=["nrext64", "parent pointers, exchange-range"]
)
def test_features_that_change_nothing_for_a_reader_are_accepted(
    device: ReplayedDevice, features: bytes
) -> None:
    change_superblock(device, 216, features)
    superblock = read_superblock(device)
    assert superblock.typed_entries


@pytest.mark.parametrize("at", [4, 84, 88, 104, 120, 123, 124, 126])
def test_a_superblock_that_contradicts_itself_is_damage(device: ReplayedDevice, at: int) -> None:
    change_superblock(device, at, b"\xff")
    with pytest.raises(DamagedVolumeError):
        read_superblock(device)


def test_a_superblock_with_a_wrong_checksum_is_damage(device: ReplayedDevice) -> None:
    device.write(140, b"\xff")
    with pytest.raises(DamagedVolumeError, match="checksum of the superblock"):
        XfsFileSystem.open(device)


@pytest.mark.parametrize("at", [60, 300, 100], ids=["size", "fork", "checksum"])
def test_an_inode_with_a_wrong_checksum_is_damage(image: MemoryDevice, at: int) -> None:
    superblock = read_superblock(image)
    clean = ReplayedDevice(image)
    replay(clean, superblock)
    offset = superblock.inode_offset(superblock.root_inode)
    inode = bytearray(clean.read(offset, 512))
    inode[100:104] = bytes(4)
    inode[100:104] = crc32c(bytes(inode)).to_bytes(4, "little")
    data = bytearray(image.data)
    data[offset : offset + 512] = inode
    table = InodeTable(ReplayedDevice(MemoryDevice(data)), superblock)
    assert table.node(superblock.root_inode).kind is EntryKind.DIRECTORY
    data[offset + at] ^= 1
    table = InodeTable(ReplayedDevice(MemoryDevice(data)), superblock)
    with pytest.raises(DamagedVolumeError, match="checksum of inode 128"):
        table.node(superblock.root_inode)


def test_a_volume_that_was_cut_short_is_damage(image: MemoryDevice) -> None:
    with pytest.raises(DamagedVolumeError, match="on a device of"):
        XfsFileSystem.open(MemoryDevice(image.data[: len(image.data) - 4096]))
    with pytest.raises(DamagedVolumeError):
        XfsFileSystem.open(MemoryDevice(image.data[:100]))


def test_a_log_that_was_never_written_is_clean(device: ReplayedDevice) -> None:
    superblock = read_superblock(device)
    start = superblock.block_offset(superblock.log_start)
    device.write(start, bytes(superblock.log_blocks * superblock.block_bytes))
    assert find_bounds(LogRegion(device, superblock)) is None
    device.write(start + 5 * SECTOR, b"\0\0\0\1")
    with pytest.raises(DamagedVolumeError, match="first block of the log"):
        find_bounds(LogRegion(device, superblock))


def test_a_damaged_record_in_the_middle_of_the_log_is_damage(device: ReplayedDevice) -> None:
    superblock = read_superblock(device)
    bounds = find_bounds(LogRegion(device, superblock))
    assert bounds is not None
    start = superblock.block_offset(superblock.log_start)
    device.write(start + (bounds.tail + bounds.head) // 2 * SECTOR + 100, b"damage!!")
    with pytest.raises(DamagedVolumeError, match=r"the log is damaged|records at the head"):
        XfsFileSystem.open(device)


def test_a_torn_last_record_is_left_out(device: ReplayedDevice, expected: View) -> None:
    superblock = read_superblock(device)
    log = LogRegion(device, superblock)
    bounds = find_bounds(log)
    assert bounds is not None
    start = superblock.block_offset(superblock.log_start)
    device.write(start + (bounds.head - 1) * SECTOR, bytes(SECTOR))
    torn = find_bounds(log)
    assert torn is not None
    assert torn.tail <= torn.head < bounds.head
    assert view_of(XfsFileSystem.open(device)) != expected


# --- transactions ---------------------------------------------------------------------------------------


def record(*operations: bytes, lsn: int = 1 << 32) -> Record:
    data = b"".join(operations)
    header = RecordHeader(
        position=0, cycle=1, lsn=lsn, tail_lsn=lsn, length=len(data), headers=1, operations=len(operations)
    )
    return Record(header, data)


def read_all(*records: Record) -> list[Transaction]:
    return list(transactions(records, lambda kind, _: kind != ItemKind.QUOTA))


def test_regions_are_put_together_over_records() -> None:
    found = read_all(
        record(operation(START), operation(CONTINUES, TRANSACTION[:8])),
        record(
            operation(CONTINUED | END, TRANSACTION[8:]),
            operation(0, item(ItemKind.BUFFER, 2)),
            lsn=2 << 32,
        ),
        record(operation(CONTINUES, b"ab"), lsn=3 << 32),
        record(operation(CONTINUED | CONTINUES, b"cd"), lsn=4 << 32),
        record(operation(CONTINUED | END, b"ef"), operation(COMMIT), lsn=5 << 32),
    )
    assert [transaction.lsn for transaction in found] == [1 << 32]
    assert found[0].items[0].regions == [item(ItemKind.BUFFER, 2), b"abcdef"]


def test_transactions_without_a_begin_or_a_commit_are_left_out() -> None:
    begun = (
        operation(START, number=8),
        operation(0, TRANSACTION, 8),
        operation(0, item(0x123B, 1), 8),
    )
    assert read_all(record(operation(0, b"rest"), operation(COMMIT), *begun)) == []


def test_items_that_are_not_wanted_are_skipped_with_their_regions() -> None:
    found = read_all(
        record(
            operation(START),
            operation(0, TRANSACTION),
            operation(0, item(ItemKind.QUOTA, 2)),
            operation(0, b"quota"),
            operation(0, item(ItemKind.INODE, 1)),
            operation(COMMIT),
        )
    )
    assert [entry.kind for entry in found[0].items] == [ItemKind.INODE]


@pytest.mark.parametrize(
    "operations",
    [
        (operation(START), operation(0, b"no header")),
        (operation(START), operation(0, TRANSACTION), operation(0, b"ab")),
        (operation(START), operation(0, TRANSACTION), operation(0, item(0x123B, 0))),
        (
            operation(START),
            operation(0, TRANSACTION),
            operation(0, item(0x123B, 2)),
            operation(COMMIT),
        ),
        (operation(START), operation(CONTINUES, TRANSACTION), operation(0, b"another")),
        (operation(START), operation(0, TRANSACTION)[:-1]),
        (operation(START)[:-1],),
        (operation(START).replace(b"\x69", b"\x68"),),
    ],
)
def test_operations_that_make_no_transaction_are_damage(operations: tuple[bytes, ...]) -> None:
    with pytest.raises(DamagedVolumeError, match="log record 1:0"):
        read_all(record(*operations))


# --- block maps -----------------------------------------------------------------------------------------


def extent(start: int, block: int, count: int, *, unwritten: bool = False) -> bytes:
    first = (1 << 63 if unwritten else 0) | start << 9 | block >> 43
    return struct.pack(">QQ", first, (block & (1 << 43) - 1) << 21 | count)


def inode(*extents: bytes, counted: int | None = None, form: int = ForkFormat.EXTENTS) -> Inode:
    fork = b"".join(extents).ljust(336, b"\0")
    return Inode(99, 1 << 20, form, 0, len(extents) if counted is None else counted, fork)


@pytest.fixture
def maps(device: ReplayedDevice) -> BlockMaps:
    return BlockMaps(device, read_superblock(device))


def test_extents_tell_where_blocks_are(maps: BlockMaps) -> None:
    found = list(maps.mappings(inode(extent(0, 20, 2), extent(5, 8192 + 7, 3, unwritten=True))))
    assert found == [(0, 2, 20 * 4096, True), (5, 3, (6144 + 7) * 4096, False)]


@pytest.mark.parametrize(
    "damaged",
    [
        inode(extent(0, 20, 2), extent(1, 30, 1)),
        inode(extent(5, 20, 2), extent(0, 30, 1)),
        inode(extent(0, 20, 0)),
        inode(extent(0, 6143, 2)),
        inode(extent(0, 5 * 8192, 1)),
        inode(extent(0, 1 << 50, 1)),
        inode(extent(0, 20, 1), counted=22),
        inode(extent(0, 20, 1), counted=1 << 47),
        inode(extent(0, 20, 1), form=ForkFormat.LOCAL),
        inode(struct.pack(">HH", 1, 0), form=ForkFormat.BTREE),
        inode(struct.pack(">HH", 0, 1), form=ForkFormat.BTREE),
        inode(struct.pack(">HH", 1, 21), form=ForkFormat.BTREE),
        inode(struct.pack(">HH", 0xFFFF, 1), form=ForkFormat.BTREE),
        inode(struct.pack(">HH", 1, 1), form=ForkFormat.BTREE),
    ],
)
def test_block_maps_that_cannot_be_are_damage(maps: BlockMaps, damaged: Inode) -> None:
    with pytest.raises(DamagedVolumeError):
        list(maps.mappings(damaged))


def btree_block(level: int, *records: bytes) -> bytes:
    body = b"".join(records)
    if level:
        body = body.ljust(251 * 8, b"\0") + b"".join(records)
    block = bytearray(
        (struct.pack(">4sHH", b"BMA3", level, len(records)).ljust(72, b"\0") + body).ljust(4096, b"\0")
    )
    block[64:68] = crc32c(bytes(block)).to_bytes(4, "little")
    return bytes(block)


def root(level: int, *blocks: int) -> Inode:
    pointers = b"".join(block.to_bytes(8, "big") for block in blocks)
    fork = struct.pack(">HH", level, len(blocks)) + bytes(8 * 20) + pointers
    return inode(fork, form=ForkFormat.BTREE)


def test_a_tree_of_extents_is_walked_in_order(image: MemoryDevice) -> None:
    data = bytearray(image.data)
    data[100 * 4096 : 101 * 4096] = btree_block(0, extent(0, 20, 2), extent(7, 30, 1))
    data[101 * 4096 : 102 * 4096] = btree_block(0, extent(9, 40, 1))
    data[102 * 4096 : 103 * 4096] = btree_block(1, (100).to_bytes(8, "big"), (101).to_bytes(8, "big"))
    changed = ReplayedDevice(MemoryDevice(data))
    maps = BlockMaps(changed, read_superblock(changed))
    for tree in (root(1, 100, 101), root(2, 102)):
        found = list(maps.mappings(replace(tree, extents=3)))
        assert [mapping.start for mapping in found] == [0, 7, 9]
        with pytest.raises(DamagedVolumeError, match="3 extents of 4"):
            list(maps.mappings(replace(tree, extents=4)))
    for circle in (root(1, 100, 100), root(2, 102, 102), root(2, 100), root(1, 102)):
        with pytest.raises(DamagedVolumeError):
            list(maps.mappings(replace(circle, extents=3)))
    data[100 * 4096 + 80] ^= 1
    with pytest.raises(DamagedVolumeError, match="checksum of block 100"):
        list(maps.mappings(replace(root(1, 100, 101), extents=3)))


# --- the device after the replay ------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, 500, 511, 512, 1000, 1535])
@pytest.mark.parametrize("length", [0, 1, 12, 512, 513, 1100])
def test_what_is_written_is_read_and_the_rest_is_as_below(offset: int, length: int) -> None:
    plain = bytearray(bytes(range(256)) * 12)
    device = ReplayedDevice(MemoryDevice(bytearray(plain)))
    new = b"\xee" * length
    device.write(offset, new)
    plain[offset : offset + length] = new
    for start in (0, 400, 512, 1030):
        for size in (0, 1, 100, 512, 900, 2000):
            assert device.read(start, size) == plain[start : start + size]
    assert device.is_patched(offset, max(length, 1)) is bool(length)
    with pytest.raises(DamagedVolumeError):
        device.write(len(plain) - 1, b"ab")
    with pytest.raises(DamagedVolumeError):
        device.read(len(plain) - 1, 2)
