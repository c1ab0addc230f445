"""The ext4 reader on images that mke2fs makes, and on copies of file systems in use."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Extent, ImageDevice
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem
from tests.support.ext4_images import (
    FIXTURES,
    BytesDevice,
    debugfs,
    fixture_bytes,
    make_image,
    make_tree,
    needs_e2fsprogs,
    opened,
    run_tool,
    walk,
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
    "meta_bg 64bit": ("-b", "1024", "-O", "meta_bg,^resize_inode,64bit", "-g", "256", "-N", "480"),
    "meta_bg ^sparse_super": (
        *("-b", "1024", "-O", "meta_bg,^resize_inode,64bit,^sparse_super", "-g", "256", "-N", "480"),
    ),
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


def expected_of(tree: Path) -> View:
    return {**view_of_folder(tree), "lost+found": ("d", 0, "")}


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
