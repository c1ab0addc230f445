"""Damage and features of ext4 that are refused by name."""

import struct
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem
from tests.support.ext4_images import (
    LOGGED,
    BytesDevice,
    block_of,
    debugfs,
    fixture_bytes,
    journaled,
    make_image,
    make_tree,
    needs_e2fsprogs,
    node_of,
    opened,
    patched,
    run_tool,
    walk,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("ext4"))


def with_superblock(content: bytes, *fields: tuple[int, bytes]) -> BytesDevice:
    superblock = bytearray(content[1024:2048])
    for at, value in fields:
        superblock[at : at + len(value)] = value
    superblock[0x3FC:] = struct.pack("<I", raw_crc32c(bytes(superblock[:0x3FC]), 0xFFFFFFFF))
    device = BytesDevice(content)
    device.patches.append((1024, bytes(superblock)))
    return device


@pytest.mark.parametrize(
    ("bits", "names"), [(0x1, "compression"), (0x1000, "dirdata"), (0x40080000, "0x80000, 0x40000000")]
)
def test_features_that_are_not_read_are_refused_by_name(bits: int, names: str) -> None:
    content = fixture_bytes("ext4_clean")
    (found,) = struct.unpack_from("<I", content, 1024 + 0x60)
    device = with_superblock(content, (0x60, struct.pack("<I", found | bits)))
    with pytest.raises(UnsupportedVolumeError, match=names):
        Ext4FileSystem.open(device)


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0x60, 0x8, UnsupportedVolumeError),
        (0xE4, 0x801, UnsupportedVolumeError),
        (0x18, 9, DamagedVolumeError),
        (0x20, 0, DamagedVolumeError),
        (0x28, 7, DamagedVolumeError),
        (0x4, 0xFFFFFFF0, DamagedVolumeError),
        (0x54, 1, DamagedVolumeError),
    ],
)
def test_a_superblock_that_cannot_be_read_is_refused(at: int, value: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        Ext4FileSystem.open(with_superblock(fixture_bytes("ext4_clean"), (at, struct.pack("<I", value))))


@needs_e2fsprogs
def test_encrypted_files_and_directories_are_refused_and_no_others(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-O", "encrypt")
    paths = ("/few", "/deep/5000.d", "/link700")
    debugfs(image, *(f"set_inode_field {path} flags {flags_of(image, path) | 0x800:#x}" for path in paths))
    filesystem = opened(image)
    for use in (
        lambda: list(filesystem.entries(walk(filesystem, "few"))),
        lambda: list(filesystem.extents(walk(filesystem, "deep/5000.d"))),
        lambda: filesystem.read_link(walk(filesystem, "link700")),
    ):
        with pytest.raises(UnsupportedVolumeError, match="encrypted"):
            use()
    assert list(filesystem.extents(walk(filesystem, "deep/4096.d")))


def flags_of(image: Path, path: str) -> int:
    return int(run_tool("debugfs", "-R", f"stat {path}", image).split("Flags:")[1].split()[0], 16)


@needs_e2fsprogs
def test_maps_that_lead_astray_are_damage(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024", kind="ext3")
    indirect = int(
        run_tool("debugfs", "-R", "stat /deep/400000.d", image).split("(DIND):")[1].split(",")[0].split()[0]
    )
    debugfs(
        image, f"set_inode_field /deep/400000.d block[TIND] {indirect}", "sif /deep/400000.d size 9000000000"
    )
    debugfs(image, "sif /deep/70000.d block[3] 99999999", "sif /few block[0] 0")
    filesystem = opened(image)
    for path, what in (("deep/400000.d", "twice"), ("deep/70000.d", "99999999")):
        with pytest.raises(DamagedVolumeError, match=what):
            list(filesystem.extents(walk(filesystem, path)))
    with pytest.raises(DamagedVolumeError, match="hole"):
        list(filesystem.entries(walk(filesystem, "few")))


@needs_e2fsprogs
@pytest.mark.parametrize("features", ["metadata_csum", "^metadata_csum,uninit_bg"])
def test_a_group_descriptor_that_fails_its_checksum_is_refused(
    tree: Path, tmp_path: Path, features: str
) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024", "-O", features)
    with pytest.raises(DamagedVolumeError, match="descriptor of block group 0 fails its checksum"):
        patched(image, (2048 + 0x10, b"\x77"))


@needs_e2fsprogs
def test_superblocks_and_nodes_that_fail_their_checksums_are_refused(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024")
    with pytest.raises(DamagedVolumeError, match="superblock fails its checksum"):
        patched(image, (1024 + 0x70, b"\x77"))
    filesystem = patched(image, (node_of(image, "/sparse.d") + 500, b"\x77"))
    with pytest.raises(DamagedVolumeError, match="node that fails its checksum"):
        list(filesystem.extents(walk(filesystem, "sparse.d")))
    (tmp_path / "content").write_bytes(LOGGED)
    journaled(image, "-c -v 3", f"journal_write -b {block_of(image, '/deep/70000.d')} {tmp_path / 'content'}")
    with pytest.raises(DamagedVolumeError, match="journal's superblock fails its checksum"):
        patched(image, (image.read_bytes().index(LOGGED) - 2048 + 0x20, b"\x77"))


@needs_e2fsprogs
def test_extents_out_of_order_and_directories_within_themselves_are_damage(
    tree: Path, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024", "-O", "^metadata_csum")
    debugfs(image, "link /few /few/again", "link / /empty/root")
    node, content = node_of(image, "/sparse.d"), image.read_bytes()
    filesystem = patched(image, (node + 12, content[node + 24 : node + 36] + content[node + 12 : node + 24]))
    with pytest.raises(DamagedVolumeError, match="out of order"):
        list(filesystem.extents(walk(filesystem, "sparse.d")))
    for path in ("few", "empty"):
        with pytest.raises(DamagedVolumeError, match="contains itself or the root"):
            list(filesystem.entries(walk(filesystem, path)))
