"""CheckPreflight: everything that can be known to be wrong before CHECKPOINT CREATE is sent."""

from pathlib import Path
from typing import Any

from questdb_backup import keys
from questdb_backup.errors import ObjectExistsError, PreconditionFailedError, PreflightError
from questdb_backup.instances import read_data_id
from questdb_backup.questdb.base import DatabaseState
from questdb_backup.sealed import in_other_bytes
from questdb_backup.services import Services, logger
from questdb_backup.source.preflight import Finding, inspect_root, judge_root, judge_server
from questdb_backup.steps.intent import refuse_held
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.stores.base import ObjectStore


def check_preflight(services: Services, run: Run, source: str, database: DatabaseState) -> dict[str, Any]:
    """Give the warnings; on ``ebs`` with the `Target` that CreateSnapshots gets.

    Raise PreflightError, CheckpointHeldError, LeaseLostError; SnapshotError where EC2 refuses.
    """
    check_lease(services, run)
    refuse_held(database.checkpoint)
    prove_swaps(services.store, keys.catalog(run.instance))
    found: dict[str, Any] = {}
    if source == "ebs":
        from questdb_backup.steps.snapshots import find_volumes

        target, about_it = find_volumes(services, run)
        found, warnings = target.to_json(), [*_judge(judge_server(database.version)), *about_it]
    else:
        root = services.config.require_root()
        warnings = _judge([*judge_server(database.version), *judge_root(inspect_root(root))])
        refuse_other_server(root, database)
    for warning in warnings:
        logger.warning("%s", warning)
    return {"warnings": warnings, **found}


def _judge(findings: list[Finding]) -> list[str]:
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused:
        facts = "; ".join(finding.text for finding in refused)
        raise PreflightError(facts, refused[0].hint)
    return [f"{finding.text}. Hint: {finding.hint}." for finding in findings]


def refuse_other_server(root: Path, database: DatabaseState) -> None:
    """Raise PreflightError where the server that answers serves another root."""
    from questdb_backup.source.fresh import refuse_other_data_id, refuse_other_root

    refuse_other_data_id(root, read_data_id(root), database.data_id)
    refuse_other_root(root, database.root)


def prove_swaps(store: ObjectStore, key: str) -> None:
    """Prove on the object itself that the store honours create-only and compare-and-swap.

    Both writes offer the document that is there, so even a store that ignores the conditions loses
    nothing. ``key`` is that of a sealed document. Raise PreflightError where it does.
    """
    found = store.read(key)
    if found is None:
        raise PreflightError(
            f"{key} has vanished from {store.location}", "somebody else deletes objects there"
        )
    try:
        store.replace(key, found.data, "0" * 32)
        raise PreflightError(
            f"{store.location} ignores conditional writes (If-Match)",
            "two backups at once could harm each other there; use a store that honours them",
        )
    except PreconditionFailedError:
        pass
    try:
        store.create(key, in_other_bytes(found.data))
        raise PreflightError(
            f"{store.location} ignores conditional writes (If-None-Match)",
            "two backups at once could harm each other there; use a store that honours them",
        )
    except ObjectExistsError:
        pass
