"""A restore from its plan to its place: the whole way, its errors before any change, its interruptions."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from questdb_backup import keys, packs
from questdb_backup.errors import (
    ConfigurationError,
    NoRestorePointError,
    RestoreFailedError,
    StorageFullError,
    TargetNotEmptyError,
    VersionMismatchError,
)
from questdb_backup.local.runner import run_restore
from questdb_backup.restore import contents, place, system
from questdb_backup.restore.request import Restore
from questdb_backup.restore.staging import Staging, restore_progress
from questdb_backup.services import Services
from questdb_backup.steps.complete_restore import complete_restore
from questdb_backup.steps.download import download_partitions
from questdb_backup.steps.fail_restore import fail_restore
from questdb_backup.steps.plan_restore import plan_restore
from questdb_backup.stores.counting import CountingStore
from questdb_backup.stores.fs import FsObjectStore
from questdb_backup.stores.memory import MemoryObjectStore
from tests.support.backups import (
    INSTANCE,
    VERSION,
    back_up,
    listing,
    make_root,
    make_services,
    restore_by_steps,
)

STAGING = ".restore_staging"
REBUILD = "cairo.checkpoint.recovery.rebuild.column.indexes=true"
Json = dict[str, Any]


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_root(tmp_path / "origin")


@pytest.fixture
def stored(origin: Path) -> Services:
    services = make_services(origin)
    back_up(services)
    return services


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, and a busy disk would be waited for."""
    monkeypatch.setattr("questdb_backup.restore.marks.sync_file_system", lambda _descriptor: None)


