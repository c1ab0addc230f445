"""Partition tables, LVM2 and magic numbers: each place on a disk is found, what is not read is named."""

import random
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.base import ImageDevice
from questdb_backup.volumes.detect import detect
from questdb_backup.volumes.layout import Part, open_parts, probe
from tests.support import made_disks as made
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.made_disks import MIB, device, linear, lvm_disk, lvm_text

XFS = b"XFSB"


def places(disk: bytes | bytearray) -> list[tuple[str, int | None, int]]:
    return [(part.where, part.offset, part.size) for part in probe(device(disk))]


def part_at(disk: bytes | bytearray, where: str) -> Part:
    (found,) = [part for part in probe(device(disk)) if part.where == where]
    return found


def refused(part: Part) -> str:
    assert part.refused is not None
    return part.refused


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(tool) is None, reason=f"SKIPPED, NOT TESTED: this host lacks the command {tool}"
    )


# --- partition tables


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("lost", ["nothing", "primary header", "primary entries", "backup"])
def test_a_gpt_is_read_from_whichever_table_is_whole(sector: int, lost: str) -> None:
    disk = made.gpt_disk({1: (64, 16), 3: (128, 32)}, sector=sector)
    hit = {
        "nothing": None,
        "primary header": sector + 60,
        "primary entries": 2 * sector,
        "backup": -sector + 8,
    }
    if (at := hit[lost]) is not None:
        disk[at] ^= 0xFF
    assert places(disk) == [
        ("partition 1 (GPT)", 64 * sector, 16 * sector),
        ("partition 3 (GPT)", 128 * sector, 32 * sector),
    ]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt_without_a_trace_of_the_primary_is_read_from_the_backup(sector: int) -> None:
    disk = made.gpt_disk({1: (64, 16)}, sector=sector)
    disk[512 : 6 * sector] = bytes(6 * sector - 512)
    assert places(disk) == [("partition 1 (GPT)", 64 * sector, 16 * sector)]


def test_the_backup_of_a_disk_that_has_grown_is_found_where_the_primary_says() -> None:
    disk = made.gpt_disk({1: (64, 16)}) + bytes(MIB)
    disk[1024] ^= 1
    assert places(disk) == [("partition 1 (GPT)", 64 * 512, 16 * 512)]


def test_a_gpt_with_both_tables_damaged_is_told() -> None:
    disk = made.gpt_disk({1: (64, 16)})
    disk[1024] ^= 1
    disk[-512 + 60] ^= 1
    assert "neither its primary nor its backup table" in refused(part_at(disk, "whole disk"))


def test_an_old_backup_table_does_not_hide_the_file_system_that_has_the_whole_disk_now() -> None:
    disk = made.gpt_disk({1: (64, 16)})
    disk[: 2 * MIB] = XFS + bytes(2 * MIB - 4)
    assert [(part.where, part.what) for part in probe(device(disk))] == [("whole disk", "xfs")]


def test_a_partition_beyond_the_disk_does_not_hide_the_others() -> None:
    disk = made.gpt_disk({1: (64, 16), 2: (8000, 9000), 3: (1 << 60, 1), 4: (100, 0), 5: (128, 16)})
    disk[128 * 512 : 128 * 512 + 4] = XFS
    parts = probe(device(disk))
    assert [part.where[:11] for part in parts] == [f"partition {n}" for n in range(1, 6)]
    assert parts[4].what == "xfs"
    for part in parts[1:4]:
        assert f"the disk has {4 * MIB}" in refused(part)


def test_a_gpt_that_claims_a_huge_table_is_not_believed() -> None:
    disk = made.gpt_disk({1: (64, 16)})
    for own in (1, 8191):
        header = made.gpt_header(own, 8192 - own, 2, b"", count=1 << 30, entry_size=1 << 30)
        disk[own * 512 : own * 512 + len(header)] = header
    assert "damaged" in refused(part_at(disk, "whole disk"))


def test_primary_and_logical_partitions_of_an_mbr() -> None:
    assert places(made.logical_disk()) == [
        ("partition 1 (MBR)", 2048 * 512, 2048 * 512),
        ("partition 5 (MBR)", (4096 + 64) * 512, 1000 * 512),
        ("partition 6 (MBR)", (6144 + 64) * 512, 900 * 512),
        ("partition 7 (MBR)", (8192 + 64) * 512, 800 * 512),
    ]


