"""One suite for every `StatusStore`: which run is entered, and who may change it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from questdb_backup.errors import BackupInProgressError, LeaseLostError
from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import LiveRun, StatusStore
from tests.contract.status_stores.conftest import (
    CALLS,
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

OTHER_INSTANCE = "quiet-river-stone"


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


def test_the_fast_refusal_leaves_a_dead_run_to_the_guard_while_its_checkpoint_may_be_held(
    store: StatusStore,
) -> None:
    store.begin(INSTANCE, LIVE, NOW)
    store.record_fence(INSTANCE, LIVE.run, LIVE.token, Fence(db_now=NOW, window_seconds=30))
    with pytest.raises(BackupInProgressError, match="may still be held"):
        store.refuse_if_running(INSTANCE, RIVAL.holder, EXPIRY)
    store.record_fence(INSTANCE, LIVE.run, LIVE.token, Fence())
    store.refuse_if_running(INSTANCE, RIVAL.holder, EXPIRY)


def test_the_fast_refusal_lets_pass_where_no_other_run_is_alive(store: StatusStore) -> None:
    store.refuse_if_running(INSTANCE, RIVAL.holder, NOW)
    store.begin(INSTANCE, LIVE, NOW)
    store.refuse_if_running(INSTANCE, LIVE.holder, NOW)
    store.refuse_if_running(INSTANCE, RIVAL.holder, EXPIRY)
    store.refuse_if_running(OTHER_INSTANCE, RIVAL.holder, NOW)


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
