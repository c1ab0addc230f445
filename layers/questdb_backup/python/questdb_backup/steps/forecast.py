"""The verb `plan` on one machine: what a backup would do now. It changes nothing anywhere."""

from questdb_backup.catalog import Catalog
from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import (
    CheckpointHeldError,
    DatabaseRejectedError,
    DatabaseUnavailableError,
    PreflightError,
)
from questdb_backup.instances import expected_instance
from questdb_backup.plan_report import (
    Measure,
    PlanReport,
    TablePlan,
    estimate_puts,
    estimate_seconds,
    estimate_stored,
    removed_after,
)
from questdb_backup.planner import Planner
from questdb_backup.questdb.features import counts_squashes
from questdb_backup.services import Services
from questdb_backup.source.base import Source
from questdb_backup.source.live import LiveSource
from questdb_backup.source.preflight import Finding, inspect_root, judge_root, judge_server
from questdb_backup.steps.intent import refuse_held
from questdb_backup.steps.plan import open_origin, previous_manifest
from questdb_backup.steps.preflight import refuse_other_server
from questdb_backup.steps.run import Run


class _Notes:
    """What speaks against a backup now, and what its owner should know."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.warnings: list[str] = []
        self.is_backing_up = False

    def add(self, finding: Finding) -> None:
        text = f"{finding.text}. Hint: {finding.hint}."
        (self.refused if finding.level == "refuse" else self.warnings).append(text)


def forecast_backup(services: Services) -> PlanReport:
    """Plan a backup of the live root (``path``: as it stands now) or of a frozen copy, which is exact.

    Raise what would keep a backup from being planned: SourceFileError where a copy has no whole
    checkpoint, DataIdMismatchError, and errors of the store. What CheckPreflight would refuse is
    only told.
    """
    notes = _Notes()
    instance = expected_instance(services)
    catalog = read_catalog(services.store, instance) if instance else Catalog(instance="none")
    now = services.now()
    _judge_lease(notes, catalog, now)
    origin = _open(services, notes)
    base = previous_manifest(services.store, catalog)
    run = Run(instance=catalog.instance, backup_timestamp=now, token=0)
    measure = Measure(Planner(services.store, run, catalog, base, 0), origin)
    tables = _measured(measure, origin, notes)
    removed = removed_after(catalog.rows, services.config.keep_latest_n, now)
    to_read = sum(table.bytes_to_read for table in tables)
    stored = estimate_stored(tables, base)
    return PlanReport(
        instance=instance,
        source=services.config.source,
        exact=not isinstance(origin, LiveSource),
        tables=tables,
        totals=measure.totals,
        previous=base.backup_timestamp if base else None,
        bytes_to_store=stored,
        puts=estimate_puts(measure.totals, to_read if stored is None else stored, len(removed)),
        seconds=estimate_seconds(catalog, to_read),
        removed=removed,
        refused=tuple(notes.refused),
        warnings=tuple(notes.warnings),
    )


def _measured(measure: Measure, origin: Source, notes: _Notes) -> tuple[TablePlan, ...]:
    if isinstance(origin, LiveSource):
        measure.settled()
    measure.everything()
    tables = measure.tables()
    if isinstance(origin, LiveSource):
        notes.warnings += [f"{fact}: it changed just now, or a backup fails there" for fact in origin.missed]
    return tables


def _open(services: Services, notes: _Notes) -> Source:
    config = services.config
    if config.source == "frozen":
        if not counts_squashes(config.server_version):
            notes.warnings.append(_UNSIGNED)
        return open_origin(services, "frozen", config.server_version)
    version = _ask_server(services, notes) or config.server_version
    for finding in (*judge_server(version), *judge_root(inspect_root(config.require_root()))):
        notes.add(finding)
    return LiveSource(services.make_source(version).tree, server_version=version)


def _ask_server(services: Services, notes: _Notes) -> str | None:
    """The server's version; None where it cannot be asked, or is not this root's."""
    try:
        state = services.database.read()
    except DatabaseRejectedError as error:
        notes.refused.append(str(error))
        return None
    except DatabaseUnavailableError as error:
        notes.warnings.append(f"{error.fact}: without its version every partition counts as changed")
        return None
    try:
        refuse_other_server(services.config.require_root(), state)
    except PreflightError as error:
        notes.refused.append(str(error))
        return None
    try:
        refuse_held(state.checkpoint)
    except CheckpointHeldError as error:
        if not notes.is_backing_up:  # else it is that run's, most likely: nobody should release it by hand
            notes.refused.append(str(error))
    return state.version


def _judge_lease(notes: _Notes, catalog: Catalog, now: str) -> None:
    lease = catalog.lease
    if lease is not None and lease.expires_at > now:
        notes.is_backing_up = lease.purpose == "backup"
        notes.refused.append(
            f"a {lease.purpose} is running or has died; its lease ends at {lease.expires_at}."
            " Hint: `questdb-backup guard` tells which, and ends a dead one."
        )


_UNSIGNED = (
    "without --server-version of 9.3.4 or newer no signature is believed: every partition is read and"
    " compared by content"
)
