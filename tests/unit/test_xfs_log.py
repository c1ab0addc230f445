"""What log recovery replays, skips and refuses, on logs made by hand."""

import lzma
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.crc32c import crc32c
from questdb_backup.volumes.xfs.filesystem import XfsFileSystem
from questdb_backup.volumes.xfs.log_bounds import LogBounds, find_bounds
from questdb_backup.volumes.xfs.log_records import LogRegion
from questdb_backup.volumes.xfs.log_replay import replay
from questdb_backup.volumes.xfs.overlay import ReplayedDevice
from questdb_backup.volumes.xfs.superblock import SECTOR, Superblock, read_superblock
from tests.support.made_xfs_log import UNMOUNT, MadeLog, buffer_item, cancel_item, operation, transaction
from tests.support.memory_files import MemoryDevice

FOLDER = Path(__file__).parents[1] / "fixtures" / "filesystems"
BLOCK = 12000
"""A block that nothing uses; its disk address is in sectors."""
ADDRESS = (BLOCK - 8192 + 6144) * 8
FOLDER_DATA = 11
DONE = b"replayed"


@pytest.fixture(scope="module")
def image() -> MemoryDevice:
    return MemoryDevice(bytearray(lzma.decompress((FOLDER / "xfs_dirty.img.xz").read_bytes())))


@pytest.fixture
def device(image: MemoryDevice) -> ReplayedDevice:
    return ReplayedDevice(image)


@pytest.fixture
def superblock(device: ReplayedDevice) -> Superblock:
    return read_superblock(device)


@pytest.fixture
def log(device: ReplayedDevice, superblock: Superblock) -> MadeLog:
    return MadeLog(device, superblock)


def stamped(superblock: Superblock, lsn: int) -> bytes:
    return b"XDD3" + bytes(12) + lsn.to_bytes(8, "big") + superblock.uuid


def changed(address: int = ADDRESS) -> list[bytes]:
    return buffer_item(address, 8, FOLDER_DATA, {1: DONE})


def was_replayed(device: ReplayedDevice, address: int = ADDRESS) -> bool:
    return device.read(address * SECTOR + 128, len(DONE)) == DONE


@pytest.mark.parametrize(("later", "expected"), [(-1, True), (0, False), (1, False)])
def test_a_buffer_is_replayed_unless_it_was_written_back_with_the_transaction_or_later(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog, later: int, expected: bool
) -> None:
    lsn = log.write(transaction(*changed()))
    device.write(ADDRESS * SECTOR, stamped(superblock, lsn + later))
    assert replay(device, superblock)
    assert was_replayed(device) is expected


def test_the_stamp_of_another_file_system_does_not_count(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(*changed()))
    device.write(ADDRESS * SECTOR, stamped(replace(superblock, uuid=b"o" * 16), 9 << 32))
    replay(device, superblock)
    assert was_replayed(device)


def test_a_buffer_is_not_replayed_before_the_last_time_that_it_is_cancelled(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(*changed()))
    log.write(transaction(*cancel_item(ADDRESS, 8)))
    log.write(transaction(*changed(), *cancel_item(ADDRESS, 8)))
    replay(device, superblock)
    assert not was_replayed(device)


def test_a_buffer_is_replayed_after_it_was_cancelled(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(*cancel_item(ADDRESS, 8), *cancel_item(ADDRESS, 16)))
    log.write(transaction(*changed()))
    replay(device, superblock)
    assert was_replayed(device)


def test_a_transaction_that_was_not_committed_cancels_nothing(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(*changed()))
    log.write(transaction(*cancel_item(ADDRESS, 8))[:-1])
    replay(device, superblock)
    assert was_replayed(device)


