"""Which backups stay and which go: a pure decision that gives its reasons."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from questdb_backup.errors import ConfigurationError
from questdb_backup.words import BackupStatus

_CLEANUP_BEGAN = (BackupStatus.CLEANUP_IN_PROGRESS, BackupStatus.CLEANUP_FAILED)


class StatusRow(Protocol):
    """What retention needs of a row of `backups()`."""

    @property
    def backup_timestamp(self) -> str:
        """The backup's id, ``2024-08-24T12:34:56.789123Z``: sorts as text."""

    @property
    def status(self) -> str:
        """One of the words of `BackupStatus`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLatest:
    """Keep the latest ``n`` complete backups, ``backup.cleanup.keep.latest.n``; at least one."""

    n: int = 5

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigurationError(
                f"backup.cleanup.keep.latest.n={self.n} would leave no backup", "keep at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One backup and the sentences that say why it stays or goes."""

    backup_timestamp: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What stays and what goes, both newest first.

    ``unfinished`` are the backups whose cleanup has begun, oldest first: they are finished before
    anything else is removed. Rows of failed and running backups appear nowhere: there is nothing to
    restore in them, and what a dead run left in the store is not retention's matter.
    """

    planned_at: str
    keep: tuple[Decision, ...]
    remove: tuple[Decision, ...]
    unfinished: tuple[str, ...]


def plan_retention(rows: Iterable[StatusRow], policy: KeepLatest, now: str) -> RetentionPlan:
    """Decide about every row, as of the timestamp ``now``.

    Only complete backups count towards ``policy.n``, so the last one never goes. A timestamp that
    appears twice is one backup; its last row counts.
    """
    status_of = {row.backup_timestamp: row.status for row in rows}
    complete = sorted((ts for ts, status in status_of.items() if status == BackupStatus.BACKUP_COMPLETE))
    newest_first = complete[::-1]
    older = f"older than the latest {policy.n} complete backup{'s' if policy.n > 1 else ''}"
    return RetentionPlan(
        planned_at=now,
        keep=tuple(
            Decision(backup_timestamp=ts, reasons=(f"latest {place} of {policy.n}",))
            for place, ts in enumerate(newest_first[: policy.n], start=1)
        ),
        remove=tuple(Decision(backup_timestamp=ts, reasons=(older,)) for ts in newest_first[policy.n :]),
        unfinished=tuple(sorted(ts for ts, status in status_of.items() if status in _CLEANUP_BEGAN)),
    )
