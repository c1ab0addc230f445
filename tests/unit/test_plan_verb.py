"""The verb plan on roots made by hand: what it tells, and that it leaves no trace."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.catalog import acquire
from questdb_backup.catalog_store import update_catalog
from questdb_backup.cli.main import main
from questdb_backup.errors import DataIdMismatchError, StoreAccessDeniedError, StoreNotFoundError
from questdb_backup.instances import read_name
from questdb_backup.local.options import Options, Place
from questdb_backup.plan_report import PlanReport
from questdb_backup.questdb.base import Fence
from questdb_backup.questdb.memory import InMemoryQuestDB
from questdb_backup.services import Services
from questdb_backup.steps.forecast import forecast_backup
from questdb_backup.stores.open import open_store
from questdb_backup.stores.read_only import open_for_reading
from tests.support.questdb_files import OneTable, make_log

NOBODY = "host=127.0.0.1 port=1 user=admin password=quest dbname=qdb"
VERSION = ("--server-version", "9.3.4")
_FIGURES = ("partitions", "partitions_unchanged", "bytes_to_read", "units")

Snapshot = dict[str, tuple[int, int, bytes]]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("QDB_", "PG"))]:
        monkeypatch.delenv(name)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def table(tmp_path: Path) -> OneTable:
    """A root that is a frozen copy, and would do as a live one."""
    table = OneTable(tmp_path / "root").write()
    (table.root / "db" / ".backup_instance_name").unlink()
    for name in ("_meta", "_txn", "_cv"):
        table.put(f"db/t~9/{name}", table.files[f".checkpoint/db/t~9/{name}"])
    table.put("db/t~9/txn_seq/_txnlog", make_log(((1, 0, 0), (2, 7, 0))))
    return table


@pytest.fixture
def text(tmp_path: Path) -> str:
    return f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/store/atomic;"


@pytest.fixture
def run(table: OneTable, text: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(verb: str, *words: str) -> tuple[int, str, str]:
        code = main([verb, "--root", str(table.root), "--object-store", text, "--dsn", NOBODY, *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def snapshot(folder: Path) -> Snapshot:
    """Everything below, with its times: a file that is written anew with the same bytes shows too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (
            status.st_mtime_ns,
            status.st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
    return found


def planned(run: Any, *words: str) -> dict[str, Any]:
    code, out, _ = run("plan", "--json", *words)
    assert code == 0
    value: dict[str, Any] = json.loads(out)
    return value


def take_lease(services: Services, table: OneTable, text: str, purpose: str) -> None:
    """As another holder would."""
    name = read_name(table.root)
    assert name is not None
    now = services.now()
    update_catalog(
        open_store(text, max_connections=1),
        name,
        lambda before: acquire(before, holder="other", purpose=purpose, now=now, term_seconds=600.0),
    )


def backed_up(run: Any) -> dict[str, Any]:
    code, out, err = run("backup", "--frozen", "--json", *VERSION)
    assert code == 0, err
    value: dict[str, Any] = json.loads(out)
    return value


@pytest.mark.parametrize("words", [(), ("--frozen",), ("--frozen", *VERSION)], ids=" ".join)
def test_nothing_is_changed_before_the_first_backup_and_after_it(
    run: Any, tmp_path: Path, words: tuple[str, ...]
) -> None:
    before = snapshot(tmp_path)
    assert run("plan", *words)[0] == 0
    assert snapshot(tmp_path) == before

    backed_up(run)
    with sqlite3.connect(tmp_path / "root" / "backup" / "frozen" / "status.sqlite") as status:
        status.execute("pragma wal_checkpoint(truncate)")
    status.close()
    stale = tmp_path / "store" / "atomic" / "questdb-backup-1-0.tmp"
    stale.write_bytes(b"of a dead run")
    os.utime(stale, (0, 0))
    before = snapshot(tmp_path)
    assert run("plan", *words)[0] == 0
    assert snapshot(tmp_path) == before


def test_a_frozen_copy_is_planned_exactly(run: Any) -> None:
    plan = planned(run, "--frozen", *VERSION)
    made = backed_up(run)

    assert plan["exact"]
    assert (plan["bytes_to_read"], plan["files"]) == (made["bytes_read"], made["files"])
    assert {"table": "t", "directory": "t~9", "kind": "wal", "partitions": 2}.items() <= plan["tables"][
        0
    ].items()
    assert (plan["previous"], plan["bytes_to_store_estimate"]) == (None, None)


def test_what_the_last_backup_has_is_not_read_again(run: Any) -> None:
    first = backed_up(run)
    plan = planned(run, "--frozen", *VERSION)
    made = backed_up(run)

    assert plan["previous"] == first["backup_timestamp"]
    assert plan["backup_instance_name"] == first["backup_instance_name"]
    assert plan["partitions_unchanged"] == made["partitions_unchanged"] == 2
    assert plan["bytes_to_read"] == made["bytes_read"]
    assert 0 < plan["bytes_to_store_estimate"] <= first["bytes_stored"]
    assert plan["put_requests_estimate"] > 0


def test_retention_is_told_as_after_the_backup(run: Any) -> None:
    first = backed_up(run)["backup_timestamp"]

    (gone,) = planned(run, "--frozen", "--cleanup-keep-latest-n", "1")["retention"]["remove"]
    assert gone["backup_timestamp"] == first
    code, out, _ = run("plan", "--frozen", "--cleanup-keep-latest-n", "1")
    assert code == 0
    assert f"removes   {first}" in out
    assert planned(run, "--frozen", "--cleanup-keep-latest-n", "2")["retention"]["remove"] == []


def test_a_person_sees_the_tables_and_the_sums(run: Any) -> None:
    code, out, err = run("plan", "--frozen", *VERSION)

    assert (code, err) == (0, "")
    assert "| t " in out
    assert "(the root's own files)" in out
    assert "all       2 partitions" in out
    assert "to store  not known before the first backup" in out
    assert "previous  none: everything is read" in out


def test_without_a_server_everything_is_to_be_read_with_a_warning(run: Any) -> None:
    backed_up(run)
    code, out, err = run("plan", "--json")
    value = json.loads(out)

    assert code == 0
    assert (value["exact"], value["partitions"], value["partitions_unchanged"]) == (False, 2, 0)
    assert any("without its version every partition counts as changed" in text for text in value["warnings"])
    assert "warning: " in err


def test_a_version_that_is_given_stands_in_for_a_server_that_is_down(run: Any) -> None:
    backed_up(run)

    assert planned(run, *VERSION)["partitions_unchanged"] == 2


def test_a_copy_without_a_checkpoint_is_refused_as_by_backup(run: Any, table: OneTable) -> None:
    (table.root / ".checkpoint/db/t~9/_cv").unlink()

    assert run("plan", "--frozen")[0] == 1


@pytest.mark.parametrize(
    ("words", "hint"), [(["plan"], "give --root"), (["plan", "--root", "/"], "no db folder")]
)
def test_wrong_usage_ends_with_2(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert hint in capsys.readouterr().err


class TestLive:
    """The live root, with the twin of the server."""

    @pytest.fixture
    def server(self) -> InMemoryQuestDB:
        return InMemoryQuestDB()

    @pytest.fixture
    def services(self, table: OneTable, text: str, server: InMemoryQuestDB) -> Services:
        place = Place(Options(root=str(table.root), flags={"object-store": text}), {})
        return replace(
            place.services,
            make_database=lambda: server,
            make_store=lambda: open_for_reading(text, max_connections=1),
        )

    def figures(self, report: PlanReport) -> tuple[int, ...]:
        value = report.to_json()
        return tuple(value[name] for name in _FIGURES)

    def test_the_version_is_the_servers(self, services: Services, run: Any) -> None:
        backed_up(run)
        report = forecast_backup(services)

        assert self.figures(report)[:2] == (2, 2)
        assert (report.exact, report.refused) == (False, ())

    def test_what_is_settled_has_units_of_its_own(self, services: Services) -> None:
        assert self.figures(forecast_backup(services))[3] == 2

    def test_an_old_server_counts_no_squashes_so_all_is_read(
        self, services: Services, server: InMemoryQuestDB, run: Any
    ) -> None:
        backed_up(run)
        server.version = "9.1.0"
        report = forecast_backup(services)

        assert self.figures(report)[:2] == (2, 0)
        assert any("does not count squashes" in warning for warning in report.warnings)

    def test_a_held_checkpoint_is_told_and_left_alone(
        self, services: Services, server: InMemoryQuestDB
    ) -> None:
        server.create_checkpoint(Fence(db_now=server.read().now, window_seconds=5))
        held = server.read().checkpoint

        (reason,) = forecast_backup(services).refused
        assert "a checkpoint is held already" in reason
        assert server.read().checkpoint == held

    def test_of_the_checkpoint_of_a_running_backup_nobody_is_told_to_release_it(
        self, services: Services, run: Any, server: InMemoryQuestDB, table: OneTable, text: str
    ) -> None:
        backed_up(run)
        take_lease(services, table, text, "backup")
        server.create_checkpoint(Fence(db_now=server.read().now, window_seconds=5))

        (reason,) = forecast_backup(services).refused
        assert "questdb-backup guard" in reason

    def test_a_server_of_another_root_is_told_and_its_version_not_believed(
        self, services: Services, server: InMemoryQuestDB, run: Any
    ) -> None:
        backed_up(run)
        server.data_id = "ff" * 16
        report = forecast_backup(services)

        assert "does not serve" in report.refused[0]
        assert self.figures(report)[1] == 0

    def test_a_lease_that_is_held_is_told(
        self, services: Services, run: Any, table: OneTable, text: str
    ) -> None:
        backed_up(run)
        take_lease(services, table, text, "prune")

        (reason,) = forecast_backup(services).refused
        assert "a prune is running" in reason

    def test_the_name_of_another_database_is_refused_as_by_backup(
        self, services: Services, run: Any, table: OneTable
    ) -> None:
        backed_up(run)
        table.put("db/.data_id", b"\1" * 16)

        with pytest.raises(DataIdMismatchError, match="ER007"):
            forecast_backup(services)

    def test_a_file_that_a_backup_would_miss_is_told(self, services: Services, table: OneTable) -> None:
        (table.root / "db/t~9/2024-01-01/n.d").unlink()

        assert any("n.d is missing" in warning for warning in forecast_backup(services).warnings)


def test_a_store_for_reading_refuses_every_write(tmp_path: Path, text: str) -> None:
    not_made = open_for_reading(text, max_connections=1)
    assert not_made.read("a") is None
    (tmp_path / "store").mkdir()
    for store in (not_made, open_for_reading(text, max_connections=1)):
        with pytest.raises(StoreAccessDeniedError):
            store.create("a", b"")
        with pytest.raises(StoreAccessDeniedError):
            store.replace("a", b"", None)
        with pytest.raises(StoreAccessDeniedError):
            store.delete(["a"])
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("store", ["root=/no/such/store;atomic_write_dir=/no/such/a;", "atomic"])
def test_a_store_that_a_backup_could_not_make_is_not_found(tmp_path: Path, store: str) -> None:
    if store == "atomic":
        store = f"root={tmp_path};atomic_write_dir={tmp_path}/no/such/atomic;"

    with pytest.raises(StoreNotFoundError, match="mount the disk"):
        open_for_reading(f"fs::{store}", max_connections=1).read("a")
