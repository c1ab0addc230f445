"""A server root on a volume that is not mounted: the same answers as a directory of this host gives."""

import os
from pathlib import Path

import pytest

from questdb_backup.errors import ConfigurationError, SourceFileError
from questdb_backup.source.base import EntryKind, Tree
from questdb_backup.source.local_tree import LocalTree
from questdb_backup.units import DiskExtent
from questdb_backup.volumes.mounts import Mounted, parse_mounts
from questdb_backup.volumes.tree import VolumeTree
from tests.support.memory_files import PAGE, Link, MemoryFiles

SPARSE = b"a" * PAGE + bytes(3 * PAGE) + b"b" * 100
ROOT = {
    "conf": {"server.conf": b"x=1\n", "out": Link("../../secret")},
    "db": {
        "t~1": {
            "a.d": SPARSE,
            "2024-01-01.1": {"b.d": b"b"},
            "2024-01-02.2": Link("../../../parted/2024-01-02.2"),
        },
        "u~2": Link("../../elsewhere/u~2"),
        "inner": Link("t~1"),
        "broken": Link("nothing"),
        "file": Link("../../secret"),
    },
    ".checkpoint": {"db": {"t~1": {"_txn": b"txn"}}},
    "empty": b"",
}
SERVER: dict[str, object] = {
    "questdb": ROOT,
    "secret": b"no",
    "elsewhere": {"u~2": {"c.d": b"c", "up": Link("../../secret")}},
}
DISK: dict[str, object] = {"srv": SERVER, "parted": {"2024-01-02.2": {"d.d": b"d"}}}
PATHS = (
    "", "conf", "conf/server.conf", "conf/out", "db", "db/t~1", "db/t~1/a.d", "db/t~1/2024-01-01.1/b.d",
    "db/u~2", "db/u~2/c.d", "db/u~2/up", "db/inner", "db/inner/a.d", "db/broken", "db/file", "empty",
    "db/nothing", "db/t~1/a.d/x", "db/../conf", ".checkpoint/db/t~1/_txn", "/etc/passwd",
    "db/t~1/2024-01-02.2/d.d",
)  # fmt: skip


def write(folder: Path, content: object) -> None:
    if isinstance(content, dict):
        folder.mkdir()
        for name, below in content.items():
            write(folder / name, below)
    elif isinstance(content, Link):
        folder.symlink_to(content.target)
    else:
        assert isinstance(content, bytes)
        folder.write_bytes(content)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Tree, Tree]:
    old = os.umask(0o022)
    write(tmp_path / "disk", DISK)
    os.umask(old)
    (tmp_path / "disk/srv/parted").symlink_to("../parted")
    files = MemoryFiles({**DISK, "srv": {**SERVER, "parted": Link("../parted")}})
    return LocalTree(tmp_path / "disk/srv/questdb"), VolumeTree(Mounted(files, 0), "srv/questdb")


def answer(tree: Tree, path: str) -> object:
    try:
        found = tree.stat(path)
        if found.kind is EntryKind.DIRECTORY:
            return [(entry.name, entry.kind, entry.size) for entry in tree.entries(path)]
        return found.kind, found.size, tree.read(path, 0, 1 << 20), tree.read(path, 5, 3)
    except OSError as error:
        return type(error)


@pytest.mark.parametrize("path", PATHS)
def test_it_answers_as_the_same_directory_of_a_host_does(trees: tuple[Tree, Tree], path: str) -> None:
    local, volume = trees
    assert answer(volume, path) == answer(local, path)


def test_a_partition_behind_a_link_is_read_where_the_link_leads(trees: tuple[Tree, Tree]) -> None:
    _, volume = trees
    assert volume.read("db/t~1/2024-01-02.2/d.d", 0, 9) == b"d"
    assert volume.read_link("db/u~2") == "../../elsewhere/u~2"


def test_extents_are_told_in_offsets_of_the_whole_disk() -> None:
    files = MemoryFiles({"db": {"a.d": SPARSE}}, shift=1 << 30)
    tree = VolumeTree(Mounted(files, 3), "")
    assert list(tree.extents("db/a.d")) == [
        DiskExtent(0, PAGE, 3, 1 << 30),
        DiskExtent(4 * PAGE, 100, 3, (1 << 30) + 2 * PAGE),
    ]


