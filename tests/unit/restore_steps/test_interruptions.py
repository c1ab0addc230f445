"""A restore that was interrupted goes on where it was; nobody else's staging is taken."""

import os
import threading
import time
from pathlib import Path

import pytest

from questdb_backup.errors import BackupAbortedError, ConfigurationError, RestoreFailedError
from questdb_backup.local.runner import run_restore
from questdb_backup.restore import system
from questdb_backup.restore.staging import Staging, restore_progress
from questdb_backup.services import Services
from questdb_backup.steps import complete_restore as complete_restore_step
from questdb_backup.steps.complete_restore import complete_restore
from questdb_backup.steps.download import download_partitions
from questdb_backup.steps.plan_restore import plan_restore
from questdb_backup.stores.counting import CountingStore
from tests.support.backups import back_up, listing, make_root, make_services, restore_by_steps
from tests.unit.restore_steps.conftest import STAGING, assert_untouched, planned

# ---- Interruptions


@pytest.mark.usefixtures("small_units")
def test_an_interrupted_restore_goes_on_and_reads_only_the_rest(tmp_path: Path, new_root: Path) -> None:
    origin = make_root(tmp_path / "origin", big=3_000_000)
    services = make_services(origin)
    back_up(services)
    counting = CountingStore(services.store)
    reader = make_services(None, counting)
    restore, units = planned(reader, new_root)
    for unit in units[:-2]:
        download_partitions(reader, restore, unit)
    assert restore_progress(new_root)[0] < restore_progress(new_root)[1]
    before = counting.counts
    again, rest = planned(reader, new_root, "restore-2")
    assert rest == units[-2:]
    for unit in rest:
        download_partitions(reader, again, unit)
    complete_restore(reader, again)
    assert (counting.counts - before).bytes_read < before.bytes_read
    changed = ("conf/server.conf", "_restore", "db/.backup_instance_name")
    assert listing(new_root, without=changed) == listing(origin, without=changed)


def test_a_unit_that_is_done_is_not_read_again(stored: Services, new_root: Path) -> None:
    counting = CountingStore(stored.store)
    reader = make_services(None, counting)
    restore, units = planned(reader, new_root)
    for unit in units:
        download_partitions(reader, restore, unit)
    before = counting.counts
    download_partitions(reader, restore, units[0])
    assert (counting.counts - before).requests == 0


def test_the_staging_of_another_backup_of_ours_is_started_anew(
    origin: Path, stored: Services, new_root: Path
) -> None:
    restore, units = planned(stored, new_root)
    download_partitions(stored, restore, units[0])
    (origin / "db/quotes~2/sym.c").write_bytes(b"newer")
    (origin / "db/quotes~2/2026-03-03/empty.d").unlink()
    back_up(stored, "run-2")
    restore_by_steps(stored, {"root": str(new_root)}, "restore-2")
    assert (new_root / "db/quotes~2/sym.c").read_bytes() == b"newer"
    assert not (new_root / "db/quotes~2/2026-03-03/empty.d").exists()
    assert not (new_root / STAGING).exists()


def test_a_restore_that_is_killed_twice_in_its_last_step_ends_well(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)

    def die(_: object) -> None:
        raise SystemExit

    def die_midway(staging: Staging) -> None:
        (staging.path / "placing.json").unlink()
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "mark_placed", die)  # after `db` was renamed
        with pytest.raises(SystemExit):
            complete_restore(stored, restore)
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "clear", die_midway)
        with pytest.raises(SystemExit):
            complete_restore(stored, restore)
    complete_restore(stored, restore)
    assert (new_root / "db").is_dir()
    assert not (new_root / STAGING).exists()


def test_who_interrupts_the_last_step_is_told_that_the_database_is_in_place(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = threading.Event()

    def linger(_: object) -> list[str]:
        placed.set()
        time.sleep(1.0)  # a step that has begun goes on behind the stop
        return []

    def interrupt() -> None:
        if placed.is_set():
            raise KeyboardInterrupt

    monkeypatch.setattr(complete_restore_step, "_advice", linger)
    with pytest.raises(BackupAbortedError, match="has the whole database in place"):
        run_restore(stored, {"root": str(new_root)}, interrupt)
    assert (new_root / "_restore").exists()
    assert not (new_root / STAGING).exists()


@pytest.mark.parametrize("make", ["folder", "file", "symlink", "other json"])
def test_a_staging_directory_of_somebody_else_is_refused(
    stored: Services, new_root: Path, tmp_path: Path, make: str
) -> None:
    new_root.mkdir()
    staging = new_root / STAGING
    if make == "folder":
        staging.mkdir()
        (staging / "letters").write_text("dear")
    elif make == "file":
        staging.write_text("dear")
    elif make == "symlink":
        (tmp_path / "elsewhere").mkdir()
        staging.symlink_to(tmp_path / "elsewhere")
    else:
        staging.mkdir()
        (staging / "restore.json").write_text('{"product": "other", "format": 1}')
    with pytest.raises(ConfigurationError, match="is not a staging directory"):
        plan_restore(stored, "restore-1", {"root": str(new_root)})
    assert os.path.lexists(staging)


def test_a_staging_directory_that_died_before_it_was_told_its_purpose_is_taken(
    stored: Services, new_root: Path
) -> None:
    (new_root / STAGING).mkdir(parents=True)
    (new_root / STAGING / "restore.json.tmp").write_text("{")
    run_restore(stored, {"root": str(new_root)})
    assert not (new_root / STAGING).exists()


def test_a_worker_of_a_restore_that_was_taken_over_writes_nothing(stored: Services, new_root: Path) -> None:
    restore, units = planned(stored, new_root)
    planned(stored, new_root, "restore-2")
    with pytest.raises(RestoreFailedError, match="taken over"):
        download_partitions(stored, restore, units[0])
    with pytest.raises(RestoreFailedError, match="taken over"):
        complete_restore(stored, restore)


def test_nothing_is_placed_while_a_worker_writes(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "_LOCK_SECONDS", 0.1)
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    with Staging(new_root) as held, held.lock(exclusive=False):
        with pytest.raises(RestoreFailedError, match="another restore into this root is running"):
            complete_restore(stored, restore)
        assert_untouched(new_root)
    complete_restore(stored, restore)


def test_units_that_are_not_done_are_not_placed(stored: Services, new_root: Path) -> None:
    restore, _ = planned(stored, new_root)
    with pytest.raises(RestoreFailedError, match="units of the restore are not done"):
        complete_restore(stored, restore)
    assert_untouched(new_root)


@pytest.mark.parametrize("harm", ["remove", "shorten", "add", "symlink", "fifo"])
def test_a_staged_file_that_changed_after_its_unit_is_found_before_placing(
    stored: Services, new_root: Path, harm: str
) -> None:
    restore, units = planned(stored, new_root)
    for unit in units:
        download_partitions(stored, restore, unit)
    file = new_root / STAGING / "tree/db/trades~1/sym.c"
    if harm == "add":
        file.with_name("more.d").write_bytes(b"x")
    elif harm == "shorten":
        file.write_bytes(b"s")
    else:
        file.unlink()
        if harm == "symlink":
            file.symlink_to("/etc/passwd")
        elif harm == "fifo":
            os.mkfifo(file)
    with pytest.raises(Exception, match=r"sym\.c|has \d+ files"):
        complete_restore(stored, restore)
    assert_untouched(new_root)
