"""Every outbound call between lock and unlock: an error, a kill, a stop leave the database free.

The calls are enumerated, not sampled: a clean run counts them, then one run per call and kind of
fault follows, each against the real server, each followed by a look at `checkpoint_status()`.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import BackupToolError, CheckpointHeldError
from questdb_backup.local.guarding import guard as run_guard
from questdb_backup.local.guarding import local_instance
from questdb_backup.local.options import Options, Place
from questdb_backup.local.runner import run_backup
from tests.support.faults import FaultyPlace, Gate, InjectedError, raise_injected
from tests.support.questdb_server import QuestDBServer

pytestmark = [pytest.mark.integration, pytest.mark.crash, pytest.mark.timeout(1800)]
FREE_SECONDS = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    root = tmp_path_factory.mktemp("crash") / "root"
    with QuestDBServer(root) as questdb:
        questdb.execute(
            "create table t as (select x id, timestamp_sequence('2026-01-01', 1000000L) ts"
            " from long_sequence(1000)) timestamp(ts) partition by day wal"
        )
        questdb.wait_applied()
        yield questdb


@pytest.fixture(scope="module")
def options(server: QuestDBServer) -> Options:
    folder = server.root.parent
    store = f"fs::root={folder}/store/data;atomic_write_dir={folder}/store/atomic;"
    (folder / "store").mkdir()
    options = Options(
        root=str(server.root),
        dsn=server.dsn,
        flags={"object-store": store, "cleanup-keep-latest-n": "2", "compression-threads": "1"},
        grace_hours=0.0,
    )
    for _ in range(3):  # so that the runs below reuse chunks, prune and sweep
        run_backup(Place(options, os.environ), {})
    return options


@pytest.fixture(scope="module")
def calls(options: Options) -> list[str]:
    """The outbound calls of one clean run, in order."""
    gate = Gate()
    place = FaultyPlace(options, os.environ).arm(gate)
    run_backup(place, {}, workflow_services=place.faulty_services)
    return gate.calls


def checkpoint(server: QuestDBServer) -> tuple[Any, ...]:
    (row,) = server.execute("select * from checkpoint_status()")
    return row


def assert_free_and_usable(server: QuestDBServer, options: Options, label: str) -> None:
    assert checkpoint(server)[0] is False, label
    result = run_backup(Place(options, os.environ), {})
    assert result["status"] == "backup complete", label
    assert checkpoint(server)[0] is False, label


def test_the_calls_include_every_adapter(calls: list[str]) -> None:
    """The enumeration is worth what it sees."""
    assert {name.partition(".")[0] for name in calls} == {"store", "status", "database"}
    assert {"database.create_checkpoint", "database.release_checkpoint", "store.replace"} <= set(calls)
    assert not [name for name in calls if name == "store.list"], "zero LIST"


def test_an_error_at_every_call_leaves_the_database_free(
    server: QuestDBServer, options: Options, calls: list[str]
) -> None:
    for number, name in enumerate(calls):
        for when in ("before", "after"):
            gate = Gate(at=number, when=when, act=raise_injected)
            place = FaultyPlace(options, os.environ).arm(gate)
            label = f"error {when} call {number} {name}"
            with contextlib.suppress(InjectedError, BackupToolError):
                run_backup(place, {}, workflow_services=place.faulty_services)
            assert checkpoint(server)[0] is False, label
            _assert_last_row_ended(options, label)
    assert_free_and_usable(server, options, "after all errors")


def _assert_last_row_ended(options: Options, label: str) -> None:
    place = Place(options, os.environ)
    catalog = read_catalog(place.services.store, str(local_instance(place)))
    assert catalog.lease is None, label
    assert {str(row.status) for row in catalog.rows if "in progress" in row.status} <= {
        "cleanup in progress"
    }, label


def test_a_stop_at_every_call_leaves_the_database_free(
    server: QuestDBServer, options: Options, calls: list[str]
) -> None:
    for number, name in enumerate(calls):
        label = f"stop before call {number} {name}"
        place = FaultyPlace(options, os.environ)
        gate = Gate(at=number, act=lambda _name, place=place: _request_abort(place))  # type: ignore[misc]
        with contextlib.suppress(BackupToolError):
            run_backup(place.arm(gate), {}, workflow_services=place.faulty_services)
        assert checkpoint(server)[0] is False, label
        _assert_last_row_ended(options, label)
    assert_free_and_usable(server, options, "after all stops")


def _request_abort(place: Place) -> None:
    """What `abort` does, from inside the run; then long enough for the run to see it."""
    instance = local_instance(place)
    if instance and place.services.status.request_abort(instance, "aborted by the test"):
        time.sleep(0.3)


def test_a_kill_at_every_call_leaves_the_database_free_within_seconds(
    server: QuestDBServer, options: Options, calls: list[str]
) -> None:
    slowest = 0.0
    for number, name in enumerate(calls):
        label = f"kill after call {number} {name}"
        code = _run_killed(options, number)
        assert code in (-9, 0, 1), label
        died = time.monotonic()
        while checkpoint(server)[0] and time.monotonic() - died < FREE_SECONDS:
            time.sleep(0.05)
        slowest = max(slowest, time.monotonic() - died)
        assert checkpoint(server)[0] is False, label
    print(f"\n{len(calls)} kills; the database was free after at most {slowest:.1f} s")
    assert_free_and_usable(server, options, "after all kills")
    _assert_last_row_ended(options, "after all kills")


def test_a_foreign_checkpoint_is_untouched_whatever_call_fails_or_dies(
    server: QuestDBServer, options: Options
) -> None:
    server.execute("CHECKPOINT CREATE")
    foreign = checkpoint(server)
    try:
        gate = Gate()
        place = FaultyPlace(options, os.environ).arm(gate)
        with pytest.raises(CheckpointHeldError):
            run_backup(place, {}, workflow_services=place.faulty_services)
        for number, name in enumerate(gate.calls):
            faulty = FaultyPlace(options, os.environ).arm(Gate(at=number, act=raise_injected))
            with contextlib.suppress(BackupToolError):
                run_backup(faulty, {}, workflow_services=faulty.faulty_services)
            assert checkpoint(server) == foreign, f"error before call {number} {name}"
            _run_killed(options, number)
            run_guard(Place(options, os.environ))
            assert checkpoint(server) == foreign, f"kill after call {number} {name}"
    finally:
        server.execute("CHECKPOINT RELEASE")
    assert_free_and_usable(server, options, "after the foreign checkpoint")


def _run_killed(options: Options, number: int) -> int:
    script = (
        "import os\n"
        "from questdb_backup.local.options import Options\n"
        "from questdb_backup.local.runner import run_backup\n"
        "from tests.support.faults import FaultyPlace, Gate, kill_self\n"
        f"place = FaultyPlace({options!r}, os.environ)\n"
        f"place.arm(Gate(at={number}, when='after', act=kill_self))\n"
        "run_backup(place, {}, workflow_services=place.faulty_services)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, check=False
    ).returncode
