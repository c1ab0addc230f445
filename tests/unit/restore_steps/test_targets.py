"""Where a restore may put a database, and what stands in its way."""

import json
import shutil
from pathlib import Path

import pytest

from questdb_backup.errors import ConfigurationError, StorageFullError, TargetNotEmptyError
from questdb_backup.local.runner import run_restore
from questdb_backup.services import Services
from questdb_backup.steps.plan_restore import plan_restore
from tests.support.backups import INSTANCE, back_up, listing, make_services, restore_by_steps
from tests.unit.restore_steps.conftest import REBUILD


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
