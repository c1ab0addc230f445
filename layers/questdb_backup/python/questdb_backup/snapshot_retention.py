"""Which EBS snapshots stay and which go: a pure decision that gives its reasons."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from questdb_backup.ebs.base import KEPT_UNTIL_TAG, RUN_TAG, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotDecision:
    """One snapshot, the run that made it, and why it stays or goes."""

    snapshot_id: str
    volume_id: str
    run: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPlan:
    """What stays and what goes, each in the order of the snapshots given."""

    keep: tuple[SnapshotDecision, ...]
    remove: tuple[SnapshotDecision, ...]


def plan_snapshots(
    snapshots: Iterable[Snapshot],
    *,
    live: Collection[str],
    complete: Sequence[str],
    keep: int,
    now: str,
) -> SnapshotPlan:
    """Decide about every snapshot of an instance.

    Args:
        snapshots: all of them, oldest first.
        live: runs that have not ended; nothing of theirs goes, unless they are complete.
        complete: the complete backups of the catalog, newest first.
        keep: how many of those keep the newest snapshot of each volume; their earlier rounds go.
        now: the time; what a restore keeps until later stays.
    """
    listed = list(snapshots)
    kept_runs = {run: place for place, run in enumerate(complete[:keep], start=1)}
    newest = {(_run(each), each.volume_id): each.snapshot_id for each in listed}
    stay: list[SnapshotDecision] = []
    go: list[SnapshotDecision] = []
    for each in listed:
        run = _run(each)
        is_newest = newest[run, each.volume_id] == each.snapshot_id
        if run in kept_runs:
            stays = is_newest
            reason = f"latest {kept_runs[run]} of {keep}" if stays else "replaced by a later one of its run"
        elif run in complete:
            stays, reason = False, f"older than the latest {keep} complete backups"
        else:
            stays = run in live
            reason = "its run is in progress" if stays else "its run is dead or its backup removed"
        until = each.tags.get(KEPT_UNTIL_TAG, "")
        if not stays and until > now:
            stays, reason = True, f"a restore keeps it until {until}"
        (stay if stays else go).append(
            SnapshotDecision(snapshot_id=each.snapshot_id, volume_id=each.volume_id, run=run, reason=reason)
        )
    return SnapshotPlan(keep=tuple(stay), remove=tuple(go))


def _run(snapshot: Snapshot) -> str:
    return snapshot.tags.get(RUN_TAG, "")
