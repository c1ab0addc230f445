"""One suite for every `StatusStore`: progress, errors, abort requests, the end."""

from dataclasses import replace

import pytest

from questdb_backup.errors import LeaseLostError
from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import StatusStore
from tests.contract.status_stores.conftest import CALLS, FENCE, INSTANCE, LATER_RUN, LIVE, NOW, RUN, entered


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
