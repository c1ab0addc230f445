"""Disks made byte by byte: partition tables, LVM2 physical volumes, other systems' magic numbers."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from tests.support.memory_files import MemoryDevice

MIB = 1 << 20
LINUX_DATA = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
EXTENDED = 0x05
Place = tuple[int, int]
"""First sector and count of sectors."""


def device(data: bytes | bytearray) -> MemoryDevice:
    return MemoryDevice(bytearray(data))


def gpt_disk(places: Mapping[int, Place], *, size: int = 4 * MIB, sector: int = 512) -> bytearray:
    """A disk with a protective MBR and both tables; ``places`` by partition number."""
    disk = bytearray(size)
    disk[446:512] = struct.pack("<B3sB3sII", 0, b"", 0xEE, b"", 1, 0xFFFFFFFF) + bytes(48) + b"\x55\xaa"
    entries = bytearray(128 * 128)
    for number, (first, count) in places.items():
        row = struct.pack("<16s16sQQQ72s", LINUX_DATA, bytes([number] * 16), first, first + count - 1, 0, b"")
        entries[(number - 1) * 128 : number * 128] = row
    last, table = size // sector - 1, len(entries) // sector
    for own, other, at in ((1, last, 2), (last, 1, last - table)):
        disk[at * sector : at * sector + len(entries)] = entries
        header = gpt_header(own, other, at, bytes(entries))
        disk[own * sector : own * sector + len(header)] = header
    return disk


def gpt_header(
    own: int, other: int, entries_at: int, entries: bytes, *, count: int = 128, entry_size: int = 128
) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            b"EFI PART", 0x10000, 92, checksum, 0, own, other, 34, 0, bytes(16),
            entries_at, count, entry_size, zlib.crc32(entries),
        )  # fmt: skip

    return packed(zlib.crc32(packed(0)))


def boot_record(*entries: tuple[int, int, int]) -> bytes:
    """A master boot record, or one of the chain: kind, first sector, count of sectors."""
    rows = [struct.pack("<B3sB3sII", 0, b"", kind, b"", first, count) for kind, first, count in entries]
    return bytes(446) + b"".join(rows).ljust(64, b"\0") + b"\x55\xaa"


def logical_disk() -> bytearray:
    """A primary partition, and an extended one with three logical ones."""
    disk = bytearray(8 * MIB)
    disk[:512] = boot_record((0x83, 2048, 2048), (EXTENDED, 4096, 8192))
    for at, own, following in ((0, 1000, 2048), (2048, 900, 4096), (4096, 800, 0)):
        chained = [(EXTENDED, following, 2048)] if following else []
        disk[(4096 + at) * 512 : (4097 + at) * 512] = boot_record((0x83, 64, own), *chained)
    return disk


def lvm_crc(data: bytes) -> int:
    return ~zlib.crc32(data, ~0xF597A6CF & 0xFFFFFFFF) & 0xFFFFFFFF


def lvm_disk(
    text: str | bytes,
    *,
    size: int = 8 * MIB,
    text_at: int = 512,
    areas: Sequence[Place] = ((4096, MIB - 4096),),
) -> bytearray:
    """A physical volume whose areas (offset, size) hold this text from ``text_at`` on, wrapped."""
    disk = bytearray(size)
    put_label(disk, areas)
    for area in areas:
        put_metadata(disk, text, area, text_at)
    return disk


def put_label(disk: bytearray, areas: Sequence[Place]) -> None:
    rows = [(MIB, 0), (0, 0), *areas, (0, 0)]
    header = b"u" * 32 + struct.pack("<Q", len(disk)) + b"".join(struct.pack("<QQ", *row) for row in rows)
    checked = (struct.pack("<I8s", 32, b"LVM2 001") + header).ljust(492, b"\0")
    disk[512:1024] = struct.pack("<8sQI", b"LABELONE", 1, lvm_crc(checked)) + checked


def put_metadata(disk: bytearray, text: str | bytes, area: Place, text_at: int = 512) -> None:
    raw = text.encode() if isinstance(text, str) else text
    start, size = area
    checked = struct.pack("<16sIQQ", b" LVM2 x[5A%r0N*>", 1, start, size)
    checked = (checked + struct.pack("<QQII", text_at, len(raw), lvm_crc(raw), 0)).ljust(508, b"\0")
    disk[start : start + 512] = struct.pack("<I", lvm_crc(checked)) + checked
    before_end = min(len(raw), size - text_at)
    disk[start + text_at : start + text_at + before_end] = raw[:before_end]
    disk[start + 512 : start + 512 + len(raw) - before_end] = raw[before_end:]


def segment(first: int, count: int, body: str) -> str:
    return f"segment1 {{ start_extent = {first}\nextent_count = {count}\n{body} }}\n"


def linear(*pieces: tuple[int, int], disk: str = "pv0") -> str:
    """Segments of a linear volume: physical extent and count of extents each."""
    made, at = "", 0
    for number, (extent, count) in enumerate(pieces, 1):
        place = f'type = "striped"\nstripe_count = 1\nstripes = ["{disk}", {extent}]'
        made += segment(at, count, place).replace("segment1", f"segment{number}")
        at += count
    return made


def lvm_text(
    volumes: Mapping[str, str], *, disks: int = 1, hidden: Sequence[str] = (), seqno: int = 7
) -> str:
    """Metadata of the group vg0 with extents of 64 KiB, the first at 1 MiB."""
    places = "".join(
        f'pv{n} {{ id = "uuid{n}"\ndevice = "/dev/sd{n}"\npe_start = 2048\npe_count = 100 }}\n'
        for n in range(disks)
    )
    made = ""
    for name, segments in volumes.items():
        status = '"READ", "WRITE"' + ("" if name in hidden else ', "VISIBLE"')
        made += f'{name} {{ id = "x"\nstatus = [{status}]\nflags = []\n{segments} }}\n'
    return (
        f'vg0 {{\nid = "y"\nseqno = {seqno}\nformat = "lvm2" # informational\nstatus = ["READ", "WRITE"]\n'
        f"flags = []\nextent_size = 128\nphysical_volumes {{ {places} }}\n"
        f"logical_volumes {{ {made} }}\n}}\n"
        '# Generated by LVM2\ncontents = "Text Format Volume Group"\nversion = 1\n'
        'description = "a \\"quoted\\" word"\n\0'
    )


def magic(offset: int, data: bytes, *, size: int = 2 * MIB) -> bytearray:
    disk = bytearray(size)
    disk[offset : offset + len(data)] = data
    return disk


def md_raid(offset: int, major: int, *, size: int = 2 * MIB) -> bytearray:
    head = struct.pack("<IIII16s32s", 0xA92B4EFC, major, 0, 0, b"", b"host:7" if major else b"")
    return magic(offset, head.ljust(128, b"\0"), size=size)


def zfs_disk(pool: str) -> bytearray:
    """The first label only: a list of a number and the pool's name, and one uberblock."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack(">I", len(raw)) + raw.ljust(-len(raw) % 4 + len(raw), b"\0")

    def pair(name: str, kind: int, value: bytes) -> bytes:
        body = text(name) + struct.pack(">II", kind, 1) + value
        return struct.pack(">II", len(body) + 8, 0) + body

    disk = magic((128 << 10) + 3 * 1024, struct.pack("<Q", 0x00BAB10C))
    pairs = bytes((1, 1, 0, 0)) + struct.pack(">II", 0, 1)
    pairs += pair("version", 8, struct.pack(">Q", 5000)) + pair("name", 9, text(pool))
    disk[16 << 10 : (16 << 10) + len(pairs)] = pairs
    return disk


