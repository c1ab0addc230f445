"""PlanBackup: what the checkpoint references, cut into units of work."""

import json
from collections.abc import Iterator
from typing import Any

from questdb_backup import keys
from questdb_backup.catalog import Catalog
from questdb_backup.codec import compress_text
from questdb_backup.errors import SourceFileError
from questdb_backup.manifest import Manifest, ShardRef, read_manifest
from questdb_backup.services import Services
from questdb_backup.source.base import PlannedTable
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import Unit, UnitGroup, cut_units, encode_unit


def plan_backup(
    services: Services, run: Run, source: str, version: str | None, attempt: int
) -> dict[str, Any]:
    """Write the work list to the run's scratch; give where it is.

    A list that an earlier attempt finished is taken as it is. Raise SourceFileError where a
    referenced file is missing or too short, LeaseLostError.
    """
    catalog = check_lease(services, run)
    base = previous_manifest(services.store, catalog)
    key = keys.plan(run.instance, run.backup_timestamp)
    found = services.store.read(key)
    items = json.loads(found.data) if found else _write_plan(services, run, source, version, attempt, base)
    total = sum(item["bytes"] for item in items)
    services.status.set_total(run.instance, run.backup_timestamp, run.token, total)
    bucket, whole_key = services.store.address(key)
    return {
        "bucket": bucket,
        "key": whole_key,
        "units": len(items),
        "attempt": items[0]["attempt"] if items else attempt,
        "bytes": total,
        "previous": base.backup_timestamp if base else None,
    }


def _write_plan(
    services: Services, run: Run, source: str, version: str | None, attempt: int, base: Manifest | None
) -> list[dict[str, int]]:
    origin = services.make_source(version)
    if source == "frozen" and (torn := origin.torn_tables()):
        raise SourceFileError(
            f".checkpoint/db lacks mandatory files for {', '.join(torn[:5])}",
            "the copy was made of a torn or no checkpoint; make it anew under CHECKPOINT CREATE",
        )
    store, instance, timestamp = services.store, run.instance, run.backup_timestamp
    items: list[dict[str, int]] = []
    for number, share in enumerate(cut_units(origin.groups())):
        unit = Unit(number=number, base=_base_shards(base, share), groups=share)
        store.create(keys.unit(instance, timestamp, number, attempt), encode_unit(unit))
        size = sum(group.bytes for group in share)
        items.append({"unit": number, "attempt": attempt, "bytes": size})
    store.create(keys.plan_tables(instance, timestamp, attempt), _encode_tables(origin.tables()))
    store.create(keys.plan(instance, timestamp), json.dumps(items).encode())
    return items


def previous_manifest(store: ObjectStore, catalog: Catalog) -> Manifest | None:
    """The newest complete backup, whose chunks and shards may be referred to; retention keeps it."""
    row = catalog.latest_complete()
    return read_manifest(store, row.manifest) if row and row.manifest else None


def _base_shards(base: Manifest | None, share: tuple[UnitGroup, ...]) -> tuple[ShardRef, ...]:
    """Shards of the previous backup that hold the same tables' same stretch of time."""
    if base is None:
        return ()
    wanted: dict[str, tuple[str, str]] = {}
    for group in share:
        first, last = wanted.get(group.table, (group.partition, group.partition))
        wanted[group.table] = (min(first, group.partition), max(last, group.partition))
    return tuple(
        shard
        for table in base.tables
        if table.table in wanted
        for shard in table.shards
        if shard.first <= wanted[table.table][1] and wanted[table.table][0] <= shard.last
    )


def _encode_tables(tables: Iterator[PlannedTable]) -> bytes:
    rows = (
        {
            "table": table.table,
            "name": table.name,
            "kind": table.kind,
            "last_txn": table.last_txn,
            "txnlog_record": table.txnlog_record,
            "rows": table.rows,
        }
        for table in tables
    )
    return compress_text(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
