"""A restore from its plan to its place, and what a request can ask for."""

from pathlib import Path
from typing import Any

import pytest

from questdb_backup.errors import ConfigurationError, NoRestorePointError, VersionMismatchError
from questdb_backup.local.runner import run_restore
from questdb_backup.services import Services
from questdb_backup.steps.plan_restore import plan_restore
from questdb_backup.stores.counting import CountingStore
from questdb_backup.stores.fs import FsObjectStore
from tests.support.backups import (
    INSTANCE,
    VERSION,
    back_up,
    listing,
    make_root,
    make_services,
    restore_by_steps,
)
from tests.unit.restore_steps.conftest import REBUILD, planned

Json = dict[str, Any]


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
