"""``_backup_restore`` in the root: restored before the server starts, with the marks of a failure."""

from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.errors import (
    BackupAbortedError,
    ConfigurationError,
    DamagedBackupError,
    NoRestorePointError,
    RestoreFailedError,
    TargetNotEmptyError,
)
from questdb_backup.local.runner import run_restore
from questdb_backup.restore.staging import Staging
from questdb_backup.restore_on_start import restore_on_start
from questdb_backup.services import Services
from questdb_backup.settings import Settings
from tests.support.backups import (
    INSTANCE,
    back_up,
    make_root,
    make_services,
    put_over,
    restore_by_steps,
    the_manifest,
)

STORE = "fs::root=/elsewhere;atomic_write_dir=/elsewhere/atomic;"


@pytest.fixture
def stored(tmp_path: Path) -> Services:
    services = make_services(make_root(tmp_path / "origin"))
    back_up(services)
    return make_services(None, services.store, instance_name=None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "_backup_restore").write_text(f"backup.object.store={STORE}\nbackup.instance.name={INSTANCE}\n")
    return folder


def start(root: Path, services: Services, settings: Settings | None = None) -> dict[str, object] | None:
    return restore_on_start(root, settings or Settings(), lambda _store: services, run_restore)


def test_the_file_is_followed_and_removed(stored: Services, root: Path) -> None:
    asked: list[str] = []

    def make(store: str) -> Services:
        asked.append(store)
        return stored

    result = restore_on_start(root, Settings(), make, run_restore)
    assert asked == [STORE]
    assert result is not None
    assert result["backup_instance_name"] == INSTANCE
    assert not (root / "_backup_restore").exists()
    assert (root / "_restore").exists()
    assert (root / "db/trades~1/sym.c").exists()


def test_without_the_file_nothing_happens(stored: Services, root: Path) -> None:
    (root / "_backup_restore").unlink()
    (root / "_restore_failed").write_text("old")
    assert start(root, stored) is None
    assert sorted(path.name for path in root.iterdir()) == ["_restore_failed"]


def test_a_file_that_names_no_store_uses_the_one_of_the_settings(stored: Services, root: Path) -> None:
    (root / "_backup_restore").write_text("")
    with pytest.raises(ConfigurationError, match=r"backup\.object\.store is not set"):
        start(root, stored)
    assert start(root, stored, Settings(object_store=STORE)) is not None


def test_a_timestamp_in_the_file_is_followed(stored: Services, root: Path) -> None:
    (root / "_backup_restore").write_text(
        f"backup.object.store={STORE}\nbackup.restore.timestamp=2020-01-01T00:00:00.000000Z\n"
    )
    with pytest.raises(NoRestorePointError, match="No backup timestamp found that is <="):
        start(root, stored)


@pytest.mark.parametrize("mark", [".restore_failed", "_restore_failed"])
def test_the_marks_of_a_failure_refuse_the_next_start(stored: Services, root: Path, mark: str) -> None:
    (root / mark).mkdir()
    with pytest.raises(RestoreFailedError, match="Failed restore directory found"):
        start(root, stored)
    assert not (root / "db").exists()


def test_a_failure_leaves_marks_with_the_tables_and_after_their_removal_goes_on(
    stored: Services, root: Path
) -> None:
    _, manifest = the_manifest(stored.store)
    key = keys.pack(INSTANCE, next(iter(manifest.packs)))
    whole = stored.store.get(key)
    put_over(stored.store, key, whole[:100])
    with pytest.raises(DamagedBackupError, match=key):
        start(root, stored)
    assert (root / "_restore_failed").read_text().split() == ["quotes", "trades"]
    inside = sorted(path.name for path in (root / ".restore_failed").iterdir())
    assert inside == ["error.txt", "quotes", "trades"]
    assert key in (root / ".restore_failed" / "error.txt").read_text()
    assert not (root / "_restore").exists()
    assert (root / "_backup_restore").exists()
    put_over(stored.store, key, whole)
    with pytest.raises(RestoreFailedError, match="Failed restore directory found"):
        start(root, stored)
    for path in (root / ".restore_failed").iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    (root / ".restore_failed").rmdir()
    (root / "_restore_failed").unlink()
    assert start(root, stored) is not None
    assert (root / "_restore").exists()


def test_an_instance_that_is_not_there_leaves_marks_without_tables(stored: Services, root: Path) -> None:
    (root / "_backup_restore").write_text(
        f"backup.object.store={STORE}\nbackup.instance.name=other-river-stone\n"
    )
    with pytest.raises(NoRestorePointError):
        start(root, stored)
    assert (root / "_restore_failed").read_text() == ""
    assert (root / ".restore_failed" / "error.txt").exists()


def test_a_live_database_is_refused_and_gets_no_marks(stored: Services, root: Path) -> None:
    (root / "db").mkdir()
    (root / "db" / ".data_id").write_bytes(b"x")
    with pytest.raises(TargetNotEmptyError, match=r"^The local database is not empty\."):
        start(root, stored)
    assert sorted(path.name for path in root.iterdir()) == ["_backup_restore", "db"]


def test_a_start_that_died_after_placing_is_finished(
    stored: Services, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(_staging: Staging) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Staging, "remove", die)
        with pytest.raises(Died):
            restore_by_steps(stored, {"root": str(root)})
    assert (root / ".restore_staging").exists()
    assert start(root, stored) is not None
    assert not (root / ".restore_staging").exists()
    assert not (root / "_backup_restore").exists()


def test_a_start_that_died_between_the_restore_and_its_own_last_word_is_finished(
    stored: Services, root: Path
) -> None:
    restore_by_steps(stored, {"root": str(root)})
    assert (root / "_backup_restore").exists()
    assert start(root, stored) is not None
    assert not (root / "_backup_restore").exists()
    assert (root / "db/trades~1/sym.c").exists()


def test_a_start_that_is_told_to_stop_in_its_last_step_leaves_no_marks_beside_the_database(
    stored: Services, root: Path
) -> None:
    def run(services: Services, request: dict[str, object]) -> dict[str, object]:
        restore_by_steps(services, request)
        raise BackupAbortedError("interrupted")

    assert restore_on_start(root, Settings(), lambda _store: stored, run) is not None
    assert not any(
        (root / name).exists() for name in ("_restore_failed", ".restore_failed", "_backup_restore")
    )