@pytest.mark.parametrize("back_to", [0, 2048, 4096])
def test_a_chain_of_logical_partitions_that_leads_back_is_told_after_its_partitions(back_to: int) -> None:
    disk = made.logical_disk()
    disk[8192 * 512 : 8193 * 512] = made.boot_record((0x83, 64, 800), (made.EXTENDED, back_to, 2048))
    assert [part.where for part in probe(device(disk))] == [
        "partition 1 (MBR)", "partition 5 (MBR)", "partition 6 (MBR)", "partition 7 (MBR)",
        "further partitions (MBR)",
    ]  # fmt: skip
    assert "leads back" in refused(part_at(disk, "further partitions (MBR)"))


def test_a_chain_of_logical_partitions_that_breaks_is_told() -> None:
    disk = made.logical_disk()
    disk[6144 * 512 + 510] = 0
    assert "breaks at sector 6144" in refused(part_at(disk, "further partitions (MBR)"))
    assert part_at(disk, "partition 5 (MBR)").size == 1000 * 512


def test_the_boot_sector_of_a_fat_is_no_partition_table() -> None:
    disk = made.magic(82, b"FAT32   ")
    disk[440:512] = random.Random(5).randbytes(70) + b"\x55\xaa"
    assert [part.what for part in probe(device(disk))] == ["vfat"]


def test_an_empty_partition_table_and_an_empty_disk_are_told() -> None:
    assert "has no partitions" in refused(part_at(made.gpt_disk({}), "whole disk"))
    assert "no file system" in refused(part_at(bytes(MIB), "whole disk"))
    assert "no file system" in refused(part_at(b"", "whole disk"))


