"""Reading a server root: what it gives, and that it never leaves the root."""

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from questdb_backup.source.base import EntryKind
from questdb_backup.source.path import LocalTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "db" / "t").mkdir(parents=True)
    (root / "conf").mkdir()
    (root / "db" / "t" / "a.d").write_bytes(b"0123456789")
    (root / "db" / "t" / "a.d").chmod(0o640)
    away = tmp_path / "away"
    (away / "v" / "2024").mkdir(parents=True)
    (away / "v" / "2024" / "b.d").write_bytes(b"elsewhere")
    (away / "secret").write_bytes(b"secret")
    return root


def test_entries_are_sorted_and_links_are_not_followed(root: Path) -> None:
    (root / "db" / "linked").symlink_to(root.parent / "away" / "v")
    (root / "db" / "file").write_bytes(b"abc")
    entries = LocalTree(root).entries("db")
    assert [(entry.name, entry.kind, entry.size) for entry in entries] == [
        ("file", EntryKind.FILE, 3),
        ("linked", EntryKind.SYMLINK, 0),
        ("t", EntryKind.DIRECTORY, 0),
    ]


def test_a_read_ends_with_the_file(root: Path) -> None:
    tree = LocalTree(root)
    assert tree.read("db/t/a.d", 2, 3) == b"234"
    assert tree.read("db/t/a.d", 8, 100) == b"89"
    assert tree.read("db/t/a.d", 100, 1) == b""
    assert (tree.stat("db/t/a.d").size, tree.stat("db/t/a.d").mode) == (10, 0o640)
    assert tree.stat("").kind is EntryKind.DIRECTORY


def test_tables_and_partitions_on_other_volumes_are_read(root: Path) -> None:
    away = root.parent / "away"
    (root / "db" / "v").symlink_to(away / "v")
    (root / "db" / "t" / "2024").symlink_to(away / "v" / "2024")
    tree = LocalTree(root)
    assert tree.read("db/v/2024/b.d", 0, 9) == tree.read("db/t/2024/b.d", 0, 9) == b"elsewhere"
    assert tree.stat("db/v").kind is EntryKind.DIRECTORY
    assert tree.read_link("db/t/2024") == str(away / "v" / "2024")
    assert [entry.name for entry in tree.entries("db/t/2024")] == ["b.d"]


@pytest.mark.parametrize(
    "path", ["conf/link", "db/link", "db/t/link", "db/t/2024/link", "conf/folder/secret"]
)
def test_any_other_link_out_of_the_root_is_refused(root: Path, path: str) -> None:
    (root / "db" / "t" / "2024").mkdir()
    for name in ("conf/link", "db/link", "db/t/link", "db/t/2024/link"):
        (root / name).symlink_to(root.parent / "away" / "secret")
    (root / "conf" / "folder").symlink_to(root.parent / "away")
    with pytest.raises(PermissionError):
        LocalTree(root).read(path, 0, 6)
    with pytest.raises(PermissionError):
        LocalTree(root).stat(path)


def test_a_linked_partition_does_not_open_the_folder_beside_it(root: Path) -> None:
    (root / "db" / "t" / "2024").symlink_to(root.parent / "away" / "v" / "2024")
    (root.parent / "away" / "v" / "2024" / "up").symlink_to(root.parent / "away" / "secret")
    with pytest.raises(PermissionError):
        LocalTree(root).read("db/t/2024/up", 0, 6)


@pytest.mark.parametrize("path", ["../away/secret", "db/../../away/secret", "/etc/passwd", "db//t", "./db"])
def test_a_path_that_is_none_below_the_root_is_refused(root: Path, path: str) -> None:
    with pytest.raises(PermissionError):
        LocalTree(root).stat(path)


def test_missing_paths_raise_what_the_planner_expects(root: Path) -> None:
    tree = LocalTree(root)
    for call in (lambda: tree.stat("db/x"), lambda: tree.entries("db/x"), lambda: tree.read("db/x", 0, 1)):
        with pytest.raises(FileNotFoundError):
            call()


def test_a_link_within_the_root_is_followed_wherever_it_stands(root: Path) -> None:
    (root / "conf" / "server.conf").symlink_to("../db/t/a.d")
    assert LocalTree(root).read("conf/server.conf", 0, 2) == b"01"


def test_many_threads_read_files_of_one_tree_at_once(root: Path) -> None:
    for number in range(200):
        (root / "db" / "t" / f"{number}.d").write_bytes(bytes([number]) * 64)
    tree = LocalTree(root)

    def read(number: int) -> bool:
        return tree.read(f"db/t/{number % 200}.d", number % 64, 1) == bytes([number % 200])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(4000)))


def test_few_files_stay_open_and_none_outlives_the_tree(root: Path) -> None:
    for number in range(200):
        (root / "db" / "t" / f"{number}.d").write_bytes(b"x")
    before, tree = open_files(), LocalTree(root)
    for number in range(200):
        tree.read(f"db/t/{number}.d", 0, 1)

    assert len(open_files() - before) == 64
    del tree
    gc.collect()
    assert open_files() <= before


def open_files() -> set[str]:
    """What this process has open below a root."""
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return {link for link in links if "/root/db/" in link}


def test_a_partition_that_is_attached_anew_is_found_where_it_is_now(root: Path) -> None:
    away, link = root.parent / "away" / "v", root / "db" / "t" / "2024"
    (away / "2025").mkdir()
    (away / "2025" / "c.d").write_bytes(b"anew")
    link.symlink_to(away / "2024")
    tree = LocalTree(root)
    assert tree.read("db/t/2024/b.d", 0, 9) == b"elsewhere"
    link.unlink()
    link.symlink_to(away / "2025")

    assert tree.stat("db/t/2024/c.d").size == 4
    assert tree.read("db/t/2024/c.d", 0, 9) == b"anew"
    (away / "2025").rename(away / "2026")
    link.unlink()
    link.symlink_to(away / "2026")
    assert [entry.name for entry in tree.entries("db/t/2024")] == ["c.d"]


def test_a_file_that_becomes_a_link_out_of_the_root_is_refused_in_a_folder_that_is_known(root: Path) -> None:
    tree = LocalTree(root)
    assert tree.read("db/t/a.d", 0, 1) == b"0"
    (root / "db" / "t" / "b.d").symlink_to(root.parent / "away" / "secret")
    for call in (lambda: tree.read("db/t/b.d", 0, 6), lambda: tree.stat("db/t/b.d")):
        with pytest.raises(PermissionError):
            call()


def test_a_path_through_a_file_is_no_directory(root: Path) -> None:
    tree = LocalTree(root)
    for call in (lambda: tree.stat("db/t/a.d/x"), lambda: tree.read("db/t/a.d/x", 0, 1)):
        with pytest.raises(NotADirectoryError):
            call()
