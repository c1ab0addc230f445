"""What is told where the store is not the one that is meant, or has lost something."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.errors import ConfigurationError, NoRestorePointError
from questdb_backup.instances import resolve_instance
from questdb_backup.restore.point import complete_rows, find_instance
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.stores.memory import MemoryObjectStore
from questdb_backup.verify import verify
from tests.support.backups import INSTANCE, back_up, make_root, make_services


def test_a_store_without_the_instance_that_the_root_names_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty mount point in place of the backup disk."""
    root = make_root(tmp_path / "root")
    first = make_services(root)
    first = replace(first, config=replace(first.config, instance_name=None, root=root))
    with caplog.at_level(logging.WARNING, "questdb_backup"):
        resolve_instance(first)
        resolve_instance(first)
        assert "see that the disk is mounted" not in caplog.text
        away = replace(first, make_store=MemoryObjectStore)
        resolve_instance(away)
    assert "see that the disk is mounted" in caplog.text


def test_a_root_that_gets_another_name_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_root(tmp_path / "root")
    services = make_services(root)
    for name in ("first-name-given", "other-name-given"):
        named = replace(services, config=replace(services.config, instance_name=name, root=root))
        with caplog.at_level(logging.WARNING, "questdb_backup"):
            assert resolve_instance(named).name == name
    assert "was instance first-name-given, it is other-name-given from now on" in caplog.text


def test_a_lost_catalog_is_looked_for_before_a_backup_is_made(tmp_path: Path) -> None:
    services = make_services(make_root(tmp_path / "root"))
    back_up(services)
    services.store.delete([keys.catalog(INSTANCE)])
    with pytest.raises(NoRestorePointError, match="--rebuild"):
        complete_rows(services.store, INSTANCE)


def test_an_instance_without_a_complete_backup_is_not_whole(tmp_path: Path) -> None:
    services = make_services(make_root(tmp_path / "root"))
    acquire_lock(services, "run-1", {})
    assert not verify(services, INSTANCE).ok


def test_an_instance_that_never_had_a_backup_stands_in_nobodys_way(tmp_path: Path) -> None:
    """As a run leaves it that was given the wrong root."""
    services = make_services(make_root(tmp_path / "root"))
    back_up(services)
    wrong = replace(services, config=replace(services.config, instance_name="wrong-root-given"))
    acquire_lock(wrong, "run-2", {})
    assert find_instance(services.store, None) == INSTANCE
    back_up(wrong, "run-2")
    with pytest.raises(ConfigurationError, match="several backup instances"):
        find_instance(services.store, None)