@pytest.fixture
def new_root(tmp_path: Path) -> Path:
    return tmp_path / "new"


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs and units of one MiB, so that a small backup has many."""
    monkeypatch.setattr(packs, "PACK_BYTES", 1 << 20)
    monkeypatch.setattr(contents, "_SMALLEST_UNIT", 1 << 20)
    monkeypatch.setattr(contents, "UNIT_BYTES", 1 << 20)


def planned(services: Services, root: Path, execution: str = "restore-1") -> tuple[Restore, list[int]]:
    state = plan_restore(services, execution, {"root": str(root)})
    return Restore.from_json(state["restore"]), state["units"]


def assert_untouched(root: Path) -> None:
    """Nothing that a server would start on is in the root."""
    assert not (root / "_restore").exists()
    assert not (root / "db").exists()
    assert not (root / ".checkpoint").exists()


def test_a_restored_root_is_the_origin_with_its_trigger_and_its_indexes_to_be_rebuilt(
    origin: Path, stored: Services, new_root: Path
) -> None:
    result = run_restore(stored, {"root": str(new_root)})
    found = listing(new_root)
    assert found.pop("_restore") == ("f", 0o644, b"")
    conf = found.pop("conf/server.conf")[2].decode()
    assert conf.startswith("# mine\npg.user=admin\n")
    assert REBUILD in conf
    assert found == listing(origin, without=("conf/server.conf", "db/.backup_instance_name"))
    assert {name: result[name] for name in ("root", "tables", "server_version", "backup_instance_name")} == {
        "root": str(new_root),
        "tables": 2,
        "server_version": VERSION,
        "backup_instance_name": INSTANCE,
    }
    assert result["files"] == sum(1 for kind, _, _ in found.values() if kind == "f") + 1
    assert "9.3.4" in result["notes"][0]


@pytest.mark.usefixtures("small_units")
def test_many_units_on_many_threads_give_the_same_root(
    tmp_path: Path, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = make_root(tmp_path / "origin", big=5_000_000)
    store = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")
    services = make_services(origin, store, max_concurrency=6)
    back_up(services)
    _, units = planned(services, new_root)
    assert len(units) > 10
    run_restore(services, {"root": str(new_root)})
    changed = ("conf/server.conf", "_restore", "db/.backup_instance_name")
    assert listing(new_root, without=changed) == listing(origin, without=changed)


def test_a_restore_reads_few_objects_and_lists_none(stored: Services, new_root: Path) -> None:
    counting = CountingStore(stored.store)
    services = make_services(None, counting)
    restore_by_steps(services, {"root": str(new_root)})
    assert counting.counts.list == counting.counts.put == counting.counts.delete == 0
    assert counting.counts.get < 50


def test_holes_stay_holes(stored: Services, new_root: Path) -> None:
    restore_by_steps(stored, {"root": str(new_root)})
    info = (new_root / "db/trades~1/2026-03-01/zeros.d").stat()
    assert info.st_size == 2_500_000
    assert info.st_blocks * 512 < 100_000


def test_modes_come_back_even_those_that_forbid_the_owner_to_write(
    origin: Path, tmp_path: Path, new_root: Path
) -> None:
    (origin / "conf" / "log.conf").chmod(0o440)
    (origin / "db/trades~1/wal1").chmod(0o750)
    services = make_services(origin)
    back_up(services)
    restore_by_steps(services, {"root": str(new_root)})
    assert (new_root / "conf" / "log.conf").stat().st_mode & 0o777 == 0o440
    assert (new_root / "db/trades~1/wal1").stat().st_mode & 0o777 == 0o750


def test_the_newest_backup_at_or_before_the_timestamp_is_taken(
    origin: Path, stored: Services, new_root: Path
) -> None:
    first = stored.now()
    (origin / "db/trades~1/sym.c").write_bytes(b"later")
    later = back_up(stored, "run-2")
    result = restore_by_steps(stored, {"root": str(new_root), "timestamp": first})
    assert result["backup_timestamp"] < later.backup_timestamp
    assert (new_root / "db/trades~1/sym.c").read_bytes() == b"symbols of trades~1"
    newest = restore_by_steps(stored, {"root": str(new_root.with_name("other"))})
    assert newest["backup_timestamp"] == later.backup_timestamp


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"instance": "no-such-name"}, NoRestorePointError, "no backup instance is named 'no-such-name'"),
        ({"timestamp": "2020-01-01"}, NoRestorePointError, "No backup timestamp found that is <="),
        ({"timestamp": "yesterday"}, ConfigurationError, "not a timestamp"),
        ({"server_version": "8.3.0"}, VersionMismatchError, "different major versions"),
        ({"server_version": "9.1.0"}, VersionMismatchError, "older"),
        ({"sever_version": "9.3.4"}, ConfigurationError, "no field 'sever_version'"),
        ({"force": "yes"}, ConfigurationError, "'force' is 'yes'"),
    ],
)
def test_a_wrong_request_is_refused_before_any_change(
    stored: Services, new_root: Path, request_: Json, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        plan_restore(stored, "restore-1", {"root": str(new_root), **request_})
    assert not new_root.exists()


def test_a_version_that_does_not_fit_can_be_forced(stored: Services, new_root: Path) -> None:
    result = restore_by_steps(stored, {"root": str(new_root), "server_version": "10.0.0", "force": True})
    assert "forced" in result["notes"][0]


def test_an_empty_store_has_nothing_to_restore(new_root: Path) -> None:
    with pytest.raises(NoRestorePointError, match="nothing is stored here"):
        plan_restore(make_services(instance_name=None), "restore-1", {"root": str(new_root)})


def test_of_several_instances_one_has_to_be_named(origin: Path, stored: Services, new_root: Path) -> None:
    (origin / "db" / ".backup_instance_name").unlink()
    other = make_services(origin, stored.store, instance_name="quiet-river-stone")
    back_up(other)
    anyone = make_services(None, stored.store, instance_name=None)
    with pytest.raises(ConfigurationError, match="gentle-forest-orchid, quiet-river-stone"):
        plan_restore(anyone, "restore-1", {"root": str(new_root)})
    result = restore_by_steps(anyone, {"root": str(new_root), "instance": "quiet-river-stone"})
    assert result["backup_instance_name"] == "quiet-river-stone"


@pytest.mark.parametrize("name", ["db/.data_id", "db/tables.d.0", "db/lost+found/x"])
def test_a_database_that_is_there_is_never_touched(stored: Services, new_root: Path, name: str) -> None:
    (new_root / name).parent.mkdir(parents=True)
    (new_root / name).write_text("precious")
    before = listing(new_root)
    with pytest.raises(TargetNotEmptyError, match=r"^The local database is not empty\."):
        run_restore(stored, {"root": str(new_root)})
    assert listing(new_root) == before


def test_a_checkpoint_of_another_database_is_not_overwritten(stored: Services, new_root: Path) -> None:
    (new_root / ".checkpoint" / "db" / "old~1").mkdir(parents=True)
    with pytest.raises(TargetNotEmptyError, match=r"\.checkpoint is there"):
        run_restore(stored, {"root": str(new_root)})


def test_what_a_release_leaves_of_a_checkpoint_is_in_nobodys_way(
    origin: Path, stored: Services, new_root: Path
) -> None:
    (new_root / ".checkpoint").mkdir(parents=True)
    (new_root / ".checkpoint" / "_checkpoint_meta.d").write_bytes(b"old")
    run_restore(stored, {"root": str(new_root)})
    assert (new_root / ".checkpoint" / "_checkpoint_meta.d").read_bytes() == b"\0\0\0\0"


def test_a_trigger_that_is_there_already_is_refused(stored: Services, new_root: Path) -> None:
    new_root.mkdir()
    (new_root / "_restore").touch()
    with pytest.raises(TargetNotEmptyError, match="_restore is there"):
        run_restore(stored, {"root": str(new_root)})


def test_an_empty_database_directory_is_replaced(stored: Services, new_root: Path) -> None:
    (new_root / "db").mkdir(parents=True)
    run_restore(stored, {"root": str(new_root)})
    assert (new_root / "db" / "_tab_index.d").exists()


def test_a_database_directory_that_is_a_mount_point_is_refused_before_the_download(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (new_root / "db").mkdir(parents=True)
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == new_root / "db")
    with pytest.raises(ConfigurationError, match="is a mount point"):
        plan_restore(stored, "restore-1", {"root": str(new_root)})
    assert sorted(path.name for path in new_root.iterdir()) == ["db"]


def test_a_database_directory_that_is_a_symlink_is_refused(stored: Services, new_root: Path) -> None:
    new_root.mkdir()
    (new_root / "db").symlink_to("/nowhere")
    with pytest.raises(ConfigurationError, match="not a directory of its own"):
        plan_restore(stored, "restore-1", {"root": str(new_root)})


def test_a_root_whose_parent_is_missing_is_refused(stored: Services, new_root: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        plan_restore(stored, "restore-1", {"root": str(new_root / "deeper")})


def test_too_little_space_is_told_before_the_download(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(new_root.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(StorageFullError, match="has 1000 bytes free, the restore needs"):
        plan_restore(stored, "restore-1", {"root": str(new_root)})
    assert not new_root.exists()


def test_a_dry_run_judges_and_changes_nothing(stored: Services, new_root: Path) -> None:
    result = run_restore(stored, {"root": str(new_root), "dry_run": True})
    assert result["dry_run"] is True
    assert result["tables"] == 2
    assert not new_root.exists()


def test_without_a_target_on_aws_the_answer_is_the_command_for_the_host(stored: Services) -> None:
    text = "s3::bucket=b;root=r;region=eu-central-1;secret_access_key=hush;"
    services = make_services(None, stored.store, stack_id="arn:stack", object_store=text)
    result = run_restore(services, {"server_version": "9.3.5"})
    assert result["command"].startswith("questdb-backup restore --root NEWROOT --object-store 's3::bucket=b;")
    assert f"--instance {INSTANCE} --timestamp {result['backup_timestamp']}" in result["command"]
    assert "hush" not in json.dumps(result)
    assert result["_backup_restore"].splitlines()[1:] == [
        f"backup.instance.name={INSTANCE}",
        f"backup.restore.timestamp={result['backup_timestamp']}",
    ]


def test_on_aws_the_target_is_below_the_mounted_file_system(stored: Services, tmp_path: Path) -> None:
    services = make_services(None, stored.store, stack_id="arn:stack", restore_root=tmp_path)
    with pytest.raises(ConfigurationError, match="not below"):
        plan_restore(services, "restore-1", {"root": "/etc"})
    with pytest.raises(ConfigurationError, match="not below"):
        plan_restore(services, "restore-1", {"root": "../x"})
    result = restore_by_steps(services, {"root": "restored"})
    assert result["root"] == str(tmp_path / "restored")


def test_a_restored_root_gets_a_new_name_unless_it_is_to_keep_it(stored: Services, new_root: Path) -> None:
    restore_by_steps(stored, {"root": str(new_root)})
    assert not (new_root / "db" / ".backup_instance_name").exists()
    kept = new_root.with_name("kept")
    restore_by_steps(stored, {"root": str(kept), "keep_instance": True})
    assert (kept / "db" / ".backup_instance_name").read_text().strip() == INSTANCE


def test_configuration_that_is_there_stays_and_gets_the_property(stored: Services, new_root: Path) -> None:
    (new_root / "conf").mkdir(parents=True)
    (new_root / "conf" / "server.conf").write_text("mine=1\n")
    (new_root / "conf" / "server.conf").chmod(0o640)
    (new_root / "conf" / "log.conf").write_text("mine too\n")
    (new_root / "keep.me").write_text("here")
    result = restore_by_steps(stored, {"root": str(new_root)})
    conf = new_root / "conf" / "server.conf"
    assert conf.read_text().startswith("mine=1\n")
    assert REBUILD in conf.read_text()
    assert conf.stat().st_mode & 0o777 == 0o640
    assert (new_root / "conf" / "log.conf").read_text() == "mine too\n"
    assert (new_root / "keep.me").read_text() == "here"
    notes = " ".join(result["notes"])
    assert "conf/log.conf" in notes
    assert f"added {REBUILD}" in notes


def test_a_backup_without_configuration_gets_one_with_the_property(origin: Path, new_root: Path) -> None:
    for path in (origin / "conf").iterdir():
        path.unlink()
    (origin / "conf").rmdir()
    services = make_services(origin)
    back_up(services)
    restore_by_steps(services, {"root": str(new_root)})
    assert REBUILD in (new_root / "conf" / "server.conf").read_text()


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