def test_runs_of_chunks_go_where_the_map_says(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    item = buffer_item(ADDRESS, 8, FOLDER_DATA, {1: b"a", 2: b"b", 5: b"c"})
    together = [item[0], item[1] + item[2], item[3]]
    together[0] = struct.pack("<HH", 0x123C, 3) + item[0][4:]
    for regions in (item, together):
        below = ReplayedDevice(device)
        made = MadeLog(below, superblock)
        made.write(transaction(*regions))
        replay(below, superblock)
        data = below.read(ADDRESS * SECTOR, 1024)
        assert [data[number * 128] for number in (1, 2, 3, 5)] == [*b"ab", 0, *b"c"]


@pytest.mark.parametrize(
    "item",
    [
        buffer_item(ADDRESS, 8, FOLDER_DATA, {31: DONE, 32: DONE}),
        [*buffer_item(ADDRESS, 8, FOLDER_DATA, {1: DONE})[:1], b"short"],
        buffer_item(ADDRESS, 0, FOLDER_DATA, {1: DONE}),
        buffer_item(1 << 40, 8, FOLDER_DATA, {1: DONE}),
        buffer_item(-8, 8, FOLDER_DATA, {1: DONE}),
        [struct.pack("<HH", 0x123C, 1)],
        [struct.pack("<HH", 0x123B, 1)],
        [struct.pack("<HH", 0x123F, 1)],
    ],
)
def test_changes_that_cannot_be_are_damage(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog, item: list[bytes]
) -> None:
    log.write(transaction(*item))
    with pytest.raises(DamagedVolumeError):
        replay(device, superblock)


def created(count: int = 32) -> list[bytes]:
    group, within = ADDRESS // 8 // 6144, ADDRESS // 8 % 6144
    return [struct.pack("<HH", 0x123F, 1) + struct.pack(">IIIIII", group, within, count, 512, count // 8, 77)]


def inode_item(superblock: Superblock, size: int) -> list[bytes]:
    number = (BLOCK << 3) + 1
    head = struct.pack("<HHIHHIQ16sqii", 0x123B, 2, 1, 0, 0, 0, number, b"", ADDRESS, 32, 512)
    core = struct.pack("<HHBB50xQ", 0x494E, 0o100644, 3, 2, size).ljust(152, b"\0")
    return [head, core + number.to_bytes(8, "little") + superblock.uuid]


def size_in_inode(device: ReplayedDevice) -> int:
    return int.from_bytes(device.read(ADDRESS * SECTOR + 512 + 56, 8), "big")


def test_inodes_are_made_and_then_changed(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(*inode_item(superblock, 4321), *created()))
    replay(device, superblock)
    assert size_in_inode(device) == 4321
    free = device.read(ADDRESS * SECTOR + 1024, 160)
    assert (free[:2], free[2:4], free[92:96]) == (b"IN", bytes(2), (77).to_bytes(4, "big"))
    assert free[152:160] == ((BLOCK << 3) + 2).to_bytes(8, "big")


@pytest.mark.parametrize(("later", "expected"), [(-1, 4321), (0, 4321), (1, 0)])
def test_an_inode_is_replayed_unless_it_was_written_back_later(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog, later: int, expected: int
) -> None:
    lsn = log.write(transaction(*inode_item(superblock, 4321)))
    device.write(ADDRESS * SECTOR + 512, b"IN".ljust(112, b"\0") + (lsn + later).to_bytes(8, "big"))
    replay(device, superblock)
    assert size_in_inode(device) == expected


def test_inodes_in_blocks_that_are_freed_later_are_neither_made_nor_changed(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    assert superblock.cluster_blocks == 4
    before = device.read(ADDRESS * SECTOR, 16384)
    log.write(transaction(*created()))
    log.write(transaction(*inode_item(superblock, 4321)))
    log.write(transaction(*cancel_item(ADDRESS, 32)))
    replay(device, superblock)
    assert device.read(ADDRESS * SECTOR, 16384) == before


def test_an_inode_where_there_is_none_is_damage(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(*inode_item(superblock, 4321)))
    with pytest.raises(DamagedVolumeError, match="changes inode 96001"):
        replay(device, superblock)


def intent(kind: int, identity: int) -> bytes:
    return struct.pack("<HHIQ", kind, 1, 0, identity)


@pytest.mark.parametrize("kind", [0x1244, 0x1248])
def test_file_mappings_that_are_half_changed_are_refused(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog, kind: int
) -> None:
    log.write(transaction(intent(kind, 5), intent(kind, 6)))
    log.write(transaction(intent(kind + 1, 5)))
    with pytest.raises(UnsupportedVolumeError, match=r"caught 1 changes of file mappings.* another snapshot"):
        replay(device, superblock)
    log.write(transaction(intent(kind + 1, 6)))
    assert replay(device, superblock)


@pytest.mark.parametrize("kind", [0x1236, 0x1240, 0x1242, 0x1246, 0x123D, 0x123E])
def test_other_intents_and_quotas_do_not_matter(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog, kind: int
) -> None:
    log.write(transaction(intent(kind, 5)))
    assert replay(device, superblock)


def test_items_of_an_unknown_kind_are_refused(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    log.write(transaction(intent(0x1250, 5)))
    with pytest.raises(UnsupportedVolumeError, match="unknown kind 0x1250"):
        replay(device, superblock)


def test_the_superblock_is_read_again_after_the_replay(
    device: ReplayedDevice, superblock: Superblock, log: MadeLog
) -> None:
    device.write(superblock.inode_offset(superblock.root_inode), root_inode(superblock))
    sector = bytearray(device.read(0, SECTOR))
    sector[108:120] = b"grown".ljust(12, b"\0")
    log.write(transaction(*buffer_item(0, 1, 18, {0: bytes(sector[:128])})))
    filesystem = XfsFileSystem.open(device)
    assert (filesystem.label, filesystem.was_dirty) == ("grown", True)
    assert list(filesystem.entries(filesystem.root)) == []


def root_inode(superblock: Superblock) -> bytes:
    inode = bytearray(512)
    inode[:6] = b"IN" + (0o40755).to_bytes(2, "big") + bytes([3, 1])
    inode[56:64] = (6).to_bytes(8, "big")
    inode[152:176] = superblock.root_inode.to_bytes(8, "big") + superblock.uuid
    inode[178:182] = superblock.root_inode.to_bytes(4, "big")
    inode[100:104] = crc32c(bytes(inode)).to_bytes(4, "little")
    return bytes(inode)


# --- head and tail --------------------------------------------------------------------------------------


def bounds(log: MadeLog) -> LogBounds | None:
    return find_bounds(LogRegion(log.device, log.superblock))


def test_an_unmount_record_at_the_head_makes_the_log_clean(log: MadeLog) -> None:
    log.write(transaction(*changed()))
    assert bounds(log) == LogBounds(0, log.position, 1)
    log.write([operation(UNMOUNT, b"unmount.")])
    assert bounds(log) is None
    log.write(transaction(*changed()))
    assert bounds(log) == LogBounds(0, log.position, 1)


@pytest.mark.parametrize("lost", range(1, 4))
def test_the_head_is_before_the_first_record_that_was_not_written(log: MadeLog, lost: int) -> None:
    for number in range(5):
        log.write(transaction(*changed()), torn=number == lost)
    assert bounds(log) == LogBounds(0, log.positions[lost], 1)


def test_more_lost_records_than_are_written_at_once_are_damage(log: MadeLog) -> None:
    for number in range(12):
        log.write(transaction(*changed()), torn=number == 2)
    with pytest.raises(DamagedVolumeError, match="9 records at the head"):
        bounds(log)


@pytest.fixture
def small(superblock: Superblock) -> Superblock:
    """A log of 64 sectors."""
    return replace(superblock, log_blocks=8)


def test_a_log_is_read_around_its_end(device: ReplayedDevice, small: Superblock) -> None:
    log = MadeLog(device, small, cycle=3, position=50 - 64, tail=50 - 64)
    for number in range(4):
        log.write(
            transaction(*changed(ADDRESS + 8 * number), *buffer_item(0, 8, 5, dict.fromkeys(range(31), b"")))
        )
    assert bounds(log) == LogBounds(50 - 64, log.position, 3)
    assert any(block < 0 < end for block, end in zip(log.positions, log.positions[1:], strict=False))
    assert replay(device, small)
    assert all(was_replayed(device, ADDRESS + 8 * number) for number in range(4))


@pytest.mark.parametrize("lost", range(1, 8))
def test_a_record_is_not_whole_without_a_header_block_that_says_nothing(
    device: ReplayedDevice, small: Superblock, lost: int
) -> None:
    log = MadeLog(device, small, cycle=3, position=-24, tail=-24, headers=8)
    for _ in range(3):
        log.write(transaction(*changed()))
    assert (log.positions[2], log.position) == (-6, 3), "its header blocks are around the log's end"
    assert bounds(log) == LogBounds(-24, 3, 3)
    log.lose(-6 + lost)
    found = bounds(log)
    assert found is not None
    assert (found.cycle * log.blocks + found.tail, found.cycle * log.blocks + found.head) == (168, 186)


def test_the_head_is_found_where_the_log_lacks_its_last_block_and_has_the_first_one_anew(
    device: ReplayedDevice, small: Superblock
) -> None:
    log = MadeLog(device, small, cycle=3, position=-20, tail=-20)
    for _ in range(4):
        log.write([operation(0, bytes(7 * SECTOR - 12))])
    assert bounds(log) == LogBounds(-20, 12, 3)
    log.lose(-1)
    assert bounds(log) == LogBounds(44, 60, 2)


def test_a_tail_that_torn_records_lie_over_is_moved(device: ReplayedDevice, small: Superblock) -> None:
    log = MadeLog(device, small, position=-64, tail=-64, cycle=2)
    eight_sectors = [operation(0, bytes(7 * SECTOR - 12))]
    for _ in range(8):
        log.write(eight_sectors)
    log.write(eight_sectors)
    device.write(small.block_offset(small.log_start) + 3 * SECTOR, bytes(SECTOR))
    assert bounds(log) == LogBounds(-56, 0, 2)


def test_a_tail_beyond_the_log_is_damage(log: MadeLog) -> None:
    log.tail = 40
    log.write(transaction(*changed()))
    with pytest.raises(DamagedVolumeError, match=r"tail \(1, 40\)"):
        bounds(log)
