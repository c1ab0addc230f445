"""Worker processes of a large backup: the same backup, and none of them outlives its run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import questdb_backup
from questdb_backup import unit_cutting
from questdb_backup.errors import PermanentError, SourceFileError
from questdb_backup.gentle.bucket import ReadLimit, TokenBucket
from questdb_backup.local import runner, workers
from questdb_backup.local.options import Options, Place
from questdb_backup.local.runner import run_backup
from questdb_backup.local.worker_process import InlineOrThreads, RemoteThrottle
from questdb_backup.local.workers import Workers
from questdb_backup.verify import verify
from tests.support.questdb_files import OneTable

PACKAGES = Path(questdb_backup.__file__).parents[1]
PROJECT = Path(__file__).parents[2]
COUNTED = ("bytes_read", "bytes_stored", "chunks", "chunks_reused", "files", "bytes", "tables")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = OneTable(tmp_path / "root").write().root
    (root / "db" / ".backup_instance_name").unlink()
    return place_of(tmp_path, root)


def place_of(tmp_path: Path, root: Path, **flags: str) -> Place:
    store = f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/store/atomic;"
    settings: dict[str, str | None] = {"object-store": store, "compression-threads": "2", **flags}
    return Place(Options(root=str(root), source="frozen", server_version="9.3.4", flags=settings), {})


class Watched(Workers):
    """Tells of each child; may do something when the plan is there."""

    made: list["Watched"]
    planned: Callable[["Watched"], None] | None = None

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.calls = 0
        type(self).made.append(self)

    def _prepare(self, plan: Any) -> None:
        super()._prepare(plan)
        if planned := type(self).planned:
            planned(self)

    def _call(self, event: dict[str, Any]) -> object:
        self.calls += 1
        return super()._call(event)

    def _start(self, threads: int) -> workers._Child:
        child = super()._start(threads)
        self.processes.append(child._process)
        return child


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """Every plan is worth children, and is cut into several units."""
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{PROJECT}")
    monkeypatch.setattr(workers, "LEAST_BYTES", 0)
    monkeypatch.setattr(unit_cutting, "UNIT_FILES", 4)

    class Fresh(Watched):
        made: list[Watched] = []

    monkeypatch.setattr(runner, "Workers", Fresh)
    return Fresh


def test_children_store_what_threads_would_have_stored(
    tmp_path: Path, place: Place, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_backup(place, {})

    [run] = watched.made
    assert len(run.processes) == 2
    assert run.calls > 2
    assert all(process.returncode is not None for process in run.processes)
    report = verify(place.services, result["backup_instance_name"], None, (1, 1))
    assert report.ok, report.problems
    monkeypatch.setattr(workers, "LEAST_BYTES", 1 << 40)
    root = OneTable(tmp_path / "other" / "root").write().root
    (root / "db" / ".backup_instance_name").unlink()
    alone = run_backup(place_of(tmp_path / "other", root), {})
    assert {name: result[name] for name in COUNTED} == {name: alone[name] for name in COUNTED}


def test_a_plan_that_is_not_worth_it_starts_no_child(place: Place, watched: type[Watched]) -> None:
    workers.LEAST_BYTES = 1 << 30  # put back by the fixture

    run_backup(place, {})

    assert [run.processes for run in watched.made] == [[]]


def test_an_error_in_a_child_is_the_run_s_own(place: Place, watched: type[Watched]) -> None:
    assert place.root is not None
    lost = place.root / "db/t~9/2024-01-01/n.d"
    watched.planned = lambda _: lost.unlink()

    with pytest.raises(SourceFileError, match="is referenced by the checkpoint but missing") as raised:
        run_backup(place, {})

    assert raised.value.hint
    assert all(process.returncode is not None for process in watched.made[0].processes)


def test_what_a_killed_child_had_is_done_by_another(place: Place, watched: type[Watched]) -> None:
    watched.planned = lambda run: run.processes[0].kill()

    assert run_backup(place, {})["status"] == "backup complete"

    assert len(watched.made[0].processes) > 2


def test_children_that_are_always_killed_fail_the_run(place: Place, watched: type[Watched]) -> None:
    start = watched._start

    def dying(self: Watched, threads: int) -> workers._Child:
        child = start(self, threads)
        child._process.kill()
        return child

    watched._start = dying  # type: ignore[method-assign]

    with pytest.raises(PermanentError, match="a worker process of the backup ended with code -9") as raised:
        run_backup(place, {})

    assert "memory is short" in raised.value.hint


def test_children_die_with_a_run_that_is_killed(tmp_path: Path, place: Place) -> None:
    program = (
        "import sys, time; from questdb_backup.local import workers;"
        " from questdb_backup.local.options import Options, Place;"
        " workers.LEAST_BYTES = 0;"
        f" run = workers.Workers(Place({place.options!r}, {{}}));"
        " run._prepare({'units': 2, 'bytes': 1});"
        " print(*(child._process.pid for child in run._all), flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{PACKAGES}:{PROJECT}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGKILL)

    assert len(children) == 2
    give_up = time.monotonic() + 60
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """A process that has ended may wait for a parent that asks for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_read_limit_holds_for_all_children(place: Place, watched: type[Watched], tmp_path: Path) -> None:
    assert place.root is not None
    place = place_of(tmp_path, place.root, **{"read-limit": "1G"})
    throttle = place.services.throttle
    assert isinstance(throttle, ReadLimit)

    result = run_backup(place, {})

    assert watched.made[0].calls > 2
    assert throttle._bucket.taken >= result["bytes_read"] > 0


def test_small_reads_ask_for_leave_together() -> None:
    asked: list[int] = []
    bucket = TokenBucket()

    def ask(nbytes: int) -> float:
        asked.append(nbytes)
        bucket.take(nbytes)
        return 0.5

    throttle = RemoteThrottle(ask)
    waited = [throttle.take(nbytes) for nbytes in (1, 1000, 1 << 20, 4 << 20)]

    assert asked == [1 << 20, 1 << 20, (4 << 20) - (1 << 20) + 1001]
    assert waited == [0.5, 0.0, 0.5, 0.5]
    assert throttle.throttled_seconds == 1.5
    assert RemoteThrottle(None).take(1 << 30) == 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_work_is_done_at_once_or_by_threads(threads: int) -> None:
    pool = InlineOrThreads(threads)

    assert pool.submit(divmod, 7, 2).result() == (3, 1)
    assert isinstance(pool.submit(divmod, 7, 0).exception(), ZeroDivisionError)
    pool.shutdown()