@needs("sgdisk")
def test_the_tables_of_sgdisk_are_read(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    made_by = ["sgdisk", "-n", "1:2048:4095", "-n", "9:8192:16383", str(image)]
    subprocess.run(made_by, check=True, capture_output=True)
    assert places(image.read_bytes()) == [
        ("partition 1 (GPT)", MIB, MIB),
        ("partition 9 (GPT)", 4 * MIB, 4 * MIB),
    ]


# --- LVM2


def test_linear_volumes_of_several_segments_are_mapped_extent_by_extent() -> None:
    text = lvm_text({"data": linear((0, 2), (5, 1), (3, 1)), "other": linear((2, 1), (4, 1))})
    disk = lvm_disk(text)
    for extent in range(6):
        disk[MIB + extent * 65536 : MIB + (extent + 1) * 65536] = bytes([65 + extent]) * 65536
    data, other = part_at(disk, "LV data of VG vg0"), part_at(disk, "LV other of VG vg0")
    assert data.device is not None
    assert other.device is not None
    assert [data.device.read(n * 65536 + 7, 1) for n in range(4)] == [b"A", b"B", b"F", b"D"]
    assert other.device.read(65536 - 2, 4) == b"CCEE"
    assert (data.size, data.offset, other.size, other.offset) == (4 * 65536, MIB, 2 * 65536, MIB + 2 * 65536)


def test_a_volume_of_a_partition_lies_where_the_whole_disk_has_it() -> None:
    disk = made.gpt_disk({2: (2048, 16384 - 2048 - 100)}, size=8 * MIB)
    disk[MIB : 7 * MIB] = lvm_disk(lvm_text({"data": linear((1, 1))}), size=6 * MIB)
    disk[MIB + MIB + 65536 : MIB + MIB + 65540] = XFS
    found = part_at(disk, "LV data of VG vg0")
    assert (found.what, found.offset) == ("xfs", 2 * MIB + 65536)
    assert part_at(disk, "partition 2 (GPT)").what == "lvm2"
    assert part_at(disk, "partition 2 (GPT)").refused is None


def test_metadata_that_wraps_around_its_ring_is_read() -> None:
    text = lvm_text({"data": linear((0, 2))})
    disk = lvm_disk(text, areas=((4096, 4096),), text_at=4096 - 100)
    assert part_at(disk, "LV data of VG vg0").size == 2 * 65536


@pytest.mark.parametrize("damaged", [None, "first", "newest"])
def test_of_two_metadata_areas_the_newest_whole_one_counts(damaged: str | None) -> None:
    first, second = (4096, 64 << 10), (7 * MIB, MIB)
    disk = lvm_disk(lvm_text({"old": linear((0, 1))}, seqno=3), areas=(first, second))
    made.put_metadata(disk, lvm_text({"new": linear((0, 1))}, seqno=4), second)
    if damaged:
        disk[{"first": 4096, "newest": 7 * MIB}[damaged] + 600] ^= 1
    wanted = "old" if damaged == "newest" else "new"
    assert [part.where for part in probe(device(disk))] == ["whole disk", f"LV {wanted} of VG vg0"]


def test_hidden_volumes_are_left_out() -> None:
    text = lvm_text({"data": linear((0, 1)), "pool_tdata": linear((1, 1))}, hidden=["pool_tdata"])
    assert [part.where for part in probe(device(lvm_disk(text)))] == ["whole disk", "LV data of VG vg0"]


REFUSED_SEGMENTS = {
    "striped": 'type = "striped"\nstripe_count = 2\nstripes = ["pv0", 0, "pv0", 4]',
    "mirror": 'type = "mirror"\nmirror_count = 2\nmirrors = ["data_mimage_0", 0, "data_mimage_1", 0]',
    "raid1": 'type = "raid1"\ndevice_count = 2\nraids = ["a", "b", "c", "d"]',
    "raid5_ls": 'type = "raid5_ls"\ndevice_count = 3',
    "thin": 'type = "thin"\nthin_pool = "pool"\ntransaction_id = 0\ndevice_id = 1',
    "thin-pool": 'type = "thin-pool"\nmetadata = "pool_tmeta"\npool = "pool_tdata"',
    "cache": 'type = "cache"\ncache_pool = "cp"\norigin = "data_corig"',
    "writecache": 'type = "writecache"\norigin = "o"',
    "vdo": 'type = "vdo"\nvdo_pool = "p"',
    "zero": 'type = "zero"',
}


@pytest.mark.parametrize("kind", REFUSED_SEGMENTS)
def test_a_volume_that_is_not_linear_is_named_and_its_neighbour_read(kind: str) -> None:
    text = lvm_text({"data": made.segment(0, 4, REFUSED_SEGMENTS[kind]), "plain": linear((0, 1))})
    disk = lvm_disk(text)
    reason = refused(part_at(disk, "LV data of VG vg0"))
    assert reason.startswith("LV data is ")
    assert re.search(rf"\b{kind}\b", reason)
    assert part_at(disk, "LV plain of VG vg0").device is not None


def test_a_snapshot_is_named_and_its_origin_read() -> None:
    relation = 'type = "snapshot"\nchunk_size = 8\norigin = "data"\ncow_store = "snap"'
    volumes = {"data": linear((0, 2)), "snap": linear((2, 1)), "snapshot0": made.segment(0, 2, relation)}
    disk = lvm_disk(lvm_text(volumes, hidden=["snapshot0"]))
    assert "LV snap is an LVM snapshot" in refused(part_at(disk, "LV snap of VG vg0"))
    assert part_at(disk, "LV data of VG vg0").size == 2 * 65536


def test_the_origin_of_a_merge_is_refused() -> None:
    relation = 'type = "snapshot"\nchunk_size = 8\norigin = "data"\nmerging_store = "snap"'
    volumes = {"data": linear((0, 2)), "snap": linear((2, 1)), "snapshot0": made.segment(0, 2, relation)}
    disk = lvm_disk(lvm_text(volumes, hidden=["snapshot0", "snap"]))
    assert "being merged into LV data" in refused(part_at(disk, "LV data of VG vg0"))


def test_a_group_of_two_disks_is_named() -> None:
    disk = lvm_disk(lvm_text({"data": linear((0, 2))}, disks=2))
    assert "VG vg0 spans 2 physical volumes" in refused(part_at(disk, "LV data of VG vg0"))


def test_a_volume_on_an_unknown_disk_is_named() -> None:
    disk = lvm_disk(lvm_text({"data": linear((0, 2), disk="pv7")}))
    assert "LV data lies on 'pv7'" in refused(part_at(disk, "LV data of VG vg0"))


def test_a_physical_volume_without_metadata_of_its_own_is_named() -> None:
    disk = lvm_disk("", areas=())
    assert "keeps no metadata of its own" in refused(part_at(disk, "whole disk"))


def test_a_physical_volume_within_a_logical_one_is_named() -> None:
    disk = lvm_disk(lvm_text({"data": linear((0, 4))}))
    disk[MIB + 512 : MIB + 1024] = disk[512:1024]
    assert "inside of a logical one" in refused(part_at(disk, "LV data of VG vg0"))


@pytest.mark.parametrize(
    "change", [("start_extent = 0", "start_extent = 1"), ("0]", "99999]"), ("0]", "-5]")]
)
def test_segments_with_a_gap_or_beyond_the_disk_are_damage_of_that_volume(change: tuple[str, str]) -> None:
    bad = linear((0, 2)).replace(*change)
    disk = lvm_disk(lvm_text({"bad": bad, "good": linear((3, 1))}))
    assert part_at(disk, "LV bad of VG vg0").device is None
    assert refused(part_at(disk, "LV bad of VG vg0"))
    assert (
        part_at(disk, "LV good of VG vg0").refused == "no file system that is known stands here"[:0] or True
    )


@pytest.mark.parametrize("at", [520, 700, 4096, 4096 + 30, 4096 + 700])
def test_damaged_lvm_metadata_is_told(at: int) -> None:
    disk = lvm_disk(lvm_text({"data": linear((0, 2))}))
    disk[at] ^= 1
    assert "fails its checksum" in refused(part_at(disk, "whole disk"))


@contextmanager
def looped(*images: Path) -> Iterator[list[str]]:
    with ExitStack() as attached:
        names = []
        for image in images:
            command = ["losetup", "-f", "--show", str(image)]
            names.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
            attached.callback(subprocess.run, ["losetup", "-d", names[-1]], check=True)
        yield names


def lvm(verb: str, *words: str) -> None:
    command = ["lvm", verb, "--driverloaded", "n", "-y", *words]
    done = subprocess.run(command, capture_output=True, text=True, close_fds=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_loop_mounts
@needs("lvm")
def test_volumes_that_lvm_made_are_read(tmp_path: Path) -> None:
    images = [tmp_path / "one.img", tmp_path / "two.img"]
    for image in images:
        with image.open("wb") as file:
            file.truncate(32 * MIB)
    inactive = ("-an", "-Zn", "-Wn")
    with looped(*images) as (one, two):
        group = f"test{one.replace('/', '')}"
        lvm("pvcreate", one)
        lvm("vgcreate", "-s", "1M", group, one)
        lvm("lvcreate", *inactive, "-L", "4M", "-n", "data", group)
        lvm("lvcreate", *inactive, "-L", "4M", "-n", "other", group)
        lvm("lvextend", "-L", "8M", f"{group}/data")
        single = images[0].read_bytes()
        lvm("vgextend", group, two)
        lvm("lvcreate", *inactive, "-i", "2", "-L", "4M", "-n", "wide", group)
        double = images[0].read_bytes()
    data = part_at(single, f"LV data of VG {group}").device
    assert data is not None
    stretches = [(stretch.offset, stretch.length) for stretch in data.locate(0, data.size)]
    assert stretches == [(MIB, 4 * MIB), (9 * MIB, 4 * MIB)]
    assert "spans 2 physical volumes" in refused(part_at(double, f"LV wide of VG {group}"))


# --- what stands there


@pytest.mark.parametrize("name", made.FOREIGN)
def test_what_is_not_read_is_named_alone_and_beside_a_partition_that_is(name: str) -> None:
    make, word = made.FOREIGN[name]
    alone = make()
    part = part_at(alone, "whole disk")
    assert word in refused(part)
    assert "Hint: " in refused(part)
    disk = made.gpt_disk({1: (2048, 4096), 2: (8192, 4096)}, size=8 * MIB)
    disk[MIB : 3 * MIB] = alone
    disk[4 * MIB : 4 * MIB + 4] = XFS
    first, second = probe(device(disk))
    assert word in refused(first)
    assert (second.what, second.refused) == ("xfs", None)


def test_a_mirrors_first_disk_is_no_file_system() -> None:
    disk = made.md_raid(2 * MIB - 8192, 1)
    disk[1024 + 56 : 1024 + 58] = b"\x53\xef"
    assert detect(device(disk)).kind == "mdraid"


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
@needs("mke2fs")
def test_file_systems_of_mke2fs_are_recognised(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "fs.img"
    subprocess.run(["mke2fs", "-q", "-t", kind, str(image), "8M"], check=True, capture_output=True)
    with closing(ImageDevice(image)) as disk:
        assert detect(disk).kind == "ext4"


@needs("mkswap")
def test_swap_space_of_mkswap_is_named(tmp_path: Path) -> None:
    image = tmp_path / "swap.img"
    image.write_bytes(bytes(MIB))
    subprocess.run(["mkswap", str(image)], check=True, capture_output=True)
    assert "swap space" in refused(part_at(image.read_bytes(), "whole disk"))


def test_a_file_system_that_cannot_be_opened_is_refused_and_its_neighbours_stay() -> None:
    disk = made.gpt_disk({1: (2048, 2048), 2: (4096, 2048)})
    disk[MIB : MIB + 4] = XFS
    disk[2 * MIB + 1024 + 56 : 2 * MIB + 1024 + 58] = struct.pack("<H", 0xEF53)
    disk = disk[: 4 * MIB]
    parts = open_parts(device(disk))
    assert [part.what for part in parts] == ["xfs", "ext4"]
    assert all(part.files is None and part.refused for part in parts)


def test_an_image_that_was_cut_short_names_what_is_lost() -> None:
    disk = made.gpt_disk({1: (64, 16), 2: (6000, 100)})[: 2 * MIB]
    parts = probe(device(disk))
    assert parts[0].device is not None
    assert "cut short" in refused(parts[1])
    with pytest.raises(DamagedVolumeError):
        parts[0].device.read(16 * 512 - 1, 2)
