"""One suite for every `StatusStore`: the twin in memory, SQLite, and a real DynamoDB."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.errors import BackupInProgressError, LeaseLostError
from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import LiveRun, StatusStore
from questdb_backup.status.dynamodb import DynamoStatusStore
from questdb_backup.status.memory import MemoryStatusStore
from questdb_backup.status.sqlite import SqliteStatusStore
from tests.support.dynamodb_local import DynamoDBLocal

INSTANCE = "gentle-forest-orchid"
OTHER_INSTANCE = "quiet-river-stone"
RUN = "2024-08-24T12:34:56.789123Z"
LATER_RUN = "2024-08-25T12:34:56.789123Z"
NOW = "2024-08-24T12:40:00.000000Z"
EXPIRY = "2024-08-24T12:45:00.000000Z"
FENCE = Fence(db_now=NOW, window_seconds=5.25, started_at="2024-08-24T12:40:01.000001Z")

LIVE = LiveRun(run=RUN, token=7, holder="host-a:123", expires_at=EXPIRY)
RIVAL = LiveRun(run=LATER_RUN, token=7, holder="host-b:456", expires_at=EXPIRY)

Opener = Callable[[], StatusStore]


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Each call gives a store object over the same, at first empty, status."""
    if request.param == "memory":
        memory = MemoryStatusStore()
        yield lambda: memory
    elif request.param == "sqlite":
        yield lambda: SqliteStatusStore(tmp_path / "backup" / "status.db")
    else:
        server: DynamoDBLocal = request.getfixturevalue("dynamodb_local")
        table = server.create_table()
        yield lambda: DynamoStatusStore(table, server.client())


@pytest.fixture
def store(open_store: Opener) -> StatusStore:
    return open_store()


def entered(store: StatusStore) -> LiveRun:
    live = store.read(INSTANCE)
    assert live is not None
    return live


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


# read and begin


def test_nothing_is_entered_at_first(store: StatusStore) -> None:
    assert store.read(INSTANCE) is None


@pytest.mark.parametrize(
    "live",
    [
        LIVE,
        replace(LIVE, fence=FENCE, total_bytes=11 * 2**40, done_bytes=2**53 + 1, abort_reason="asked"),
        replace(LIVE, abort_reason="", holder="rôle:☂", fence=Fence(db_now=NOW, window_seconds=30)),
        replace(LIVE, token=0),
    ],
    ids=["defaults", "full", "odd text", "zeros"],
)
def test_what_is_read_is_what_was_entered(open_store: Opener, live: LiveRun) -> None:
    open_store().begin(INSTANCE, live, NOW)

    read = open_store().read(INSTANCE)

    assert read == live
    assert read is not None
    assert [type(n) for n in (read.token, read.total_bytes, read.done_bytes)] == [int, int, int]


def test_an_expired_run_is_read_all_the_same(store: StatusStore) -> None:
    store.begin(INSTANCE, replace(LIVE, expires_at="2000-01-01T00:00:00.000000Z"), NOW)
    assert entered(store).run == RUN


