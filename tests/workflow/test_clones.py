"""The deployed state machine where files can be cloned: the checkpoint is released before they are read."""

import os
from collections.abc import Callable

from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import SourceFileError
from questdb_backup.steps.guard import guard_checkpoint
from tests.support.faults import raise_injected
from tests.support.kit import INSTANCE, DictSource, Kit

TABLE = "db/t~1"


class KeptFiles:
    """Clones of a dictionary's files."""

    def __init__(self, source: DictSource, most: int = 1000) -> None:
        self._source = source
        self._most = most
        self.kept = WatchedSource()

    def add(self, run: str, path: str) -> None:
        assert run
        if len(self.kept.files) == self._most:
            raise OSError(18, "Invalid cross-device link")
        self.kept.files[path] = self._source.files[path]

    def tree(self, run: str) -> DictSource:
        assert run
        return self.kept

    def clear(self) -> None:
        self.kept.files.clear()


class WatchedSource(DictSource):
    """Tells of each read before it happens."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        super().__init__(files or {})
        self.before_read: Callable[[], object] = bool

    def read(self, path: str, offset: int, length: int) -> bytes:
        self.before_read()
        return super().read(path, offset, length)


def a_root(**files: bytes) -> WatchedSource:
    partitions = {f"{TABLE}/{20260101 + n:020d}/x.d": os.urandom(3 << 20) for n in range(3)}
    return WatchedSource({**partitions, f"{TABLE}/s.c": b"symbols", "conf/server.conf": b"a=b\n"})


def test_cloned_files_are_read_when_the_checkpoint_is_released_and_are_as_they_were_under_it() -> None:
    kit = Kit(source := a_root())
    clones = KeptFiles(source)
    expected, held = dict(source.files), []

    def change() -> None:
        held.append(kit.database.read().checkpoint.in_progress)
        source.files[f"{TABLE}/s.c"] = b"changed"

    clones.kept.before_read = change
    result = kit.backup(kit.make_services(clones=clones))
    assert result.status == "SUCCEEDED", result.cause
    assert held
    assert not any(held)
    assert source.reads == []
    assert kit.stored_files() == expected
    assert clones.kept.files == {}
    assert kit.backup(kit.make_services(clones=clones)).status == "SUCCEEDED"
    assert kit.stored_files() == source.files


def test_where_one_file_cannot_be_cloned_all_are_read_while_the_checkpoint_is_held() -> None:
    kit = Kit(source := a_root())
    clones = KeptFiles(source, most=2)
    held = []
    source.before_read = lambda: held.append(kit.database.read().checkpoint.in_progress)
    assert kit.backup(kit.make_services(clones=clones)).status == "SUCCEEDED"
    assert held
    assert all(held)
    assert clones.kept.reads == []
    assert clones.kept.files == {}
    assert kit.stored_files() == source.files


def test_a_frozen_copy_is_not_cloned() -> None:
    kit = Kit(source := a_root())
    clones = KeptFiles(source, most=0)
    assert kit.backup(kit.make_services(clones=clones), {"source": "frozen"}).status == "SUCCEEDED"
    assert kit.stored_files() == source.files


def test_a_backup_that_fails_leaves_no_clones_and_no_checkpoint() -> None:
    kit = Kit(source := a_root())
    clones = KeptFiles(source)

    def fail() -> None:
        raise SourceFileError("the disk is broken")

    clones.kept.before_read = fail
    assert kit.backup(kit.make_services(clones=clones)).status == "FAILED"
    assert clones.kept.files == {}
    assert kit.database.read().checkpoint.in_progress is False
    assert read_catalog(kit.inner, INSTANCE).lease is None


def test_the_guard_of_a_run_that_died_after_the_release_removes_its_clones() -> None:
    kit = Kit(source := a_root())
    clones = KeptFiles(source)
    services = kit.make_services(clones=clones)
    dead = dict.fromkeys(("UploadPartitions", "FailBackup", "ReleaseLockAfterError"), raise_injected)
    kit.backup(services, None, **dead)
    assert clones.kept.files
    report = guard_checkpoint(
        services,
        INSTANCE,
        is_dead=lambda _: True,
        release=lambda fence: kit.database.release_checkpoint(fence, timeout_seconds=1),
    )
    assert (report.outcome, report.release) == ("ended", "free")
    assert clones.kept.files == {}
