"""RecordIntent, RecordCheckpoint, CheckCheckpoint: the fence before, during and after CREATE."""

from typing import Any

from questdb_backup.errors import CheckpointCreateError, CheckpointHeldError
from questdb_backup.questdb.base import Checkpoint, DatabaseState, Fence
from questdb_backup.services import Services
from questdb_backup.steps.database import verify_checkpoint
from questdb_backup.steps.run import Run, check_lease

ROUNDS = 3


def refuse_held(checkpoint: Checkpoint) -> None:
    """Raise CheckpointHeldError where any checkpoint is held: before CREATE none can be ours."""
    if checkpoint.in_progress:
        raise CheckpointHeldError(
            f"a checkpoint is held already, started at {checkpoint.started_at};"
            " it is not ours and was left alone",
            "end the other backup, or run CHECKPOINT RELEASE if nobody needs it",
        )


def record_intent(services: Services, run: Run, database: DatabaseState, round_: int) -> dict[str, Any]:
    """Record that a CREATE is coming, by the server's own clock; give the fence.

    Raise CheckpointHeldError, and CheckpointCreateError after three rounds that gave no whole checkpoint.
    """
    check_lease(services, run)
    refuse_held(database.checkpoint)
    if round_ >= ROUNDS:
        raise CheckpointCreateError(
            f"CHECKPOINT CREATE gave no whole checkpoint in {ROUNDS} rounds",
            "look at the server's log for the reason, then start the backup again",
        )
    fence = Fence(db_now=database.now, window_seconds=services.config.window_seconds)
    services.status.record_fence(run.instance, run.backup_timestamp, run.token, fence)
    return {**fence.to_json(), "round": round_ + 1}


def record_checkpoint(
    services: Services, run: Run, fence: Fence, round_: int, checkpoint: dict[str, Any]
) -> dict[str, Any]:
    """Record what became of CREATE; give the fence that holds from now on.

    A definite error clears the intent: nothing is held by us. An unknown outcome keeps it. Raise
    CheckpointHeldError or CheckpointCreateError with the server's words.
    """
    outcome = checkpoint["outcome"]
    if outcome == "created":
        known = Fence(
            db_now=fence.db_now, window_seconds=fence.window_seconds, started_at=checkpoint["started_at"]
        )
    elif outcome == "unknown":
        known = fence
    else:
        known = Fence()
    services.status.record_fence(run.instance, run.backup_timestamp, run.token, known)
    if outcome == "held":
        raise CheckpointHeldError(str(checkpoint["error"]), "another checkpoint is held; it was left alone")
    if outcome == "refused":
        raise CheckpointCreateError(str(checkpoint["error"]), "the server refused CHECKPOINT CREATE")
    return {**known.to_json(), "round": round_}


def check_checkpoint(services: Services, fence: Fence, source: str) -> dict[str, Any]:
    """Our checkpoint is held, and its files are whole: ``ok`` or ``torn``.

    On ``path`` this also sees that the checkpoint was written below this very root.
    """
    verify_checkpoint(services, fence)
    if source != "path":
        return {"outcome": "ok", "torn": []}
    from questdb_backup.source.fresh import refuse_foreign_root

    refuse_foreign_root(services.config.require_root(), str(fence.started_at))
    torn = services.make_source(None).torn_tables()
    return {"outcome": "torn" if torn else "ok", "torn": torn[:20]}