def test_instances_do_not_see_each_other(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.begin(OTHER_INSTANCE, RIVAL, NOW)
    store.set_total(INSTANCE, RUN, 7, 100)
    store.add_done(INSTANCE, RUN, 7, 0, 10)
    store.finish(OTHER_INSTANCE, LATER_RUN, 7)

    assert store.read(OTHER_INSTANCE) is None
    assert entered(store) == replace(LIVE, total_bytes=100, done_bytes=10)


@pytest.mark.parametrize("token", [7, 6])
def test_a_second_run_is_refused_and_told_the_first_while_that_has_not_expired(
    store: StatusStore, token: int
) -> None:
    store.begin(INSTANCE, LIVE, NOW)

    with pytest.raises(BackupInProgressError, match=RUN) as caught:
        store.begin(INSTANCE, replace(RIVAL, token=token), NOW)

    assert LIVE.holder in str(caught.value)
    assert entered(store) == LIVE


@pytest.mark.parametrize("token", [8, 7, 6])
def test_the_same_holder_replaces_its_own_run(store: StatusStore, token: int) -> None:
    retry = replace(RIVAL, holder=LIVE.holder, token=token)
    store.begin(INSTANCE, LIVE, NOW)
    store.begin(INSTANCE, retry, NOW)
    assert entered(store) == retry


@pytest.mark.parametrize("now", [EXPIRY, "2024-08-24T12:45:00.000001Z"])
def test_a_run_that_has_expired_by_now_is_replaced_whatever_its_token(store: StatusStore, now: str) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.begin(INSTANCE, replace(RIVAL, token=1), now)
    assert entered(store) == replace(RIVAL, token=1)


def test_a_run_is_not_expired_a_microsecond_before_its_expiry(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    with pytest.raises(BackupInProgressError):
        store.begin(INSTANCE, RIVAL, "2024-08-24T12:44:59.999999Z")


def test_a_larger_token_replaces_a_run_that_has_not_expired(store: StatusStore) -> None:
    store.begin(INSTANCE, replace(LIVE, token=9), NOW)
    store.begin(INSTANCE, replace(RIVAL, token=10), NOW)
    assert entered(store) == replace(RIVAL, token=10)


def test_a_replaced_run_leaves_nothing_behind(store: StatusStore) -> None:
    store.begin(INSTANCE, replace(LIVE, fence=FENCE), NOW)
    store.set_total(INSTANCE, RUN, 7, 100)
    store.add_done(INSTANCE, RUN, 7, 0, 60)
    store.request_abort(INSTANCE, "asked")

    store.begin(INSTANCE, LIVE, NOW)
    assert entered(store) == LIVE

    store.add_done(INSTANCE, RUN, 7, 0, 60)
    assert entered(store).done_bytes == 60


# refuse_if_running


def test_the_fast_refusal_names_the_run_of_another_holder(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    with pytest.raises(BackupInProgressError, match=RUN):
        store.refuse_if_running(INSTANCE, RIVAL.holder, NOW)


def test_the_fast_refusal_lets_pass_where_no_other_run_is_alive(store: StatusStore) -> None:
    store.refuse_if_running(INSTANCE, RIVAL.holder, NOW)
    store.begin(INSTANCE, LIVE, NOW)
    store.refuse_if_running(INSTANCE, LIVE.holder, NOW)
    store.refuse_if_running(INSTANCE, RIVAL.holder, EXPIRY)
    store.refuse_if_running(OTHER_INSTANCE, RIVAL.holder, NOW)


# what only the entered run may do


CALLS: dict[str, Callable[[StatusStore, str, int], None]] = {
    "renew": lambda store, run, token: store.renew(INSTANCE, run, token, "2030-01-01T00:00:00.000000Z"),
    "record_fence": lambda store, run, token: store.record_fence(INSTANCE, run, token, FENCE),
    "set_total": lambda store, run, token: store.set_total(INSTANCE, run, token, 5),
    "add_done": lambda store, run, token: store.add_done(INSTANCE, run, token, 0, 5),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("run", "token"), [(LATER_RUN, 7), (RUN, 6), (RUN, 8)])
def test_a_run_that_is_not_entered_has_lost_its_lease_and_changes_nothing(
    store: StatusStore, call: Callable[[StatusStore, str, int], None], run: str, token: int
) -> None:
    store.begin(INSTANCE, LIVE, NOW)

    with pytest.raises(LeaseLostError, match=f"{run}.*{RUN}"):
        call(store, run, token)

    assert entered(store) == LIVE


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_run_has_lost_its_lease_where_none_is_entered(
    store: StatusStore, call: Callable[[StatusStore, str, int], None]
) -> None:
    with pytest.raises(LeaseLostError, match="no run"):
        call(store, RUN, 7)
    assert store.read(INSTANCE) is None


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_expired_run_that_nobody_replaced_still_has_its_place(
    store: StatusStore, call: Callable[[StatusStore, str, int], None]
) -> None:
    store.begin(INSTANCE, replace(LIVE, expires_at="2000-01-01T00:00:00.000000Z"), NOW)
    call(store, RUN, 7)


def test_renewing_moves_the_expiry_alone(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.renew(INSTANCE, RUN, 7, LATER_RUN)
    assert entered(store) == replace(LIVE, expires_at=LATER_RUN)


def test_a_fence_is_recorded_and_emptied(store: StatusStore) -> None:
    intent = Fence(db_now=NOW, window_seconds=30.0)
    store.begin(INSTANCE, LIVE, NOW)
    for fence in (intent, FENCE, Fence()):
        store.record_fence(INSTANCE, RUN, 7, fence)
        assert entered(store) == replace(LIVE, fence=fence)


# progress


def test_the_total_is_set_and_done_bytes_add_up_over_the_units(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.set_total(INSTANCE, RUN, 7, 12 * 2**40)
    store.add_done(INSTANCE, RUN, 7, 0, 2**40)
    store.add_done(INSTANCE, RUN, 7, 9999, 1)
    assert entered(store) == replace(LIVE, total_bytes=12 * 2**40, done_bytes=2**40 + 1)


def test_a_unit_that_is_told_again_counts_once_and_may_go_back(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    seen = []
    for done in (10, 10, 25, 0, 7):
        store.add_done(INSTANCE, RUN, 7, 3, done)
        seen.append(entered(store).done_bytes)
    assert seen == [10, 10, 25, 0, 7]


def test_a_new_total_sets_done_bytes_and_unit_marks_back(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.set_total(INSTANCE, RUN, 7, 100)
    store.add_done(INSTANCE, RUN, 7, 0, 40)

    store.set_total(INSTANCE, RUN, 7, 80)
    assert entered(store) == replace(LIVE, total_bytes=80, done_bytes=0)

    store.add_done(INSTANCE, RUN, 7, 0, 40)
    assert entered(store).done_bytes == 40


# errors


def test_the_first_error_of_a_worker_stays_word_for_word(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.record_error(INSTANCE, RUN, 7, "'db/t/x.d' has 1 bytes. Hint: ☂.")
    store.record_error(INSTANCE, RUN, 7, "second")
    assert entered(store) == replace(LIVE, error="'db/t/x.d' has 1 bytes. Hint: ☂.")


def test_an_error_of_another_run_is_refused(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    with pytest.raises(LeaseLostError):
        store.record_error(INSTANCE, LATER_RUN, 7, "x")
    assert entered(store).error is None


# abort and finish


def test_an_abort_request_is_left_on_the_entered_run_which_is_given_back(store: StatusStore) -> None:
    asked = replace(LIVE, fence=FENCE, abort_reason="the user asked")
    store.begin(INSTANCE, replace(LIVE, fence=FENCE), NOW)
    assert store.request_abort(INSTANCE, "the user asked") == asked
    assert entered(store) == asked


def test_of_two_abort_requests_the_first_reason_stays(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.request_abort(INSTANCE, "first")
    again = store.request_abort(INSTANCE, "second")
    assert again == entered(store) == replace(LIVE, abort_reason="first")


def test_an_abort_request_with_no_run_gives_none_and_leaves_nothing(store: StatusStore) -> None:
    assert store.request_abort(INSTANCE, "asked") is None
    assert store.read(INSTANCE) is None
    store.begin(INSTANCE, LIVE, NOW)
    assert entered(store).abort_reason is None


def test_an_abort_request_stays_while_the_run_goes_on(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.request_abort(INSTANCE, "asked")
    for call in CALLS.values():
        call(store, RUN, 7)
    assert entered(store).abort_reason == "asked"


def test_finishing_forgets_the_run_and_its_unit_marks(store: StatusStore) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.add_done(INSTANCE, RUN, 7, 0, 60)

    store.finish(INSTANCE, RUN, 7)
    assert store.read(INSTANCE) is None

    store.begin(INSTANCE, LIVE, NOW)
    store.add_done(INSTANCE, RUN, 7, 0, 60)
    assert entered(store).done_bytes == 60


@pytest.mark.parametrize(("run", "token"), [(LATER_RUN, 7), (RUN, 6), (RUN, 8)])
def test_finishing_a_run_that_is_not_entered_leaves_the_other_alone(
    store: StatusStore, run: str, token: int
) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.add_done(INSTANCE, RUN, 7, 0, 60)
    store.finish(INSTANCE, run, token)
    store.add_done(INSTANCE, RUN, 7, 0, 60)
    assert entered(store) == replace(LIVE, done_bytes=60)


def test_finishing_twice_or_with_no_run_is_a_success(store: StatusStore) -> None:
    store.finish(INSTANCE, RUN, 7)
    store.begin(INSTANCE, LIVE, NOW)
    store.finish(INSTANCE, RUN, 7)
    store.finish(INSTANCE, RUN, 7)
    assert store.read(INSTANCE) is None


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
