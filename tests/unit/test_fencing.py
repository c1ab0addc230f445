import itertools

import pytest

from questdb_backup.clock import add_seconds
from questdb_backup.errors import CheckpointBusyError
from questdb_backup.questdb.base import Checkpoint, Fence
from questdb_backup.questdb.fencing import Action, Release, is_late, next_action

START = "2024-08-24T12:00:00.000000Z"
WINDOW = Fence(db_now=START, window_seconds=30.0)
KNOWN = Fence(db_now=START, window_seconds=30.0, started_at=add_seconds(START, 3))
FREE = Checkpoint(in_progress=False, started_at=None)


def at(seconds: float) -> str:
    return add_seconds(START, seconds)


def held(seconds: float) -> Checkpoint:
    return Checkpoint(in_progress=True, started_at=at(seconds))


@pytest.mark.parametrize(
    ("seconds", "late"), [(-1.1, True), (-0.9, False), (0, False), (20, False), (20.000001, True), (40, True)]
)
def test_create_is_late_in_the_last_third_and_before_the_intent(seconds: float, late: bool) -> None:
    assert is_late(WINDOW, at(seconds)) is late


@pytest.mark.parametrize(
    ("fence", "now", "checkpoint", "waited", "action"),
    [
        pytest.param(WINDOW, 5, held(3), 0, Action.RELEASE, id="ours by the window"),
        pytest.param(WINDOW, 90, held(30), 0, Action.RELEASE, id="ours by the window's last moment"),
        pytest.param(WINDOW, 90, held(30.000001), 0, Action.FOREIGN, id="began after the window"),
        pytest.param(WINDOW, 30, FREE, 0, Action.WAIT, id="ours may still come"),
        pytest.param(WINDOW, 30.000001, FREE, 0, Action.FREE, id="ours cannot come any more"),
        pytest.param(WINDOW, 5, held(-60), 0, Action.WAIT, id="a foreign one may go and let ours through"),
        pytest.param(WINDOW, 31, held(-60), 0, Action.FOREIGN, id="a foreign one at the window's end"),
        pytest.param(WINDOW, -3600, FREE, 31, Action.FREE, id="the server's clock was set back"),
        pytest.param(WINDOW, -3600, FREE, 30, Action.WAIT, id="set back, the window not yet passed"),
        pytest.param(KNOWN, 5, held(3), 0, Action.RELEASE, id="ours by its start"),
        pytest.param(KNOWN, 5, held(4), 0, Action.FOREIGN, id="in the window, but not ours"),
        pytest.param(KNOWN, 5, FREE, 0, Action.FREE, id="known and gone"),
        pytest.param(KNOWN, 5, Checkpoint(True, None), 0, Action.WAIT, id="one is just beginning"),
    ],
)
def test_what_a_release_does_next(
    fence: Fence, now: float, checkpoint: Checkpoint, waited: float, action: Action
) -> None:
    assert next_action(fence, at(now), checkpoint, waited_seconds=waited) is action


def test_a_release_that_does_nothing_on_the_server_ends_at_the_timeout() -> None:
    release = Release(KNOWN, 5.0, lambda _seconds: None, itertools.count().__next__)
    with pytest.raises(CheckpointBusyError, match=r"not settled in 5 s: the server has one started at 2024"):
        release.settle(lambda: (at(9), held(3)), lambda: True)


def test_held_seconds_end_when_ours_was_first_seen_gone() -> None:
    answers = iter([(at(4), held(3)), (at(8), FREE), (at(20), FREE), (at(31), FREE)])
    release = Release(WINDOW, 60.0, lambda _seconds: None, lambda: 0.0)
    outcome = release.settle(answers.__next__, lambda: True)
    assert (outcome.outcome, outcome.started_at, outcome.held_seconds) == ("released", at(3), 5.0)


def test_a_second_checkpoint_in_the_window_is_released_too() -> None:
    answers = iter([(at(4), held(3)), (at(5), held(4.5)), (at(6), FREE), (at(31), FREE)])
    sent: list[bool] = []

    def send() -> bool:
        sent.append(True)
        return True

    release = Release(WINDOW, 60.0, lambda _seconds: None, lambda: 0.0)
    outcome = release.settle(answers.__next__, send)
    assert (outcome.outcome, len(sent)) == ("released", 2)
