"""Snapshots of mounted file systems read exactly as the kernel showed them after it had replayed them."""

import json
import lzma
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest

from questdb_backup.cli.main import main
from questdb_backup.volumes.base import FileSystem, ImageDevice
from questdb_backup.volumes.layout import open_parts
from questdb_backup.volumes.search import find_roots
from questdb_backup.volumes.walk import described
from standin.ebs import EbsStandin
from tests.support.direct_standin import take_snapshot
from tests.support.made_disks import MIB, gpt_disk
from tests.support.memory_files import MemoryFiles

FOLDER = Path(__file__).parents[1] / "fixtures" / "filesystems"
NAMES = ("ext4_clean", "ext4_dirty", "gpt_lvm_ext4_dirty", "gpt_xfs_dirty", "xfs_dirty")
WHERE = {"gpt_lvm_ext4_dirty": "LV quest of VG vgdata", "gpt_xfs_dirty": "partition 2 (GPT)"}


def unpack(name: str, folder: Path) -> Path:
    """The image, with holes where it is zeros."""
    image = folder / f"{name}.img"
    with lzma.open(FOLDER / f"{name}.img.xz") as packed, image.open("wb") as file:
        while piece := packed.read(1 << 20):
            if piece.count(0) == len(piece):
                file.seek(len(piece), 1)
            else:
                file.write(piece)
        file.truncate()
    return image


def manifest(name: str) -> dict[str, tuple[str, int, str]]:
    listed = json.loads((FOLDER / f"{name}.json").read_text())
    return {path: (kind, size, value) for path, (kind, size, value) in listed.items()}


@contextmanager
def opened(name: str, folder: Path) -> Iterator[FileSystem]:
    with closing(ImageDevice(unpack(name, folder))) as disk:
        parts = [part for part in open_parts(disk) if part.files is not None]
        assert [part.where for part in parts] == [WHERE.get(name, "whole disk")], open_parts(disk)
        assert parts[0].files is not None
        yield parts[0].files


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_reads_as_its_manifest_says(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as files:
        assert dict(described(files)) == manifest(name)
        assert files.was_dirty is ("dirty" in name)
        assert files.kind == ("xfs" if "xfs" in name else "ext4")


@pytest.mark.parametrize("name", ["ext4_dirty", "xfs_dirty"])
def test_the_server_root_of_a_snapshot_is_found(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as files:
        assert [(root.path, root.checkpoint) for root in find_roots(files)] == [("questdb", True)]


def test_the_verb_gives_the_parts_and_the_entries_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = unpack("gpt_lvm_ext4_dirty", tmp_path)
    assert main(["probe-volume", "--image", str(image), "--hash", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {path: tuple(entry) for path, entry in value["entries"].items()} == manifest("gpt_lvm_ext4_dirty")
    assert value["size"] == image.stat().st_size
    assert [(part["where"], part["what"], part["readable"]) for part in value["parts"]] == [
        ("partition 1 (GPT)", None, False),
        ("partition 2 (GPT)", "lvm2", False),
        ("LV other of VG vgdata", None, False),
        ("LV quest of VG vgdata", "ext4", True),
    ]
    assert value["parts"][3]["dirty"] is True
    assert value["parts"][3]["uuid"] == "37dddbbd-92de-4769-b9a4-b6eeb1031ea2"
    assert value["parts"][3]["questdb"] == [{"path": "questdb", "checkpoint": True}]


def test_the_verb_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = unpack("ext4_clean", tmp_path)
    assert main(["probe-volume", "--image", str(image), "--hash"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "| 1: whole disk | 48.0 MiB | ext4 |" in printed
    assert "| clean | yes | /questdb (no .checkpoint/db) |" in printed
    assert f"read {len(manifest('ext4_clean'))} directories, files and symlinks" in printed


def test_the_verb_prefixes_the_entries_where_several_file_systems_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = unpack("ext4_clean", tmp_path)
    image = tmp_path / "disk.img"
    sectors = one.stat().st_size // 512
    table = gpt_disk(
        {1: (2048, sectors), 2: (2048 + sectors, 2048), 3: (4096 + sectors, sectors)}, size=98 * MIB
    )
    with image.open("wb") as disk, one.open("rb") as content:
        disk.write(table)
        for at in (MIB, 2 * MIB + one.stat().st_size):
            content.seek(0)
            disk.seek(at)
            shutil.copyfileobj(content, disk)
        disk.seek(len(table) - 512)
        disk.write(table[-512:])
    assert main(["probe-volume", "--image", str(image), "--hash", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    expected = manifest("ext4_clean")
    assert set(entries) == {f"part{number}/{path}" for number in (1, 3) for path in expected}


def test_the_verb_ends_with_1_where_nothing_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "empty.img"
    image.write_bytes(bytes(1 << 20))
    assert main(["probe-volume", "--image", str(image)]) == 1
    assert "part 1, whole disk: no file system that is known stands here" in capsys.readouterr().out


def test_the_verb_ends_with_2_where_there_is_no_such_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe-volume", "--image", str(tmp_path / "none.img")]) == 2
    assert main(["probe-volume", "--image", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No such file or directory" in captured.err
    with pytest.raises(SystemExit) as ended:
        main(["probe-volume"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("above", "found"),
    [("", True), ("a", True), ("a/b/c/d/e/f", True), ("a/b/c/d/e/f/g", False)],
)
def test_a_server_root_is_found_six_folders_deep(above: str, found: bool) -> None:
    content: dict[str, object] = {"db": {"t~1": {}}, "conf": {"server.conf": b""}}
    for name in reversed(above.split("/") if above else []):
        content = {name: content, "other": {"db": {"mysql": {}}}}
    roots = [(root.path, root.checkpoint) for root in find_roots(MemoryFiles(content))]
    assert roots == ([(above, False)] if found else [])


def test_holes_and_what_lies_behind_the_last_extent_are_zeros() -> None:
    sparse = bytes(3 << 20) + b"x" * 5000 + bytes(2 << 20)
    files = MemoryFiles({"sparse": sparse, "empty": b""})
    expected = blake2b(sparse, digest_size=12).hexdigest()
    assert dict(described(files))["sparse"] == ("f", len(sparse), expected)
    assert dict(described(files))["empty"] == ("f", 0, blake2b(digest_size=12).hexdigest())


def test_the_verb_reads_a_snapshot_through_the_direct_apis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = unpack("xfs_dirty", tmp_path)
    with image.open("r+b") as file:
        file.truncate(1 << 30)
    with EbsStandin(tmp_path / "cloud", frozen_clock=True) as server:
        snapshot = take_snapshot(server, server.add_volume(None, image=image))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "standin")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "standin")
        assert main(["probe-volume", "--snapshot", snapshot, "--hash", "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert {path: tuple(entry) for path, entry in value["entries"].items()} == manifest("xfs_dirty")
        assert (value["snapshot"], value["image"], value["size"]) == (snapshot, None, 1 << 30)
        assert main(["probe-volume", "--snapshot", "snap-00000000000000000"]) == 1
        assert "snap-00000000000000000" in capsys.readouterr().err
