"""What is written or read once is let go of the page cache, and nothing depends on that."""

import errno
import os
from pathlib import Path

import pytest

from questdb_backup.page_cache import LEAST_BYTES, let_go
from questdb_backup.restore.files import SafeTree
from questdb_backup.stores.fs import FsObjectStore

LARGE, SMALL = os.urandom(LEAST_BYTES), b"small"


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offset and length of each stretch that was let go."""
    found: list[tuple[int, int]] = []

    def posix_fadvise(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert os.fstat(descriptor).st_size >= offset + length
        assert advice == os.POSIX_FADV_DONTNEED
        found.append((offset, length))

    monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
    return found


def test_a_store_lets_go_of_what_is_large(tmp_path: Path, advised: list[tuple[int, int]]) -> None:
    store = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")
    store.create("small", SMALL)
    assert store.get_range("small", 1, 2) == b"ma"
    assert advised == []
    store.create("large", LARGE)
    assert store.get_range("large", 0, LEAST_BYTES) == LARGE
    assert advised == [(0, 0), (0, LEAST_BYTES)]


def test_a_restore_begins_to_write_at_once_and_lets_go_at_the_end(
    tmp_path: Path, advised: list[tuple[int, int]]
) -> None:
    parent = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "tree").mkdir()
    with SafeTree("tree", parent) as tree:
        tree.write("file", 10 + LEAST_BYTES, 0o644, 10, LARGE)
        assert advised == [(10, LEAST_BYTES)]
        tree.write("file", 10 + LEAST_BYTES, 0o644, 0, SMALL)
    os.close(parent)
    assert advised == [(10, LEAST_BYTES), (0, 0)]
    assert (tmp_path / "tree/file").read_bytes() == b"small" + bytes(5) + LARGE


def test_a_system_without_the_call_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(os, "posix_fadvise", refuse)
        let_go(file.fileno())
        monkeypatch.delattr(os, "posix_fadvise")
        let_go(file.fileno())
