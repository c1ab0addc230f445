"""Where the server root is in the snapshots of an instance's volumes, and which volume is mounted where."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.ebs.root import ServerRoot, open_server_root
from questdb_backup.errors import ConfigurationError, SourceFileError
from questdb_backup.volumes.base import Device, ImageDevice
from questdb_backup.volumes.search import find_roots
from tests.support import made_disks as made
from tests.support.ext4_images import make_image, needs_e2fsprogs
from tests.support.memory_files import MemoryFiles

pytestmark = needs_e2fsprogs
SSD = uuid.UUID(int=0x1234)
ROOT = {"questdb": {".checkpoint": {"db": {}}, "db": {"t~1": "/mnt/ssd/t~1"}}}
TABLES = {"t~1": {"a.d": b"data"}}
Tree = Mapping[str, object]
"""Folders by name; a text is a symlink's target."""
Open = Callable[..., ServerRoot]


def write(folder: Path, tree: Tree) -> None:
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, Mapping):
            write(folder / name, content)
        elif isinstance(content, str):
            (folder / name).symlink_to(content)
        else:
            assert isinstance(content, bytes)
            (folder / name).write_bytes(content)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the root on volumes ``/dev/sdf``, ``/dev/sdg``, ...: each a tree, or the bytes of a disk."""
    with ExitStack() as files:

        def disk(place: int, content: Tree | bytes | bytearray) -> Device:
            if isinstance(content, bytes | bytearray):
                return made.device(content)
            write(tmp_path / f"tree{place}", content)
            options = ("-L", "ssd", "-U", str(SSD)) if place == 1 else ()
            image = make_image(tmp_path / f"{place}.img", tmp_path / f"tree{place}", *options, size=4 << 20)
            device = ImageDevice(image)
            files.callback(device.close)
            return device

        def open_them(
            *contents: Tree | bytes | bytearray, server_root: str | None = None, mounts: Sequence[str] = ()
        ) -> ServerRoot:
            volumes = [
                (
                    VolumeSnapshot(volume_id=f"vol-{place}", device=f"/dev/sd{'fgh'[place]}", snapshot_id=""),
                    disk(place, content),
                )
                for place, content in enumerate(contents)
            ]
            return open_server_root(volumes, server_root=server_root, mounts=mounts)

        yield open_them


def two_partitions(tmp_path: Path) -> bytes:
    """A GPT disk with the same ext4 twice."""
    write(tmp_path / "twice", {"etc": {}})
    image = make_image(tmp_path / "twice.img", tmp_path / "twice", size=1 << 20).read_bytes()
    disk = made.gpt_disk({1: (2048, 2048), 2: (4096, 2048)})
    disk[1 << 20 : 3 << 20] = image * 2
    return bytes(disk)


@pytest.mark.parametrize("name", ["/dev/sdg", "vol-1", "ssd", str(SSD)])
def test_a_mount_names_its_volume_by_device_id_label_or_uuid(opened: Open, name: str) -> None:
    root = opened(ROOT, TABLES, mounts=[f"/mnt/ssd={name}"])
    assert (root.path, root.part, root.volume) == ("questdb", "whole disk", 0)
    assert root.tree.read("db/t~1/a.d", 0, 9) == b"data"
    assert [extent.volume for extent in root.tree.extents("db/t~1/a.d")] == [1]


def test_a_mount_that_names_nothing_is_an_error_that_lists_the_names(opened: Open) -> None:
    with pytest.raises(ConfigurationError) as error:
        opened(ROOT, TABLES, made.zfs_disk("tank"), mounts=["/mnt/ssd=/dev/sdx"])
    assert "/mnt/ssd=/dev/sdx of the parameter VolumeMounts names none" in error.value.fact
    assert "/dev/sdh (vol-2), whole disk: a member of the ZFS pool 'tank'" in error.value.fact
    assert f"/dev/sdg vol-1 ssd {SSD}" in error.value.hint


def test_a_mount_that_names_a_disk_with_several_file_systems_is_an_error_that_lists_them(
    opened: Open, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as error:
        opened(ROOT, two_partitions(tmp_path), mounts=["/mnt/ssd=/dev/sdg"])
    assert "partition 1 (GPT), partition 2 (GPT)" in error.value.fact
    assert "/dev/sdg vol-1 measured" in error.value.hint


def test_a_malformed_mount_is_an_error_that_names_the_parameter(opened: Open) -> None:
    with pytest.raises(ConfigurationError, match="VolumeMounts"):
        opened(ROOT, mounts=["mnt/ssd=/dev/sdg"])


def test_the_path_on_the_host_is_no_server_root_and_the_right_one_is_told(opened: Open) -> None:
    with pytest.raises(SourceFileError) as error:
        opened(ROOT, {"etc": {}}, server_root="/mnt/data/questdb")
    assert "/mnt/data/questdb, the parameter ServerRoot, holds no .checkpoint/db" in error.value.fact
    assert "/questdb on /dev/sdf (vol-0), whole disk holds one" in error.value.hint


def test_of_two_roots_the_named_one_is_taken(opened: Open) -> None:
    both = {**ROOT, "srv": {"other": ROOT["questdb"]}}
    with pytest.raises(SourceFileError, match="several server roots") as error:
        opened(both)
    assert "/questdb on /dev/sdf (vol-0), whole disk, /srv/other on /dev/sdf" in error.value.fact
    assert "ServerRoot" in error.value.hint


@pytest.mark.parametrize("server_root", [None, "/questdb"])
def test_two_roots_of_one_path_on_two_volumes_are_told_apart_by_their_volumes(
    opened: Open, server_root: str | None
) -> None:
    with pytest.raises(SourceFileError, match="several server roots") as error:
        opened(ROOT, ROOT, server_root=server_root)
    assert "VolumeIds" in error.value.hint


def test_where_there_is_none_it_is_told_what_was_looked_at_and_what_was_not(opened: Open) -> None:
    stale: Tree = {"questdb": {"db": {"t~1": {}}}}
    with pytest.raises(SourceFileError) as error:
        opened(stale, {"etc": {}}, made.zfs_disk("tank"))
    assert "no folder holds a .checkpoint/db on /dev/sdf (vol-0), whole disk; /dev/sdg" in error.value.fact
    assert "a server root without one: /questdb on /dev/sdf" in error.value.fact
    assert "not readable: /dev/sdh (vol-2), whole disk: a member of the ZFS pool" in error.value.fact
    assert "VolumeIds" in error.value.hint


def test_a_checkpoint_that_is_a_link_to_another_volume_is_found_where_the_root_is_named(
    opened: Open,
) -> None:
    away = {"questdb": {".checkpoint": "/mnt/ssd/held", "db": {"t~1": {}}}}
    held = {"held": {"db": {"t~1": {"_txn": b"txn"}}}}
    root = opened(away, held, server_root="/questdb", mounts=["/mnt/ssd=ssd"])
    assert root.tree.read(".checkpoint/db/t~1/_txn", 0, 9) == b"txn"


def test_a_damaged_neighbour_hides_no_root(opened: Open, tmp_path: Path) -> None:
    write(tmp_path / "broken", {"etc": {}, "var": {"lib": {}}})
    image = make_image(tmp_path / "broken.img", tmp_path / "broken", "-O", "metadata_csum", size=4 << 20)
    content = bytearray(image.read_bytes())
    at = content.index(b"\x03\x02lib")
    content[at : at + 5] = b"\x09\x02lib"
    root = opened(ROOT, bytes(content))
    assert root.path == "questdb"
    assert "/dev/sdg (vol-1)" in root.refused[0]


def test_a_root_behind_a_folder_with_very_many_is_found() -> None:
    many: Tree = {f"{number}": {} for number in range(25_000)}
    content = {"data": {"many": many, "questdb": {".checkpoint": {"db": {}}}}}
    assert [root.path for root in find_roots(MemoryFiles(content))] == ["data/questdb"]
