"""The last step: everything is put in place, or nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.errors import RestoreFailedError, TargetNotEmptyError
from questdb_backup.local.runner import run_restore
from questdb_backup.restore import place, system
from questdb_backup.restore.staging import Staging
from questdb_backup.services import Services
from questdb_backup.steps.complete_restore import complete_restore
from questdb_backup.steps.download import download_partitions
from questdb_backup.steps.fail_restore import fail_restore
from questdb_backup.stores.memory import MemoryObjectStore
from tests.support.backups import INSTANCE, back_up, make_services
from tests.unit.restore_steps.conftest import STAGING, assert_untouched, planned


def test_a_server_that_was_started_too_early_leaves_a_mark_that_is_removed(
    stored: Services, new_root: Path
) -> None:
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    (new_root / "db").mkdir()
    for name in (".data_id", "_tab_index.d"):
        (new_root / "db" / name).write_bytes(b"early")
    with pytest.raises(TargetNotEmptyError):
        complete_restore(stored, restore)
    assert (new_root / "db" / ".data_id").read_bytes() == b"early"
    run_restore(stored, {"root": str(new_root)})
    assert (new_root / "db" / ".data_id").read_bytes() != b"early"


def test_the_same_two_files_without_our_staging_are_a_database(stored: Services, new_root: Path) -> None:
    (new_root / "db").mkdir(parents=True)
    (new_root / "db" / ".data_id").write_bytes(b"id")
    with pytest.raises(TargetNotEmptyError):
        run_restore(stored, {"root": str(new_root)})
    assert (new_root / "db" / ".data_id").read_bytes() == b"id"


def test_a_database_that_appeared_meanwhile_lets_nothing_be_placed(stored: Services, new_root: Path) -> None:
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    (new_root / "db").mkdir()
    (new_root / "db" / "tables.d.0").write_bytes(b"theirs")
    with pytest.raises(TargetNotEmptyError, match="not empty"):
        complete_restore(stored, restore)
    assert sorted(path.name for path in new_root.iterdir()) == [STAGING, "db"]


Act = Callable[[Path], None]


def fill_database(root: Path) -> None:
    (root / "db").mkdir()
    (root / "db" / "tables.d.0").write_bytes(b"theirs")


def break_disk(_root: Path) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("act", "error"), [(fill_database, TargetNotEmptyError), (break_disk, RestoreFailedError)]
)
def test_where_the_last_rename_fails_everything_is_taken_back_and_the_next_try_succeeds(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch, act: Act, error: type[Exception]
) -> None:
    new_root.mkdir()
    (new_root / "conf").mkdir()
    (new_root / "conf" / "server.conf").write_text("mine=1\n")
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    rename = system.rename_without_replacing

    def late(old: Path, new: Path) -> None:
        if new.name == "db":
            act(new_root)
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(place, "rename_without_replacing", late)
        with pytest.raises(error):
            complete_restore(stored, restore)
    assert not (new_root / "_restore").exists()
    assert not (new_root / ".checkpoint").exists()
    assert (new_root / "conf" / "server.conf").read_text() == "mine=1\n"
    assert not (new_root / "conf" / "log.conf").exists()
    if (new_root / "db").exists():
        (new_root / "db" / "tables.d.0").unlink()
    complete_restore(stored, restore)
    assert (new_root / "_restore").exists()


class Died(BaseException):
    """The process is gone: nothing after it runs."""


@pytest.mark.parametrize("at", [".checkpoint", "db"])
@pytest.mark.parametrize("after", [False, True])
def test_a_death_while_placing_is_repaired_by_the_next_restore(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch, at: str, after: bool
) -> None:
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    rename = system.rename_without_replacing

    def die(old: Path, new: Path) -> None:
        if new.name == at:
            if after:
                rename(old, new)
            raise Died
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(place, "rename_without_replacing", die)
        patched.setattr(place._Placing, "undo", lambda _self: False)
        with pytest.raises(Died):
            complete_restore(stored, restore)
    assert (new_root / "db").exists() == (at == "db" and after)
    if at == "db" and after:
        complete_restore(stored, restore)
    else:
        fail_restore(stored, restore, {"Error": "States.Timeout", "Cause": ""})
        assert_untouched(new_root)
        run_restore(stored, {"root": str(new_root)})
    assert not (new_root / STAGING).exists()
    assert (new_root / "_restore").exists()
    assert (new_root / ".checkpoint/db/trades~1/_txn").read_bytes() == b"trades~1 _txn"
    assert (new_root / "db/trades~1/sym.c").exists()


def test_completing_again_after_a_lost_answer_is_a_success(stored: Services, new_root: Path) -> None:
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    first = complete_restore(stored, restore)
    assert complete_restore(stored, restore)["files"] == first["files"]


def test_a_rename_never_replaces_even_where_the_system_call_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError):
        system.rename_without_replacing(tmp_path / "old", tmp_path / "new")
    monkeypatch.setattr(system, "_libc", object)
    with pytest.raises(FileExistsError):
        system.rename_without_replacing(tmp_path / "old", tmp_path / "new")
    (tmp_path / "new").rmdir()
    system.rename_without_replacing(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_a_failed_restore_keeps_its_staging_and_tells_what_is_missing(
    stored: Services, new_root: Path
) -> None:
    restore, _ = planned(stored, new_root)
    answer = fail_restore(stored, restore, {"Error": "DamagedBackupError", "Cause": "pack is gone"})
    assert answer["failed_tables"] == 2
    assert "goes on where it stopped" in answer["hint"]
    assert_untouched(new_root)
    with Staging(new_root) as staging:
        assert staging.failure() == "pack is gone"
        assert staging.failed_tables() == ["quotes", "trades"]


def test_the_store_is_only_read(origin: Path, new_root: Path) -> None:
    services = make_services(origin)
    back_up(services)
    assert isinstance(services.store, MemoryObjectStore)
    before = {item.key: services.store.get(item.key) for item in services.store.list("")}
    run_restore(services, {"root": str(new_root)})
    assert before == {item.key: services.store.get(item.key) for item in services.store.list("")}
    assert keys.catalog(INSTANCE) in before
