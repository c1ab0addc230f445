"""The journal of ext4, written by debugfs and left for the reader to replay."""

import struct
from pathlib import Path

import pytest

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem
from tests.support.ext4_images import (
    LOGGED,
    BytesDevice,
    block_of,
    journaled,
    make_image,
    make_tree,
    needs_e2fsprogs,
    opened,
    patched,
    run_tool,
    walk,
)
from tests.support.volume_views import differences, view_of


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("ext4"))


JOURNALS = {
    "no checksums": ("^metadata_csum,^64bit", ""),
    "64bit": ("^metadata_csum,64bit", ""),
    "checksum v2": ("^64bit", "-c -v 2"),
    "checksum v2 64bit": ("64bit", "-c -v 2"),
    "checksum v3": ("^64bit", "-c -v 3"),
    "checksum v3 64bit": ("64bit", "-c -v 3"),
}


ESCAPED = struct.pack(">I", 0xC03B3998)


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
        first_data((logged - 1, bytes([content[logged - 1] ^ 1])))


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


@needs_e2fsprogs
def test_a_journal_that_goes_over_its_end_is_followed_from_its_begin(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024", "-O", "^metadata_csum,^64bit")
    (tmp_path / "content").write_bytes(LOGGED * 5)
    first = block_of(image, "/deep/70000.d")
    writes = [f"journal_write -b {first + n},{first + n + 1} {tmp_path / 'content'}" for n in range(0, 8, 2)]
    journaled(image, "", *writes)
    content = bytearray(image.read_bytes())
    superblock = bytes(content).index(LOGGED) - 2048
    used = len(writes) * 4
    for start in range(1024 - used - 1, 1024):
        turned = content[:]
        for number in range(used):
            place = (start - 1 + number) % 1023 + 1
            source, target = superblock + (1 + number) * 1024, superblock + place * 1024
            turned[target : target + 1024] = content[source : source + 1024]
        turned[superblock + 0x1C : superblock + 0x20] = struct.pack(">I", start)
        filesystem = Ext4FileSystem.open(BytesDevice(bytes(turned)))
        extents = list(filesystem.extents(walk(filesystem, "deep/70000.d")))
        assert [extent.data for extent in extents[:8]] == [LOGGED] * 8
        assert extents[8].data is None


@needs_e2fsprogs
def test_what_a_journal_logs_beyond_the_file_system_is_damage(tree: Path, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", tree, "-b", "1024", "-O", "^metadata_csum,^64bit")
    (tmp_path / "content").write_bytes(LOGGED)
    journaled(image, "", f"journal_write -b {block_of(image, '/deep/70000.d')} {tmp_path / 'content'}")
    with pytest.raises(DamagedVolumeError, match="holds block 4278190080"):
        patched(image, (image.read_bytes().index(LOGGED) - 1024 + 12, b"\xff\0\0\0"))
