"""The twin of a QuestDB server in memory: one server-wide checkpoint, and the ways in which it goes wrong."""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from questdb_backup.clock import Clock, add_seconds, format_timestamp, system_clock
from questdb_backup.errors import DatabaseRejectedError, DatabaseUnavailableError
from questdb_backup.questdb.base import Checkpoint, CreateOutcome, DatabaseState, Fence, ReleaseOutcome
from questdb_backup.questdb.fencing import BUSY, HELD, POLL_SECONDS, Release, is_late


class ConnectionLost(Exception):
    """What a hook raises to lose the connection of the CREATE that called it."""


class InMemoryQuestDB:
    """A `Database` whose server is this object; threads may share it.

    ``clock`` is the server's. What goes wrong is set by attributes, at any time:

    - ``is_down``: nobody connects. ``refuse_login``: the password is wrong.
    - ``before_create`` is called when CREATE has been sent and before it takes effect, ``during_create``
      while it runs, with the checkpoint in progress and every other command answered as busy. Either may
      block, restart the server, or raise `ConnectionLost`; then the outcome is unknown, and only a CREATE
      that was lost before its effect leaves no checkpoint.
    - ``create_error``: the server's words for a CREATE that it refuses.

    ``data_id`` and ``root`` are what it tells of itself.
    """

    def __init__(
        self,
        *,
        clock: Clock = system_clock,
        version: str = "9.3.4",
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = version
        self.is_down = False
        self.refuse_login = False
        self.create_error: str | None = None
        self.before_create: Callable[[], None] = _nothing
        self.during_create: Callable[[], None] = _nothing
        self.data_id: str | None = None
        self.root: str | None = None
        self._clock = clock
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._command = threading.Lock()
        self._started_at: str | None = None
        self._last_started_at = ""
        self._arrivals: list[datetime] = []

    def read(self) -> DatabaseState:
        """The server's clock, version and checkpoint."""
        self._connect()
        now, checkpoint = self._status()
        return DatabaseState(
            now=now, version=self.version, checkpoint=checkpoint, data_id=self.data_id, root=self.root
        )

    def create_checkpoint(self, fence: Fence) -> CreateOutcome:
        """CHECKPOINT CREATE; never raises once it was sent."""
        self._connect()
        if is_late(fence, self._now()):
            return CreateOutcome(outcome="late")
        try:
            self.before_create()
            error = self._create(self.during_create)
        except ConnectionLost:
            return CreateOutcome(outcome="unknown", error="the connection was lost")
        if error is not None:
            return CreateOutcome(outcome="held" if error == HELD else "refused", error=error)
        return self._confirm(fence)

    def release_checkpoint(self, fence: Fence, *, timeout_seconds: float) -> ReleaseOutcome:
        """Compare and release, back to back."""
        if fence.db_now is None:
            return ReleaseOutcome(outcome="free")
        release = Release(fence, timeout_seconds, self._sleep, self._monotonic)
        while True:
            try:
                return release.settle(self._connected_status, self._send_release)
            except DatabaseUnavailableError:
                if release.remaining() <= 0:
                    raise
            self._sleep(POLL_SECONDS)

    def hold_foreign(self) -> str:
        """Another client's CHECKPOINT CREATE, which ``during_create`` sees too; give its ``started_at``."""
        error = self._create(self.during_create)
        if error is not None or self._started_at is None:
            raise DatabaseRejectedError(f"QuestDB refused the statement: {error}")
        return self._started_at

    def release_foreign(self) -> None:
        """Another client's CHECKPOINT RELEASE, which asks nobody whose it is."""
        if not self._send_release():
            raise DatabaseRejectedError(f"QuestDB refused the statement: {BUSY}")

    def create_later(self, seconds: float) -> None:
        """Let a CREATE of a lost connection take effect so many seconds from now, by the server's clock."""
        with self._lock:
            self._arrivals.append(self._clock() + timedelta(seconds=seconds))

    def restart(self) -> None:
        """Forget the checkpoint and what was on its way: all of it is in the server's memory."""
        with self._lock:
            self._started_at = None
            self._arrivals.clear()

    def _connect(self) -> None:
        if self.is_down:
            raise DatabaseUnavailableError("no connection to QuestDB: Connection refused")
        if self.refuse_login:
            raise DatabaseRejectedError("QuestDB refused the connection: invalid username/password")

    def _now(self) -> str:
        return format_timestamp(self._clock())

    def _create(self, running: Callable[[], None]) -> str | None:
        """Run CREATE; give the server's words where it refuses."""
        if not self._command.acquire(blocking=False):
            return BUSY
        try:
            with self._lock:
                self._arrive()
                if self._started_at is not None or self.create_error is not None:
                    return HELD if self._started_at is not None else self.create_error
                self._start(self._now())
            running()
        finally:
            self._command.release()
        return None

    def _confirm(self, fence: Fence) -> CreateOutcome:
        with self._lock:
            started_at = self._started_at
            if fence.owns(started_at):
                return CreateOutcome(outcome="created", started_at=started_at)
            self._started_at = None
        return CreateOutcome(outcome="unknown", error=f"the checkpoint of {started_at} is not in the window")

    def _status(self) -> tuple[str, Checkpoint]:
        with self._lock:
            self._arrive()
            return self._now(), Checkpoint(self._started_at is not None, self._started_at)

    def _connected_status(self) -> tuple[str, Checkpoint]:
        self._connect()
        return self._status()

    def _send_release(self) -> bool:
        if not self._command.acquire(blocking=False):
            return False
        try:
            with self._lock:
                self._started_at = None
        finally:
            self._command.release()
        return True

    def _arrive(self) -> None:
        """Let what is on its way take effect, at its own time, where no checkpoint is held."""
        due = [moment for moment in self._arrivals if moment <= self._clock()]
        self._arrivals = [moment for moment in self._arrivals if moment not in due]
        if due and self._started_at is None:
            self._start(format_timestamp(min(due)))

    def _start(self, moment: str) -> None:
        """Two checkpoints never share a start, whatever the clock says."""
        if moment <= self._last_started_at:
            moment = add_seconds(self._last_started_at, 1e-6)
        self._started_at = self._last_started_at = moment


def _nothing() -> None:
    """No trouble."""
