"""PlanBackup: units of work; first of what is settled, then of all that the checkpoint has."""

import json
import time
from functools import partial
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.errors import DamagedBackupError, SourceFileError
from questdb_backup.manifest import Manifest, read_manifest
from questdb_backup.planner import Clone, Planner
from questdb_backup.services import Services, logger
from questdb_backup.settled import read_settled
from questdb_backup.source.base import Source
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.stores.base import ObjectStore


def plan_backup(
    services: Services,
    run: Run,
    source: str,
    version: str | None,
    started_at: str | None,
    attempt: int,
    snapshots: tuple[VolumeSnapshot, ...] = (),
    data_id: str | None = None,
) -> dict[str, Any]:
    """Write a work list to the run's scratch; give where it is.

    Without a checkpoint (``started_at`` None, source ``path``) it has the partitions that will hardly change
    any more, so that they are stored before the checkpoint is held; else everything. With ``snapshots``
    the files are read out of those, which must hold the database of ``data_id``, where the server tells
    it. A list that an earlier attempt finished is taken as it is. The outcome is ``planned``, or ``torn``
    where a table was dropped while CREATE ran: then the checkpoint in the snapshots has a hole. Where it is
    ``cloned``, all that is to be read was cloned, and the checkpoint need not be held any more. Raise
    SourceFileError where a referenced file is missing or too short, LeaseLostError.
    """
    began = time.monotonic()
    catalog = check_lease(services, run)
    base = previous_manifest(services.store, catalog)
    settled = source == "path" and started_at is None
    make_key = keys.settled_plan if settled else keys.plan
    key = make_key(run.instance, run.backup_timestamp)
    found = services.store.read(key)
    before = [] if settled else _settled_items(services.store, run)
    facts: dict[str, Any] = {}
    if found:
        items = json.loads(found.data)
    else:
        largest = services.config.largest_unit_bytes
        planner = Planner(services.store, run, catalog, base, attempt, largest=largest)
        if source == "ebs":
            from questdb_backup.ebs.planning import open_snapshots

            opened = open_snapshots(
                services,
                run,
                snapshots,
                base,
                planner.spent,
                version,
                told_data_id=data_id,
                started_at=started_at,
            )
            if torn := opened.origin.torn_tables():
                return {"outcome": "torn", "tables": torn[:5]}
            planner.read_from(opened.volumes, opened.locator.pieces)
            facts["server_root"] = opened.root.path
            origin: Source = opened.origin
        else:
            origin = open_origin(services, source, version)
        if settled:
            items = planner.plan_settled(origin)
        else:
            items = planner.plan(
                origin, read_settled(services.store, run, before), before, _clone(services, run, source)
            )
        services.store.create(key, json.dumps(items).encode())
        if source == "ebs":
            # Units, tables and the list itself. Another attempt that finds the list counts nothing.
            puts, passed = len(items) + 2, round((time.monotonic() - began) * 1000)
            facts["counters"] = {
                **opened.api.requests,
                "put_requests": puts,
                "lambda_milliseconds": passed,
            }
    _tell_total(services, run, [*before, *items])
    bucket, whole_key = services.store.address(key)
    return {
        "outcome": "planned",
        "bucket": bucket,
        "key": whole_key,
        "settled": settled,
        "cloned": any(item["cloned"] for item in items),
        "first": len(before),
        "units": len(items),
        "attempt": items[0]["attempt"] if items else attempt,
        "bytes": sum(item["bytes"] for item in items),
        "previous": base.backup_timestamp if base else None,
        **facts,
    }


def _clone(services: Services, run: Run, source: str) -> Clone | None:
    """What a live root has under its checkpoint is cloned where it can be; an earlier attempt's goes."""
    if source != "path":
        return None
    services.clones.clear()
    return partial(services.clones.add, run.backup_timestamp)


def previous_manifest(store: ObjectStore, catalog: Catalog) -> Manifest | None:
    """The newest complete backup, whose chunks and shards may be referred to; retention keeps it.

    None where there is none, and where its manifest is damaged: the next backup must not suffer from it.
    """
    row = catalog.latest_complete()
    try:
        return read_manifest(store, row.manifest) if row and row.manifest else None
    except DamagedBackupError as error:
        logger.warning("everything is read and stored anew: %s", error)
        return None


def _settled_items(store: ObjectStore, run: Run) -> list[dict[str, Any]]:
    found = store.read(keys.settled_plan(run.instance, run.backup_timestamp))
    return json.loads(found.data) if found else []


def open_origin(services: Services, source: str, version: str | None) -> Source:
    """The root under its checkpoint. Raise SourceFileError where a frozen copy has no whole one."""
    origin = services.make_source(version)
    if source == "frozen" and (torn := origin.torn_tables()):
        raise SourceFileError(
            f".checkpoint/db lacks mandatory files for {', '.join(torn[:5])}",
            "the copy was made of a torn or no checkpoint; make it anew under CHECKPOINT CREATE",
        )
    return origin


def _tell_total(services: Services, run: Run, items: list[dict[str, Any]]) -> None:
    total = sum(item["bytes"] for item in items)
    services.status.set_total(run.instance, run.backup_timestamp, run.token, total)
