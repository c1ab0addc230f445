"""CheckPreflight: everything that can be known to be wrong before CHECKPOINT CREATE is sent."""

from typing import Any

from questdb_backup import keys
from questdb_backup.errors import ObjectExistsError, PreconditionFailedError, PreflightError
from questdb_backup.questdb.base import DatabaseState
from questdb_backup.services import Services, logger
from questdb_backup.steps.intent import refuse_held
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.stores.base import ObjectStore


def check_preflight(services: Services, run: Run, source: str, database: DatabaseState) -> dict[str, Any]:
    """Give the warnings. Raise PreflightError, CheckpointHeldError, LeaseLostError."""
    check_lease(services, run)
    if source == "ebs":
        raise PreflightError(
            "the ebs source is not available in this version",
            "run questdb-backup on the database host with --root for the path source",
        )
    refuse_held(database.checkpoint)
    prove_swaps(services.store, keys.catalog(run.instance))
    warnings = _judge(services, database.version)
    for warning in warnings:
        logger.warning("%s", warning)
    return {"warnings": warnings}


def _judge(services: Services, version: str) -> list[str]:
    from questdb_backup.source.preflight import inspect_root, judge_root, judge_server

    findings = [*judge_server(version), *judge_root(inspect_root(services.config.require_root()))]
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused:
        facts = "; ".join(finding.text for finding in refused)
        raise PreflightError(facts, refused[0].hint)
    return [f"{finding.text}. Hint: {finding.hint}." for finding in findings]


def prove_swaps(store: ObjectStore, key: str) -> None:
    """Prove on the object itself that the store honours create-only and compare-and-swap.

    Both writes offer the bytes that are there, so even a store that ignores the conditions loses
    nothing. Raise PreflightError where it does.
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
        store.create(key, found.data + b" ")
        raise PreflightError(
            f"{store.location} ignores conditional writes (If-None-Match)",
            "two backups at once could harm each other there; use a store that honours them",
        )
    except ObjectExistsError:
        pass
