"""Which checkpoint is ours: the decisions, and the release that acts on them, for every kind of client."""

from collections.abc import Callable
from enum import StrEnum

from questdb_backup.clock import add_seconds, seconds_between
from questdb_backup.errors import CheckpointBusyError
from questdb_backup.questdb.base import Checkpoint, Fence, ReleaseOutcome

POLL_SECONDS = 0.2
HELD = "Waiting for CHECKPOINT RELEASE to be called"
BUSY = "Another checkpoint command is in progress"
"""The server's words for a CREATE while a checkpoint is held, and for any command while one runs."""


class Action(StrEnum):
    """What a release does next."""

    RELEASE = "release"
    WAIT = "wait"
    FREE = "free"
    FOREIGN = "foreign"


def is_late(fence: Fence, now: str) -> bool:
    """Whether CREATE must not be sent any more: the window's last third has begun, or the clock went back.

    Raise ValueError for a fence without an intent: a CREATE without one could never be found again.
    """
    if fence.db_now is None:
        raise ValueError("CHECKPOINT CREATE needs a recorded intent")
    latest = add_seconds(fence.db_now, fence.window_seconds * 2 / 3)
    return now > latest or now < add_seconds(fence.db_now, -1.0)


def next_action(fence: Fence, now: str, checkpoint: Checkpoint, *, waited_seconds: float) -> Action:
    """What a release does about the status that was read at ``now``, by the server's clock.

    While the window is open and CREATE's outcome unknown, ours may still come: a free status and a foreign
    checkpoint both mean to wait, for the foreign one may be released in time to let ours through.
    ``waited_seconds`` is how long this release has lasted by a clock that never steps: where the server's
    clock is set back, the window has passed all the same once that is longer than the window.
    """
    if checkpoint.in_progress and fence.owns(checkpoint.started_at):
        return Action.RELEASE
    if checkpoint.in_progress and checkpoint.started_at is None:
        return Action.WAIT  # its CREATE has just begun
    end = fence.window_end
    window_passed = end is None or now > end or waited_seconds > fence.window_seconds
    if fence.started_at is None and not window_passed:
        return Action.WAIT
    return Action.FOREIGN if checkpoint.in_progress else Action.FREE


class Release:
    """One release: what it waits for and what it has seen, over as many connections as it takes."""

    def __init__(
        self,
        fence: Fence,
        timeout_seconds: float,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._fence = fence
        self._timeout = timeout_seconds
        self._sleep = sleep
        self._monotonic = monotonic
        self._begun = monotonic()
        self._ours: str | None = None
        self._sent = False
        self._held_seconds: float | None = None

    def remaining(self) -> float:
        """Seconds until the timeout, by a clock that never steps."""
        return self._timeout - self._waited()

    def settle(
        self, read_status: Callable[[], tuple[str, Checkpoint]], send_release: Callable[[], bool]
    ) -> ReleaseOutcome:
        """Act until nothing of ours is held and none can come.

        ``read_status`` gives the server's clock and checkpoint, ``send_release`` whether RELEASE went through
        (False: another command is in progress), both on one connection; what they raise passes, and the next
        call goes on where this one ended. Raise CheckpointBusyError at the timeout.
        """
        while True:
            now, checkpoint = read_status()
            action = next_action(self._fence, now, checkpoint, waited_seconds=self._waited())
            if action is Action.RELEASE:
                self._ours, before = checkpoint.started_at, self._sent
                self._sent = send_release()
                if self._sent and not before:
                    continue  # see at once what it did
            else:
                self._note_gone(now)
            if action in (Action.FREE, Action.FOREIGN):
                return self._outcome(action, checkpoint)
            self._check_time(checkpoint)
            self._sleep(POLL_SECONDS)

    def _waited(self) -> float:
        return self._monotonic() - self._begun

    def _note_gone(self, now: str) -> None:
        if self._ours is not None and self._held_seconds is None:
            self._held_seconds = seconds_between(self._ours, now)

    def _outcome(self, action: Action, checkpoint: Checkpoint) -> ReleaseOutcome:
        if self._ours is not None:
            return ReleaseOutcome(outcome="released", started_at=self._ours, held_seconds=self._held_seconds)
        return ReleaseOutcome(outcome=action.value, started_at=checkpoint.started_at)

    def _check_time(self, checkpoint: Checkpoint) -> None:
        if self.remaining() > 0:
            return
        found = f"one started at {checkpoint.started_at}" if checkpoint.in_progress else "no checkpoint"
        raise CheckpointBusyError(
            f"the release was not settled in {self._timeout:g} s: the server has {found}",
            "a CHECKPOINT command runs, or ours may still begin: release again",
        )
