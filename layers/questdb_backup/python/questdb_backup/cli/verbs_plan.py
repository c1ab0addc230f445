"""The verb plan: what the next backup would read, upload and cost. It writes nothing anywhere."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from questdb_backup.cli.render import format_bytes, format_seconds, print_warnings, to_text
from questdb_backup.cli.verb import Outcome, Verb
from questdb_backup.cli.verbs_backup import check_words, need_root
from questdb_backup.local.options import Place
from questdb_backup.plan_report import PlanReport, TablePlan
from questdb_backup.steps.forecast import forecast_backup
from questdb_backup.stores.read_only import open_for_reading

if TYPE_CHECKING:
    from questdb_backup.aws_forecast import StackForecast

_COLUMNS = ("table", "kind", "partitions", "unchanged", "files", "bytes", "to read")
_SHOWN = 40
_DESCRIPTION = """
Says what a backup that begins now would read and store: no checkpoint is made, no lease is taken, nothing is
written to the store, the root or the live status. The live root is looked at as it stands; with --frozen
the plan is that of the backup itself. Exit code 1: a backup would be refused now.
"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.description = " ".join(_DESCRIPTION.split())
    parser.add_argument(
        "--frozen",
        action="store_true",
        help="the root is a copy that holds its .checkpoint; no server is asked",
    )
    parser.add_argument(
        "--server-version",
        metavar="V",
        help="with --frozen: the version that made the checkpoint; else the server's, where it is down",
    )


def _plan(arguments: argparse.Namespace, place: Place) -> Outcome:
    need_root(place)
    check_words(place)
    settings = place.settings
    services = replace(
        place.services,
        make_store=lambda: open_for_reading(
            settings.require_object_store(), max_connections=settings.compression_threads + 4
        ),
    )
    report = forecast_backup(services)
    print_warnings(report.warnings)
    return Outcome(
        value=report.to_json(),
        text="" if arguments.json else "\n".join(_lines(report)),
        code=1 if report.refused else 0,
    )


def _lines(report: PlanReport) -> Iterator[str]:
    yield _table(report.tables[:_SHOWN])
    if (left := len(report.tables) - _SHOWN) > 0:
        yield f"and {left} tables with less to read (--json names all)"
    yield (
        f"all       {report.sum('partitions')} partitions, {report.sum('files')} files,"
        f" {format_bytes(report.sum('bytes'))}; unchanged {report.sum('partitions_unchanged')} partitions"
    )
    yield f"to read   {format_bytes(report.sum('bytes_to_read'))} in {report.totals.units} units"
    if report.bytes_to_store is None:
        yield "to store  not known before the first backup"
    else:
        yield f"to store  about {format_bytes(report.bytes_to_store)}, less what is found there already"
    yield f"requests  about {report.puts} PUT"
    if report.seconds is not None:
        yield f"time      about {format_seconds(report.seconds)}, as fast as the last large backup"
    yield f"previous  {report.previous or 'none: everything is read'}"
    yield from retention_lines(report.removed)
    yield from (f"refused   {reason}" for reason in report.refused)


def retention_lines(removed: tuple[dict[str, Any], ...]) -> Iterator[str]:
    """What goes after the backup, a line each."""
    yield from (f"removes   {gone['backup_timestamp']}  {', '.join(gone['reasons'])}" for gone in removed)


def forecast_lines(forecast: "StackForecast") -> Iterator[str]:
    """What `plan --stack` tells."""
    known = {name: value for name, value in forecast.counters.items() if value is not None}
    about = {"last backup": "as the last backup", "volumes": "at most about"}.get(forecast.basis, "")
    for name, word in (("bytes_read", "to read"), ("bytes_stored", "to store")):
        if name in known:
            yield f"{word:<9} {about} {format_bytes(known[name])}"
    requests = [
        f"{known[name]:.0f} {word}"
        for name, word in (("list_requests", "List"), ("get_requests", "Get"), ("put_requests", "PUT"))
        if name in known
    ]
    if requests:
        yield f"requests  {about} {', '.join(requests)}"
    if "lambda_milliseconds" in known:
        yield f"functions {about} {known['lambda_milliseconds'] / 1000:.0f} s"
    if "estimated_dollars" in known:
        yield f"cost      {about} ${known['estimated_dollars']:.4f} at list prices, without what is stored"
    yield f"previous  {forecast.previous or 'none'}"
    yield from retention_lines(forecast.removed)


def _table(tables: tuple[TablePlan, ...]) -> str:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.MARKDOWN)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", justify="left" if column in ("table", "kind") else "right")
    for each in tables:
        table.add_row(*(Text(cell) for cell in _row(each)))
    return to_text(table)


def _row(each: TablePlan) -> Iterator[str]:
    yield each.table or "(the root's own files)"
    yield each.kind
    yield from map(str, (each.partitions, each.partitions_unchanged, each.files))
    yield format_bytes(each.bytes)
    yield format_bytes(each.bytes_to_read)


VERBS = (
    Verb(name="plan", help="what the next backup would read, upload, cost", configure=_configure, run=_plan),
)
