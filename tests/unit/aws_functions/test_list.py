"""ListBackups: the rows of a store, and which instance they are of."""

import json
from dataclasses import replace
from pathlib import Path

from questdb_backup.backups import backup_rows, list_backups
from questdb_backup.catalog import Catalog, acquire
from questdb_backup.instances import find_instance
from questdb_backup.services import Services
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import Run
from tests.support.backups import INSTANCE, back_up, make_root, make_services
from tests.unit.aws_functions.conftest import EXECUTION, NOW, call

COLUMNS = ["status", "progress_percent", "start_ts", "end_ts", "backup_error", "cleanup_error"]


def test_the_rows_have_the_six_columns_and_the_two_names(services: Services) -> None:
    run = back_up(services)
    (row,) = list_backups(services)
    assert list(row) == [*COLUMNS, "backup_timestamp", "backup_instance_name"]
    assert (row["status"], row["progress_percent"]) == ("backup complete", 100)
    assert (row["backup_timestamp"], row["backup_instance_name"]) == (run.backup_timestamp, INSTANCE)
    json.dumps(row)


def test_a_running_backup_shows_its_live_progress(services: Services) -> None:
    run = Run.from_json(acquire_lock(services, EXECUTION, {})["run"])
    services.status.set_total(INSTANCE, run.backup_timestamp, run.token, 200)
    services.status.add_done(INSTANCE, run.backup_timestamp, run.token, 0, 50)
    (row,) = list_backups(services)
    assert (row["status"], row["progress_percent"], row["end_ts"]) == ("backup in progress", 25, None)


def test_a_run_whose_lease_is_over_is_shown_as_failed() -> None:
    catalog = acquire(Catalog(instance=INSTANCE), holder="h", purpose="backup", now=NOW, term_seconds=60)
    (row,) = backup_rows(catalog, None, "2026-03-01T12:00:59.000000Z")
    assert row["status"] == "backup in progress"
    (row,) = backup_rows(catalog, None, "2026-03-01T12:01:00.000000Z")
    assert row["status"] == "backup failed"
    assert row["backup_error"]
    (row,) = backup_rows(replace(catalog, lease=None), None, NOW)
    assert row["status"] == "backup failed"


def test_without_an_instance_of_its_own_every_one_of_the_store_is_listed(
    services: Services, tmp_path: Path
) -> None:
    back_up(services)
    other = make_services(make_root(tmp_path / "two"), services.store, instance_name="quiet-river-stone")
    back_up(other)
    anyone = make_services(None, services.store, instance_name=None)
    names = {row["backup_instance_name"] for row in call("ListBackups", {}, anyone)}
    assert names == {INSTANCE, "quiet-river-stone"}
    assert call("ListBackups", {"instance": INSTANCE}, anyone) == list_backups(services)


def test_a_stack_finds_its_instance_by_its_own_id(services: Services) -> None:
    mine = make_services(services.config.root, services.store, instance_name=None, stack_id="arn:mine")
    assert find_instance(mine) is None
    back_up(mine)
    assert find_instance(mine) is not None
    assert find_instance(make_services(None, services.store, instance_name=None, stack_id="arn:x")) is None


def test_an_empty_store_has_no_rows() -> None:
    assert list_backups(make_services()) == []
