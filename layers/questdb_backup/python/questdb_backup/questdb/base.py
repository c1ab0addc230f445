"""What the product asks of a QuestDB server: three statements, each with a plain answer."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from questdb_backup.clock import add_seconds


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A row of ``checkpoint_status()``: ``started_at`` is its only identity, the fence."""

    in_progress: bool
    started_at: str | None


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """``now`` is the server's own clock; ``version`` the number in ``build()``, say ``9.3.4``.

    ``data_id``: that of its ``db/.data_id`` in hex. ``root``: its root, as a path of the file system that
    the server sees, which may be a container's. Both None where the server does not tell.
    """

    now: str
    version: str
    checkpoint: Checkpoint
    data_id: str | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Which checkpoint is ours.

    ``started_at`` once CREATE has returned; before that the intent's window by the server's clock:
    from ``db_now`` (None: no intent yet, so nothing is ours) for ``window_seconds``.
    """

    db_now: str | None = None
    window_seconds: float = 0.0
    started_at: str | None = None

    @property
    def window_end(self) -> str | None:
        """When the window closes, by the server's clock; None without an intent."""
        return add_seconds(self.db_now, self.window_seconds) if self.db_now else None

    def owns(self, started_at: str | None) -> bool:
        """Whether the checkpoint that started then is ours."""
        if started_at is None or self.db_now is None:
            return False
        if self.started_at is not None:
            return started_at == self.started_at
        end = self.window_end
        return end is not None and self.db_now <= started_at <= end

    def to_json(self) -> dict[str, Any]:
        """As it stands in the workflow's state."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Fence":
        """The inverse of `to_json`."""
        return cls(
            db_now=value.get("db_now"),
            window_seconds=float(value.get("window_seconds") or 0.0),
            started_at=value.get("started_at"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOutcome:
    """What became of CHECKPOINT CREATE.

    ``created``: it returned, ``started_at`` is set. ``late``: not sent, the window's last third had
    begun. ``refused``: a definite error, nothing is held by us, ``error`` has the server's words
    (``held`` the same where another checkpoint is held). ``unknown``: the connection was lost; a
    checkpoint may come to be within the window.
    """

    outcome: str
    started_at: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOutcome:
    """What became of CHECKPOINT RELEASE.

    ``released``: ours was held and is free now. ``free``: none was held, and none of ours can come
    any more. ``foreign``: one is held that is not ours; it was left alone. ``held_seconds`` by the
    server's clock, where released.
    """

    outcome: str
    started_at: str | None = None
    held_seconds: float | None = None


class Database(Protocol):
    """Raise DatabaseUnavailableError (transient) or DatabaseRejectedError; psycopg's errors never pass."""

    def read(self) -> DatabaseState:
        """The server's clock, version and checkpoint, in one connection."""

    def create_checkpoint(self, fence: Fence) -> CreateOutcome:
        """Send CHECKPOINT CREATE within the fence's window; never raises once it was sent."""

    def release_checkpoint(self, fence: Fence, *, timeout_seconds: float) -> ReleaseOutcome:
        """Compare and release, back to back on one connection.

        Retries while another CHECKPOINT command is in progress. With a fence that has only a window,
        returns ``free`` only when the window has passed with nothing of ours held. Raise
        CheckpointBusyError when ``timeout_seconds`` pass first.
        """
