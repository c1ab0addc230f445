"""One suite for every `StatusStore`: many threads and processes at once."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from questdb_backup.errors import BackupInProgressError, LeaseLostError
from questdb_backup.status.base import LiveRun
from questdb_backup.status.sqlite import SqliteStatusStore
from tests.contract.status_stores.conftest import (
    EXPIRY,
    FENCE,
    INSTANCE,
    LATER_RUN,
    LIVE,
    NOW,
    RIVAL,
    RUN,
    Opener,
    entered,
)


def at_once(threads: int, work: Callable[[int], object]) -> list[object]:
    """What each thread's call gave or raised; they start together."""
    barrier = threading.Barrier(threads)

    def call(number: int) -> object:
        barrier.wait()
        try:
            return work(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, range(threads)))


# races


def rival(number: int, token: int = 7) -> LiveRun:
    return LiveRun(run=RUN[:-4] + f"{number:03d}Z", token=token, holder=f"host-{number}", expires_at=EXPIRY)


def test_of_sixteen_runs_that_begin_at_once_one_wins(open_store: Opener) -> None:
    outcomes = at_once(16, lambda number: open_store().begin(INSTANCE, rival(number), NOW))

    winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert entered(open_store()) == rival(winners[0])
    losers = [outcome for outcome in outcomes if outcome is not None]
    assert {type(loser) for loser in losers} == {BackupInProgressError}
    assert all(rival(winners[0]).run in str(loser) for loser in losers)


def test_of_sixteen_runs_that_replace_an_expired_one_at_once_one_wins(open_store: Opener) -> None:
    open_store().begin(INSTANCE, replace(LIVE, expires_at=NOW), NOW)
    outcomes = at_once(16, lambda number: open_store().begin(INSTANCE, rival(number), NOW))
    assert outcomes.count(None) == 1


def test_of_sixteen_leases_that_begin_at_once_the_newest_is_entered_at_the_end(open_store: Opener) -> None:
    at_once(16, lambda number: open_store().begin(INSTANCE, rival(number, token=number + 1), NOW))
    assert entered(open_store()).token == 16


def test_done_bytes_are_exact_while_eight_threads_report_units_of_their_own(open_store: Opener) -> None:
    store = open_store()
    store.begin(INSTANCE, LIVE, NOW)

    def report(thread: int) -> None:
        for step in range(50):
            store.add_done(INSTANCE, RUN, 7, thread * 10 + step % 10, step + 1)

    assert at_once(8, report) == [None] * 8
    assert entered(store).done_bytes == 8 * sum(range(41, 51))


def test_done_bytes_are_exact_while_eight_threads_report_the_same_units(
    open_store: Opener,
) -> None:
    store = open_store()
    store.begin(INSTANCE, LIVE, NOW)

    def report(thread: int) -> None:
        for step in range(50):
            store.add_done(INSTANCE, RUN, 7, step % 3, 1000 * thread + step)

    assert at_once(8, report) == [None] * 8
    # a report that was counted twice, or not, would stay in the sum for good
    for unit in range(3):
        store.add_done(INSTANCE, RUN, 7, unit, 500 + unit)
    assert entered(store).done_bytes == 500 + 501 + 502


def test_progress_renewal_and_abort_at_once_lose_nothing(open_store: Opener) -> None:
    store = open_store()
    store.begin(INSTANCE, LIVE, NOW)
    work: list[Callable[[int], object]] = [
        lambda step: store.add_done(INSTANCE, RUN, 7, step, 10),
        lambda step: store.renew(INSTANCE, RUN, 7, LATER_RUN),
        lambda step: store.record_fence(INSTANCE, RUN, 7, FENCE),
        lambda step: store.request_abort(INSTANCE, "asked"),
    ]

    def repeat(thread: int) -> None:
        for step in range(15):
            work[thread](step)

    assert at_once(4, repeat) == [None] * 4
    assert entered(store) == replace(
        LIVE, expires_at=LATER_RUN, fence=FENCE, abort_reason="asked", done_bytes=150
    )


def test_a_new_total_while_units_are_reported_counts_none_of_the_old_reports(open_store: Opener) -> None:
    store = open_store()
    store.begin(INSTANCE, LIVE, NOW)

    def work(thread: int) -> None:
        for step in range(20):
            if thread == 0:
                store.set_total(INSTANCE, RUN, 7, step)
            else:
                store.add_done(INSTANCE, RUN, 7, thread, 1000 * thread + step)

    assert at_once(4, work) == [None] * 4
    for unit in range(4):
        store.add_done(INSTANCE, RUN, 7, unit, 100)
    assert entered(store).done_bytes == 400


def test_a_worker_of_a_run_that_was_replaced_while_it_reports_never_counts_in_the_new_one(
    open_store: Opener,
) -> None:
    store = open_store()
    store.begin(INSTANCE, LIVE, NOW)
    successor = replace(RIVAL, token=8)

    def work(thread: int) -> None:
        if thread == 0:
            store.begin(INSTANCE, successor, NOW)
            return
        for step in range(20):
            store.add_done(INSTANCE, RUN, 7, thread, step + 1)

    outcomes = at_once(5, work)
    assert all(outcome is None or isinstance(outcome, LeaseLostError) for outcome in outcomes)
    assert entered(store) == successor


WORKER = """
import sys
from pathlib import Path
from questdb_backup.errors import BackupInProgressError
from questdb_backup.status.base import LiveRun
from questdb_backup.status.sqlite import SqliteStatusStore

path, instance, run, number, now, expiry = sys.argv[1:]
store = SqliteStatusStore(Path(path))
sys.stdin.read()
try:
    store.begin("race", LiveRun(run=run, token=1, holder=number, expires_at=expiry), now)
    print("won")
except BackupInProgressError:
    print("refused")
for step in range(25):
    store.add_done(instance, run, 7, step % 5, step)
    store.add_done(instance, run, 7, 100 + int(number), step)
for unit in range(5):
    store.add_done(instance, run, 7, unit, 30)
"""


def test_four_processes_share_one_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "status.db"
    store = SqliteStatusStore(path)
    store.begin(INSTANCE, LIVE, NOW)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), INSTANCE, RUN, str(number), NOW, EXPIRY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.stdin = None  # closed together, so that they start together
    said = [worker.communicate()[0].strip() for worker in workers]

    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(said) == ["refused"] * 3 + ["won"]
    assert entered(store).done_bytes == 4 * 24 + 5 * 30
