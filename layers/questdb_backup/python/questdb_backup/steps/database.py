"""The steps that talk to the server: they take plain input and need nothing else.

On AWS they are the functions inside the VPC: pgwire and Secrets Manager, no store, no status table.
"""

from typing import Any

from questdb_backup.errors import CheckpointLostError
from questdb_backup.questdb.base import Checkpoint, DatabaseState, Fence, ReleaseOutcome
from questdb_backup.services import Services


def read_database(services: Services) -> dict[str, Any]:
    """The server's clock, version, checkpoint status, and which server it is."""
    return database_to_json(services.database.read())


def create_checkpoint(services: Services, fence: Fence) -> dict[str, Any]:
    """Send CHECKPOINT CREATE; see `CreateOutcome` for what may come of it."""
    outcome = services.database.create_checkpoint(fence)
    return {"outcome": outcome.outcome, "started_at": outcome.started_at, "error": outcome.error}


def verify_checkpoint(services: Services, fence: Fence) -> None:
    """Raise CheckpointLostError unless our checkpoint is held, the very one that CREATE made."""
    checkpoint = services.database.read().checkpoint
    if checkpoint.in_progress and fence.owns(checkpoint.started_at):
        return
    found = f"one started at {checkpoint.started_at} is held" if checkpoint.in_progress else "none is held"
    raise CheckpointLostError(
        f"the checkpoint started at {fence.started_at} was lost while the backup was running: {found}",
        "a restart of the server drops the checkpoint; start the backup again",
    )


def release_checkpoint(services: Services, fence: Fence) -> dict[str, Any]:
    """Release our checkpoint and no other. Raise CheckpointBusyError, DatabaseUnavailableError."""
    outcome = services.database.release_checkpoint(
        fence, timeout_seconds=services.config.release_timeout_seconds
    )
    if outcome.held_seconds is not None:
        services.metrics.add("CheckpointHeldSeconds", outcome.held_seconds, "Seconds")
    return release_to_json(outcome)


def release_to_json(outcome: ReleaseOutcome) -> dict[str, Any]:
    """A release's outcome as it stands in the workflow's state."""
    return {
        "outcome": outcome.outcome,
        "started_at": outcome.started_at,
        "held_seconds": outcome.held_seconds,
    }


def release_from_json(value: dict[str, Any]) -> ReleaseOutcome:
    """The inverse."""
    return ReleaseOutcome(**value)


def database_to_json(state: DatabaseState) -> dict[str, Any]:
    """A server's state as it stands in the workflow's state."""
    checkpoint = {"in_progress": state.checkpoint.in_progress, "started_at": state.checkpoint.started_at}
    return {
        "now": state.now,
        "version": state.version,
        "checkpoint": checkpoint,
        "data_id": state.data_id,
        "root": state.root,
    }


def database_from_json(value: dict[str, Any]) -> DatabaseState:
    """The inverse."""
    return DatabaseState(
        now=value["now"],
        version=value["version"],
        checkpoint=Checkpoint(**value["checkpoint"]),
        data_id=value.get("data_id"),
        root=value.get("root"),
    )
