"""When a unit may be believed to be done: by the process that wrote it, or since the disk has it."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from questdb_backup.restore import marks
from questdb_backup.restore.marks import Marks


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "done").mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    done: list[int] = []
    monkeypatch.setattr(marks, "sync_file_system", done.append)
    return done


def process(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.setattr(marks, "process_id", lambda: name)


@pytest.fixture
def sync_elsewhere() -> Iterator[None]:
    """Another thread syncs all the time, so that nobody else does."""
    with marks._syncing:
        yield


@pytest.mark.usefixtures("sync_elsewhere")
def test_what_was_not_synced_counts_for_the_process_that_wrote_it_alone(
    folder: int, syncs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process(monkeypatch, "first")
    Marks(folder).add(3, durable=False)
    assert not syncs
    assert Marks(folder).has(3)
    assert Marks(folder).done() == {3}
    process(monkeypatch, "second")
    assert not Marks(folder).has(3)
    assert Marks(folder).done() == set()


@pytest.mark.usefixtures("sync_elsewhere")
def test_a_durable_mark_counts_for_ever(
    folder: int, syncs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process(monkeypatch, "first")
    Marks(folder).add(3, durable=True)
    assert len(syncs) == 1
    process(monkeypatch, "second")
    assert Marks(folder).has(3)


def test_a_sync_makes_durable_what_was_marked_before_it_and_nothing_else(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(monkeypatch, "first")

    def slow(descriptor: int) -> None:
        Marks(descriptor).add(2, durable=False)  # written while the sync runs: not in it

    with marks._syncing:
        Marks(folder).add(1, durable=False)
    monkeypatch.setattr(marks, "sync_file_system", lambda descriptor: slow(descriptor))
    with marks._syncing:
        Marks(folder).sync()
    process(monkeypatch, "second")
    assert Marks(folder).done() == {1}


def test_one_thread_syncs_and_the_others_go_on(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    process(monkeypatch, "first")
    begun, go = threading.Event(), threading.Event()

    def wait(_descriptor: int) -> None:
        begun.set()
        assert go.wait(10)

    monkeypatch.setattr(marks, "sync_file_system", wait)
    first = threading.Thread(target=lambda: Marks(folder).add(1, durable=False))
    first.start()
    assert begun.wait(10)
    Marks(folder).add(2, durable=False)
    assert Marks(folder).done() == {1, 2}
    go.set()
    first.join()


def test_after_a_failed_sync_nothing_unsynced_is_believed(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(monkeypatch, "first")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(marks, "sync_file_system", lambda _descriptor: None)
    Marks(folder).add(1, durable=True)
    with marks._syncing:
        Marks(folder).add(2, durable=False)
    monkeypatch.setattr(marks, "sync_file_system", fail)
    with pytest.raises(OSError, match="Input/output"):
        Marks(folder).sync()
    assert Marks(folder).done() == {1}
