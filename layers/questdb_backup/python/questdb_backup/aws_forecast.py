"""What the next backup of a deployed stack would do, from what its last one counted.

Nothing but the stack is asked, and for a first backup EC2, by the caller's own rights: the size of the
volumes, which bounds what can be read of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from questdb_backup.aws_stack import Row, Stack
from questdb_backup.clock import format_timestamp
from questdb_backup.ebs.base import BLOCK_BYTES, AttachedVolume
from questdb_backup.ebs.blocks import WINDOW_BLOCKS
from questdb_backup.ebs.cost import estimated_dollars
from questdb_backup.errors import BackupToolError
from questdb_backup.packs import PACK_BYTES
from questdb_backup.plan_report import removed_after
from questdb_backup.unit_cutting import UNIT_BYTES
from questdb_backup.words import BackupStatus

_COUNTERS = (
    "bytes",
    "bytes_read",
    "bytes_stored",
    "blocks",
    "list_requests",
    "get_requests",
    "put_requests",
    "lambda_milliseconds",
    "estimated_dollars",
)
FindVolumes = Callable[[], Sequence[AttachedVolume]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackForecast:
    """The answer of ``plan --stack``.

    ``counters`` are those of the last backup, or, where there is none, the largest of a first
    one by the size of its volumes; None is not known. ``basis``: ``last backup``, ``volumes`` or ``nothing``.
    """

    instance: str | None
    basis: str
    previous: str | None
    counters: dict[str, float | None]
    removed: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The JSON of `plan`, with the names of one machine; the tables are in the snapshots only."""
        return {
            "backup_instance_name": self.instance,
            "source": "ebs",
            "exact": False,
            "basis": self.basis,
            "tables": [],
            "bytes": self.counters["bytes"],
            "bytes_to_read": self.counters["bytes_read"],
            "bytes_to_store_estimate": self.counters["bytes_stored"],
            "units": None,
            "put_requests_estimate": self.counters["put_requests"],
            **{name: self.counters[name] for name in _COUNTERS[3:6]},
            **{name: self.counters[name] for name in _COUNTERS[7:]},
            "previous": self.previous,
            "retention": {"remove": list(self.removed)},
            "warnings": list(self.warnings),
        }


def forecast_stack(stack: Stack, now: datetime, find_volumes: FindVolumes) -> StackForecast:
    """The last complete backup as the forecast of the next one; without one what its volumes allow.

    Raise ConfigurationError, StatusUnavailableError as `Stack` says.
    """
    rows = [row for row in stack.backups() if row.get("backup_timestamp")]
    complete = [row for row in rows if row["status"] == BackupStatus.BACKUP_COMPLETE]
    last = max(complete, key=lambda row: str(row["backup_timestamp"]), default=None)
    warnings: list[str] = []
    if last is None:
        basis, counters = _of_volumes(find_volumes, warnings)
    else:
        basis, counters = _of_last(stack, last, warnings)
        if len(complete) == 1:
            warnings.append(
                "the last backup may have been the first, which read everything: the next reads less"
            )
    keep = stack.parameter("CleanupKeepLatestN")
    removed = _removed(rows, int(keep), format_timestamp(now)) if keep.isdigit() else ()
    if any(row["status"] == BackupStatus.BACKUP_IN_PROGRESS for row in rows):
        warnings.append("a backup is running: the next one is refused until it has ended")
    return StackForecast(
        instance=str(rows[-1]["backup_instance_name"]) if rows else None,
        basis=basis,
        previous=str(last["backup_timestamp"]) if last else None,
        counters=counters,
        removed=removed,
        warnings=tuple(warnings),
    )


def volumes_of(stack: Stack) -> Sequence[AttachedVolume]:
    """The volumes that a backup of the stack would take now.

    Raise SnapshotError, PreflightError, VolumeUnavailableError, ConfigurationError.
    """
    from questdb_backup.ebs.ec2 import BotoEc2
    from questdb_backup.ebs.target import find_target

    ec2 = BotoEc2()
    try:
        chosen = [each for each in stack.parameter("VolumeIds").split(",") if each]
        return find_target(ec2, stack.parameter("DatabaseInstance"), chosen).volumes
    finally:
        ec2.close()


def _of_last(stack: Stack, last: Row, warnings: list[str]) -> tuple[str, dict[str, float | None]]:
    """The counters of that backup; those of an older one where its execution is not known."""
    result = next(stack.results(), None)
    if result is None:
        warnings.append(
            "Step Functions has forgotten the last backup's execution: its counters are not known"
        )
        return "nothing", _counters({})
    if result["backup_timestamp"] != last["backup_timestamp"]:
        warnings.append(f"the counters are those of {result['backup_timestamp']}")
    return "last backup", _counters(result)


def _counters(known: dict[str, Any]) -> dict[str, float | None]:
    return {name: known.get(name) for name in _COUNTERS}


def _of_volumes(find_volumes: FindVolumes, warnings: list[str]) -> tuple[str, dict[str, float | None]]:
    """A first backup at its largest: every block is in use and read once, and nothing compresses.

    Blocks that hold several files are read more than once, so it is no strict bound where all is in use.
    """
    try:
        size = sum(volume.size for volume in find_volumes())
    except BackupToolError as error:
        warnings.append(f"the size of the volumes is not known, so nothing is told of the cost: {error}")
        return "nothing", _counters({})
    blocks, units = -(-size // BLOCK_BYTES), -(-size // UNIT_BYTES)
    most: dict[str, float] = {
        "blocks": blocks,
        "get_requests": blocks,
        "list_requests": -(-blocks // WINDOW_BLOCKS) + units,
        "put_requests": -(-size // PACK_BYTES) + 3 * units,
    }
    dollars = estimated_dollars(most, units)
    warnings.append(
        "no backup is complete yet: these are figures as if every byte of the volumes was the database's,"
        " each block was read once and nothing compressed; the time of the functions is not in them"
    )
    return "volumes", _counters(
        {**most, "bytes_read": size, "bytes_stored": size, "estimated_dollars": dollars}
    )


@dataclass(frozen=True, slots=True)
class _Row:
    backup_timestamp: str
    status: str


def _removed(rows: Sequence[Row], keep: int, now: str) -> tuple[dict[str, Any], ...]:
    return removed_after((_Row(row["backup_timestamp"], row["status"]) for row in rows), keep, now)
