"""The ext4 reader on images that mke2fs and debugfs make, and on copies of file systems in use."""

import json
import os
import struct
from contextlib import closing
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Extent, ImageDevice, Node
from questdb_backup.volumes.crc32c import raw_crc32c
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem
from tests.support.ext4_images import (
    FIXTURES,
    BytesDevice,
    debugfs,
    fixture_bytes,
    make_image,
    make_tree,
    needs_e2fsprogs,
    run_tool,
)
from tests.support.volume_views import View, differences, view_of, view_of_folder

VARIANTS: dict[str, tuple[str, ...]] = {
    "4k": ("-b", "4096"),
    "2k": ("-b", "2048"),
    "1k": ("-b", "1024"),
    "64k": ("-b", "65536"),
    "ext3": ("-b", "1024"),
    "ext2": ("-b", "1024"),
    "ext2 of revision 0": ("-b", "1024", "-r", "0", "-O", "none"),
    "no metadata_csum": ("-O", "^metadata_csum,uninit_bg"),
    "no checksums": ("-b", "1024", "-O", "^metadata_csum,^uninit_bg"),
    "no 64bit": ("-b", "1024", "-O", "^64bit"),
    "no flex_bg": ("-b", "1024", "-O", "^flex_bg", "-g", "1024"),
    "inline_data": ("-O", "inline_data", "-I", "256"),
    "inline_data of large inodes": ("-O", "inline_data", "-I", "1024"),
    "bigalloc": ("-O", "bigalloc", "-C", "16384"),
    "bigalloc 1k": ("-b", "1024", "-O", "bigalloc", "-C", "4096"),
    "meta_bg": ("-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "512"),
    "meta_bg 64bit": ("-b", "1024", "-O", "meta_bg,^resize_inode,64bit", "-g", "256"),
    "bigalloc meta_bg 1k": ("-b", "1024", "-O", "bigalloc,meta_bg,^resize_inode", "-C", "4096"),
    "sparse_super2": ("-b", "1024", "-O", "sparse_super2,meta_bg,^resize_inode", "-g", "512"),
    "128-byte inodes": ("-I", "128"),
    "no file types": ("-O", "^filetype"),
    "no journal": ("-O", "^has_journal"),
    "rare features": ("-O", "large_dir,ea_inode,mmp,orphan_file,metadata_csum_seed,verity,project,quota"),
    "casefold": ("-O", "casefold"),
    "fast_commit": ("-O", "fast_commit"),
    "encrypt": ("-O", "encrypt"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("ext4"))


def opened(image: Path) -> Ext4FileSystem:
    return Ext4FileSystem.open(BytesDevice(image.read_bytes()))


def expected_of(tree: Path) -> View:
    return {**view_of_folder(tree), "lost+found": ("d", 0, "")}


def walk(filesystem: Ext4FileSystem, path: str) -> Node:
    node: Node | None = filesystem.root
    for name in path.split("/"):
        assert node is not None
        node = filesystem.find(node, name)
    assert node is not None
    return node


@needs_e2fsprogs
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_holds_what_mke2fs_was_given(tree: Path, tmp_path: Path, variant: str) -> None:
    options = VARIANTS[variant]
    size = 400 << 20 if "65536" in options else 24 << 20
    kind = variant.split()[0] if variant.startswith("ext") else "ext4"
    if "inline_data" in options:  # mke2fs forgets about the holes at the ends of files there.
        tree = make_tree(tmp_path, holes=False)
    image = make_image(tmp_path / "image", tree, *options, kind=kind, size=size)
    with closing(ImageDevice(image)) as device:
        filesystem = Ext4FileSystem.open(device)
        assert not differences(expected_of(tree), view_of(filesystem))
    assert (filesystem.kind, filesystem.label, filesystem.was_dirty) == ("ext4", "measured", False)
    assert filesystem.uuid in run_tool("debugfs", "-R", "show_super_stats -h", image)


@pytest.mark.parametrize(("name", "was_dirty"), [("ext4_clean", False), ("ext4_dirty", True)])
def test_a_copy_of_a_mounted_file_system_is_read_as_the_kernel_shows_it(name: str, was_dirty: bool) -> None:
    filesystem = Ext4FileSystem.open(BytesDevice(fixture_bytes(name)))
    kernel = json.loads((FIXTURES / f"{name}.json").read_text())
    assert not differences({path: tuple(seen) for path, seen in kernel.items()}, view_of(filesystem))
    assert filesystem.was_dirty is was_dirty


@needs_e2fsprogs
def test_directories_with_a_hash_tree_are_read(tree: Path, tmp_path: Path) -> None:
    for number, block_size in enumerate(("1024", "4096")):
        image = make_image(tmp_path / f"image{number}", tree, "-b", block_size)
        run_tool("e2fsck", "-fyD", image, may_fail=True)
        assert "Flags: 0x81000" in run_tool("debugfs", "-R", "stat /many", image)
        assert not differences(expected_of(tree), view_of(opened(image)))


@needs_e2fsprogs
def test_nodes_tell_kind_mode_and_size_and_names_are_found(tree: Path, tmp_path: Path) -> None:
    filesystem = opened(make_image(tmp_path / "image", tree))
    assert walk(filesystem, "deep/400.d").mode == 0o4751
    pipe = walk(filesystem, "pipe")
    assert (pipe.kind, pipe.size) == (EntryKind.OTHER, 0)
    assert walk(filesystem, "hardlink") == walk(filesystem, "deep/5000.d")
    assert filesystem.find(filesystem.root, "nothing") is None
    assert filesystem.read_link(walk(filesystem, "link700")) == "t" * 700
    with pytest.raises(NotADirectoryError):
        list(filesystem.entries(pipe))
    with pytest.raises(OSError, match="not a symlink"):
        filesystem.read_link(pipe)


@needs_e2fsprogs
def test_holes_and_reserved_blocks_are_left_out_of_the_extents(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024")
    debugfs(image, "fallocate /deep/5000.d 0 40", "set_inode_field /deep/5000.d size 30000")
    filesystem = opened(image)
    (written,) = filesystem.extents(walk(filesystem, "deep/5000.d"))
    assert (written.start, written.length, written.data) == (0, 5 * 1024, None)
    sparse = list(filesystem.extents(walk(filesystem, "sparse.d")))
    assert [(extent.start, extent.length) for extent in sparse] == [
        (at * 1024, 1024) for at in range(3, 200, 2)
    ]
    assert list(filesystem.extents(walk(filesystem, "deep/0.d"))) == []
    assert list(filesystem.extents(filesystem.root)) == []


@needs_e2fsprogs
def test_adjacent_blocks_are_one_extent_that_ends_with_the_file(tree: Path, tmp_path: Path) -> None:
    for kind in ("ext4", "ext2"):
        filesystem = opened(make_image(tmp_path / kind, tree, "-b", "1024", kind=kind))
        extents = list(filesystem.extents(walk(filesystem, "deep/400000.d")))
        assert len(extents) <= 4
        assert extents[-1].start + extents[-1].length == 400_000


@needs_e2fsprogs
def test_inline_data_comes_with_its_extent(tree: Path, tmp_path: Path) -> None:
    filesystem = opened(make_image(tmp_path / "image", tree, "-O", "inline_data"))
    content = (tree / "deep" / "59.d").read_bytes()
    assert list(filesystem.extents(walk(filesystem, "deep/59.d"))) == [Extent(0, 59, 0, content)]


JOURNALS = {
    "no checksums": ("^metadata_csum,^64bit", ""),
    "64bit": ("^metadata_csum,64bit", ""),
    "checksum v2": ("^64bit", "-c -v 2"),
    "checksum v2 64bit": ("64bit", "-c -v 2"),
    "checksum v3": ("^64bit", "-c -v 3"),
    "checksum v3 64bit": ("64bit", "-c -v 3"),
}
LOGGED = b"logged, ".ljust(1024, b".")
ESCAPED = struct.pack(">I", 0xC03B3998)


def block_of(image: Path, path: str, number: int = 0) -> int:
    return int(run_tool("debugfs", "-R", f"bmap {path} {number}", image).split()[-1])


def journaled(image: Path, opening: str, *transactions: str) -> Path:
    """Write transactions into a journal without replaying them, as an unclean stop would leave them."""
    debugfs(image, f"journal_open {opening}", *transactions, "journal_close")
    return image


@needs_e2fsprogs
@pytest.mark.parametrize("variant", JOURNALS)
def test_blocks_in_a_journal_of_every_version_are_taken_from_there(
    tree: Path, tmp_path: Path, variant: str
) -> None:
    features, opening = JOURNALS[variant]
    image = make_image(tmp_path / "image", tree, "-b", "1024", "-O", features, size=32 << 20)
    blocks = [block_of(image, "/deep/70000.d", number) for number in range(3)]
    contents = [LOGGED, ESCAPED.ljust(1024, b","), b"revoked".ljust(1024, b"-")]
    paths = [tmp_path / f"content{number}" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    both = tmp_path / "both"
    both.write_bytes(contents[0] + contents[1])
    journaled(
        image,
        opening,
        f"journal_write -b {blocks[2]} {paths[2]}",
        f"journal_write -b {blocks[0]} {paths[1]}",
        f"journal_write -r {blocks[2]}",
        f"journal_write -b {blocks[0]},{blocks[1]} {both}",
    )
    before = (tree / "deep" / "70000.d").read_bytes()
    filesystem = opened(image)
    assert filesystem.was_dirty
    extents = list(filesystem.extents(walk(filesystem, "deep/70000.d")))
    assert [extent.data for extent in extents[:2]] == contents[:2]
    assert extents[2].data is None
    assert sum(extent.length for extent in extents) == len(before)
    own = view_of(filesystem)
    run_tool("e2fsck", "-E", "journal_only", "-fy", image, may_fail=True)
    replayed = opened(image)
    assert not replayed.was_dirty
    assert not differences(view_of(replayed), own)


@needs_e2fsprogs
def test_a_block_in_the_last_part_of_a_file_is_cut_at_its_size(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024")
    (tmp_path / "content").write_bytes(b"L" * 1024)
    last = block_of(image, "/deep/5000.d", 4)
    journaled(image, "-c -v 3", f"journal_write -b {last} {tmp_path / 'content'}")
    filesystem = opened(image)
    *_, extent = filesystem.extents(walk(filesystem, "deep/5000.d"))
    assert (extent.start, extent.length, extent.data) == (4096, 904, b"L" * 904)


@needs_e2fsprogs
def test_an_open_transaction_is_left_out_and_a_damaged_one_is_refused(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024")
    (tmp_path / "content").write_bytes(LOGGED)
    block = block_of(image, "/deep/70000.d")
    journaled(image, "-c -v 3", f"journal_write -b {block} {tmp_path / 'content'}")
    content = image.read_bytes()
    logged = content.index(LOGGED)

    def first_data(patch: tuple[int, bytes]) -> bytes | None:
        device = BytesDevice(content)
        device.patches.append(patch)
        filesystem = Ext4FileSystem.open(device)
        return next(filesystem.extents(walk(filesystem, "deep/70000.d"))).data

    assert first_data((0, b"")) == LOGGED
    assert first_data((logged + 1024, bytes(1024))) is None, "its commit block is lost"
    with pytest.raises(DamagedVolumeError, match="fails its checksum"):
        first_data((logged + 5, b"x"))
    with pytest.raises(DamagedVolumeError, match="fails its checksum"):
        first_data((logged + 1024 + 0x10, b"1234"))
    with pytest.raises(DamagedVolumeError, match="fails its checksum"):
        first_data((logged - 1, b"x"))


@needs_e2fsprogs
def test_a_journal_that_goes_around_for_ever_comes_to_an_end(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024", "-O", "^metadata_csum,^64bit")
    (tmp_path / "content").write_bytes(LOGGED)
    block = block_of(image, "/deep/70000.d")
    journaled(image, "", f"journal_write -b {block} {tmp_path / 'content'}")
    content = bytearray(image.read_bytes())
    start = content.index(LOGGED) - 1024
    revoke = struct.pack(">4I", 0xC03B3998, 5, *struct.unpack_from(">I", content, start + 8), 16)
    for at in range(start, start + (1020 << 10), 1024):
        content[at : at + 16] = revoke
    filesystem = Ext4FileSystem.open(BytesDevice(bytes(content)))
    assert filesystem.was_dirty


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
def test_a_walk_reads_little_more_than_the_metadata(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in range(40):
        (tree / f"{folder}").mkdir(parents=True)
        for number in range(50):
            (tree / f"{folder}" / f"{number}").write_bytes(os.urandom(3000))
    device = BytesDevice(make_image(tmp_path / "image", tree, size=32 << 20).read_bytes())
    filesystem = Ext4FileSystem.open(device)
    view = [node for _, folder in filesystem.entries(filesystem.root) for node in filesystem.entries(folder)]
    assert len(view) == 2000
    assert sum(len(list(filesystem.extents(node))) for _, node in view) == 2000
    assert len(device.reads) < 60