SSD = MemoryFiles({"tables": {"t~1": {"a.d": b"data"}}})


def linked(target: str, mounts: dict[str, MemoryFiles], home_at: str | None = None) -> VolumeTree:
    """A root at ``/questdb`` of its volume, with the table's link; other volumes, and where its own is."""
    home = MemoryFiles({"questdb": {"db": {"t~1": Link(target)}}, "away": {"t~1": {"a.d": b"data"}}})
    own = Mounted(home, 0)
    known = {path: Mounted(files, 1) for path, files in mounts.items()}
    return VolumeTree(own, "questdb", known | ({home_at: own} if home_at else {}))


@pytest.mark.parametrize("target", ["/mnt/ssd/tables/t~1", "/mnt/./ssd//tables/x/../t~1"])
def test_an_absolute_link_is_followed_where_a_volume_is_known_to_be_mounted(target: str) -> None:
    tree = linked(target, {"/mnt": MemoryFiles({}), "/mnt/ssd": SSD, "/": MemoryFiles({})})
    assert tree.read("db/t~1/a.d", 0, 10) == b"data"
    assert [extent.volume for extent in tree.extents("db/t~1/a.d")] == [1]
    assert tree.read_link("db/t~1") == target


@pytest.mark.parametrize("target", ["/data/away/t~1", "../../away/t~1"])
def test_a_link_may_lead_elsewhere_on_the_root_s_own_volume(target: str) -> None:
    tree = linked(target, {}, home_at="/data")
    assert tree.read("db/t~1/a.d", 0, 10) == b"data"
    assert [extent.volume for extent in tree.extents("db/t~1/a.d")] == [0]


def test_a_relative_link_leaves_its_volume_where_that_is_known_to_be_mounted() -> None:
    tree = linked("../../../mnt/ssd/tables/t~1", {"/mnt/ssd": SSD}, home_at="/data")
    assert tree.read("db/t~1/a.d", 0, 10) == b"data"
    with pytest.raises(ConfigurationError, match=r"db/t~1 is a link to \.\./\.\./\.\./mnt/ssd/tables/t~1"):
        linked("../../../mnt/ssd/tables/t~1", {"/mnt/ssd": SSD}).entries("db/t~1")


@pytest.mark.parametrize("path", ["db/t~1", "db/t~1/a.d"])
def test_a_table_whose_volume_is_not_known_is_an_error_that_names_the_link_and_the_parameter(
    path: str,
) -> None:
    with pytest.raises(ConfigurationError) as error:
        linked("/mnt/ssd/tables/t~1", {"/mnt/hdd": SSD}).stat(path)
    assert "db/t~1 is a link to /mnt/ssd/tables/t~1" in error.value.fact
    assert "VolumeMounts" in error.value.hint


def test_a_table_that_is_not_on_the_volume_that_was_named_is_an_error_that_names_the_parameter() -> None:
    with pytest.raises(SourceFileError, match=r"/mnt/ssd/other/t~1, and nothing is there .*VolumeMounts"):
        linked("/mnt/ssd/other/t~1", {"/mnt/ssd": SSD}).entries("db/t~1")


def test_a_setting_that_is_a_link_to_an_unknown_place_is_left_out_as_on_a_host() -> None:
    files = MemoryFiles({"conf": {"a": Link("/etc/a")}, "db": {"t~1": {"x": {"y": Link("/etc/a")}}}})
    for path in ("conf/a", "db/t~1/x/y"):
        with pytest.raises(PermissionError, match="/etc/a"):
            VolumeTree(Mounted(files, 0), "").stat(path)


def test_links_in_a_circle_end() -> None:
    tree = VolumeTree(Mounted(MemoryFiles({"db": {"a": Link("b"), "b": Link("a")}}), 0), "")
    with pytest.raises(OSError, match="too many"):
        tree.stat("db/a")


def test_a_mount_is_path_and_volume() -> None:
    assert parse_mounts(["/mnt/a/=vol-1", "/mnt/b=/dev/sdg"]) == {"/mnt/a": "vol-1", "/mnt/b": "/dev/sdg"}
    for wrong in ("mnt=vol-1", "/mnt", "/mnt="):
        with pytest.raises(ValueError, match="PATH=VOLUME"):
            parse_mounts([wrong])
