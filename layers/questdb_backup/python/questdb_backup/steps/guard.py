"""The guard: release a checkpoint that a dead run of ours left behind, and end that run for everybody.

The same decision on AWS (on execution status events and every five minutes) and on one machine (the
watchdog of a run, every start of a verb with a root, `serve` every five minutes).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from questdb_backup.catalog import drop_lease
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.errors import LeaseLostError
from questdb_backup.questdb.base import Fence, ReleaseOutcome
from questdb_backup.services import Services, logger
from questdb_backup.status.base import LiveRun
from questdb_backup.steps.fail import record_failure

ReleaseCall = Callable[[Fence], ReleaseOutcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardReport:
    """What a guard found and did.

    ``outcome``: ``idle`` (no run is known), ``running`` (it lives: left alone), ``ended`` (a dead run
    was ended), ``complete`` (the dead run had published). ``release`` is the release's outcome.
    """

    outcome: str
    backup_timestamp: str | None = None
    release: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON of `guard`."""
        return {
            "outcome": self.outcome,
            "backup_timestamp": self.backup_timestamp,
            "release": self.release,
        }


def guard_checkpoint(
    services: Services,
    instance: str,
    *,
    is_dead: Callable[[str], bool],
    release: ReleaseCall,
    reason: str = "the run died",
) -> GuardReport:
    """End what is dead: release by the fence, fail the row, drop the lease, forget the run.

    ``is_dead`` tells of a holder whether its execution has ended. The intent is forgotten only after
    the release is known to have happened; what `release` raises passes, and the next guard goes on.
    """
    live = services.status.read(instance)
    if live is None:
        return _drop_dead_lease(services, instance, is_dead, reason)
    if not is_dead(live.holder):
        return GuardReport(outcome="running", backup_timestamp=live.run)
    outcome = _release(services, instance, live, release)
    complete = _end_run(services, instance, live, reason)
    services.status.finish(instance, live.run, live.token)
    return GuardReport(
        outcome="complete" if complete else "ended", backup_timestamp=live.run, release=outcome.outcome
    )


def _release(services: Services, instance: str, live: LiveRun, release: ReleaseCall) -> ReleaseOutcome:
    if live.fence.db_now is None:
        return ReleaseOutcome(outcome="free")
    outcome = release(live.fence)
    if outcome.outcome == "foreign":
        logger.warning(
            "a checkpoint started at %s is held that is not ours; it was left alone", outcome.started_at
        )
    try:
        services.status.record_fence(instance, live.run, live.token, Fence())
    except LeaseLostError:
        logger.info("run %s was ended by another guard meanwhile", live.run)
    return outcome


def _end_run(services: Services, instance: str, live: LiveRun, reason: str) -> bool:
    """Fail the row unless the manifest is listed; drop the lease. Give whether it is listed."""
    row = read_catalog(services.store, instance).row(live.run)
    complete = row is not None and row.manifest is not None
    services.clones.clear()
    if not complete:
        record_failure(services, instance, live.run, live.abort_reason or live.error or reason)
    update_catalog(
        services.store, instance, lambda before: drop_lease(before, live.token, reason, services.now())
    )
    return complete


def _drop_dead_lease(
    services: Services, instance: str, is_dead: Callable[[str], bool], reason: str
) -> GuardReport:
    """No live run is known: a lease may still stand that a holder of this place left."""
    lease = read_catalog(services.store, instance).lease
    if lease is None:
        return GuardReport(outcome="idle")
    if lease.expires_at > services.now() and not is_dead(lease.holder):
        return GuardReport(outcome="running", backup_timestamp=lease.run)
    why = reason if is_dead(lease.holder) else f"its lease expired at {lease.expires_at}"
    update_catalog(
        services.store, instance, lambda before: drop_lease(before, lease.token, why, services.now())
    )
    return GuardReport(outcome="ended", backup_timestamp=lease.run)