FOREIGN: dict[str, tuple[Callable[[], bytearray], str]] = {
    "btrfs": (lambda: magic(0x10040, b"_BHRfS_M"), "btrfs"),
    "ntfs": (lambda: magic(3, b"NTFS    "), "NTFS"),
    "exfat": (lambda: magic(3, b"EXFAT   "), "exFAT"),
    "fat32": (lambda: magic(82, b"FAT32   "), "FAT"),
    "fat16": (lambda: magic(54, b"FAT16   "), "FAT"),
    "luks": (lambda: magic(0, b"LUKS\xba\xbe\0\2"), "LUKS"),
    "bcache": (lambda: magic(4120, UUID("c68573f6-4e1a-45ca-8265-f57f48ba6d81").bytes), "bcache"),
    "md 1.1": (lambda: md_raid(0, 1), "host:7"),
    "md 1.2": (lambda: md_raid(4096, 1), "mdraid"),
    "md 1.0": (lambda: md_raid(2 * MIB - 8192, 1), "mdraid"),
    "md 0.90": (lambda: md_raid(2 * MIB - 65536, 0), "mdraid"),
    "swap": (lambda: magic(4086, b"SWAPSPACE2"), "swap"),
    "swap, 64 KiB pages": (lambda: magic(65526, b"SWAPSPACE2"), "swap"),
    "zfs": (lambda: zfs_disk("tank"), "'tank'"),
}
"""Disks that are recognised and refused, and the word that the reason must have."""
