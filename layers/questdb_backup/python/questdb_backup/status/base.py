"""The live status of an instance's run: intent, fence, progress, abort requests.

It is an index that may be lost at any time: the catalog beside the data is the truth of what
exists. What only lives here is the intent of a running backup and its progress.
"""

from dataclasses import dataclass, field
from typing import Protocol

from questdb_backup.questdb.base import Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """The run that the status knows of, live or dead."""

    run: str
    """Its backup_timestamp."""
    token: int
    holder: str
    expires_at: str
    fence: Fence = field(default_factory=Fence)
    total_bytes: int = 0
    done_bytes: int = 0
    abort_reason: str | None = None
    error: str | None = None
    """What the first failing worker said: a failed Map tells its parent nothing of it."""


class StatusStore(Protocol):
    """One live run per instance; instances do not see each other.

    `renew`, `record_fence`, `set_total` and `add_done` name the run and its token and raise
    LeaseLostError, with nothing changed, where the status knows another run, another token or none;
    they do not look at the expiry. All raise StatusUnavailableError (transient) and ConfigurationError
    (no such table, no rights, an unreadable file). Methods may be called from several threads and
    processes, and each takes effect whole or not at all. Expired means ``expires_at <= now``.
    """

    def begin(self, instance: str, live: LiveRun, now: str) -> None:
        """Enter the run, exactly as given, without unit marks.

        Replaces whole (fence, counters, abort request) a run of the same holder (a retry, whatever its
        token), one that has expired by ``now``, and one whose token is smaller (the catalog gave a newer
        lease). Raise BackupInProgressError, naming the run and its holder, while an unexpired run of
        another holder with the same or a larger token is entered.
        """

    def refuse_if_running(self, instance: str, holder: str, now: str) -> None:
        """The fast refusal, before the catalog is asked.

        Raise BackupInProgressError while an unexpired run of another holder is entered, whatever its token,
        and while one is entered, expired or not, whose checkpoint may be held: the guard needs that entry.
        """

    def read(self, instance: str) -> LiveRun | None:
        """The run that is entered, expired or not; None where there is none."""

    def renew(self, instance: str, run: str, token: int, expires_at: str) -> None:
        """Move the expiry."""

    def record_fence(self, instance: str, run: str, token: int, fence: Fence) -> None:
        """Write the intent, the checkpoint, or (an empty fence) that nothing of ours is held."""

    def set_total(self, instance: str, run: str, token: int, total_bytes: int) -> None:
        """What the plan counted; sets done bytes to 0 and the unit marks back to none."""

    def add_done(self, instance: str, run: str, token: int, unit: int, done_bytes: int) -> None:
        """Set how many bytes of one unit are done: idempotent per unit, so a retry never counts twice.

        The run's ``done_bytes`` follows by the difference to the unit's last value, down as well as up.
        """

    def record_error(self, instance: str, run: str, token: int, error: str) -> None:
        """Note a worker's error, word for word; the first one stays."""

    def request_abort(self, instance: str, reason: str) -> LiveRun | None:
        """Leave an abort request on the run that is entered, expired or not; the first reason stays.

        Give that run with its request, or None where there is none.
        """

    def finish(self, instance: str, run: str, token: int) -> None:
        """Forget the run and its unit marks.

        Another run, another token or none being entered is a success, and is left alone.
        """
