"""Verbs that need the store only: backups, prune, verify."""

import argparse
import uuid
from dataclasses import replace
from typing import Any

from questdb_backup.backups import backup_rows
from questdb_backup.catalog import drop_lease
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.cli.render import backups_table, to_text
from questdb_backup.cli.verb import Outcome, Verb, no_arguments
from questdb_backup.errors import BackupToolError, ConfigurationError
from questdb_backup.instances import read_instances
from questdb_backup.local.guarding import guard, local_instance
from questdb_backup.local.options import Place
from questdb_backup.restore.point import find_instance
from questdb_backup.restore_point import choose_instance
from questdb_backup.services import logger
from questdb_backup.steps.lock import take_lease
from questdb_backup.steps.prune import plan_prune, prune_backups
from questdb_backup.verify import parse_read_data, verify

_MOST_HOURS = 876_000
"""A hundred years."""


def _backups(_arguments: argparse.Namespace, place: Place) -> Outcome:
    """Rows of every instance, or of the one that is named; the live progress where this machine knows it."""
    look_after(place)
    store = place.services.store
    names = [known.name for known in read_instances(store)[0]]
    wanted = place.settings.instance_name or (local_instance(place) if place.root else None)
    if wanted:
        names = [choose_instance(names, wanted)] if names else []
    rows = []
    for name in names:
        live = place.services.status.read(name) if place.root or place.options.state else None
        catalog = read_catalog(store, name)
        if catalog.last_token == 0:
            logger.warning(
                "instance %s has no catalog: `questdb-backup check` tells whether it was lost", name
            )
        rows += backup_rows(catalog, live, place.services.now())
    return backups_outcome(rows)


def backups_outcome(rows: list[dict[str, Any]]) -> Outcome:
    """What `backups` tells of the rows."""
    return Outcome(value=rows, text=to_text(backups_table(rows)) if rows else "no backups yet")


def look_after(place: Place) -> None:
    """Run the guard where a root is given, so that the next verb ends a dead run at the latest."""
    if place.root is None:
        return
    try:
        guard(place)
    except BackupToolError as error:
        logger.warning("the guard could not end a dead run: %s", error)


def chosen_instance(place: Place) -> str:
    """The instance that a verb is about: named, this root's, or the store's only one."""
    look_after(place)
    wanted = place.settings.instance_name or (local_instance(place) if place.root else None)
    return find_instance(place.services.store, wanted)


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what goes and why; delete nothing")
    parser.add_argument(
        "--grace-hours",
        type=float,
        metavar="H",
        help="how long packs of a removed backup stay, never less than twice the longest run (default 48, or"
        " that where it is more)",
    )


def refuse_grace(hours: float | None) -> None:
    """Raise ConfigurationError where these are no hours to wait."""
    if hours is not None and not 0 <= hours <= _MOST_HOURS:  # nan is neither
        raise ConfigurationError(
            f"--grace-hours {hours} is no time to wait", f"give 0 or more hours, {_MOST_HOURS} at most"
        )


def _prune(arguments: argparse.Namespace, place: Place) -> Outcome:
    given: float | None = arguments.grace_hours
    refuse_grace(given)
    services, instance = place.services, chosen_instance(place)
    wanted = services.config.grace_seconds
    grace = read_catalog(services.store, instance).grace_seconds(wanted)
    if given is not None and wanted < grace:
        raise ConfigurationError(
            f"--grace-hours {given:g} is less than twice the longest run",
            f"a run that still reads could lose what it refers to: give at least {grace / 3600:.4f}",
        )
    services = replace(services, config=replace(services.config, grace_seconds=grace))
    if arguments.dry_run:
        report = plan_prune(services, instance).to_json()
    else:
        token = take_lease(services, instance, f"prune:{uuid.uuid4().hex}", "prune")
        try:
            report = prune_backups(services, instance, token)
        finally:
            update_catalog(
                services.store,
                instance,
                lambda before: drop_lease(before, token, "the prune ended", services.now()),
            )
    lines = [f"keep    {kept['backup_timestamp']}  {', '.join(kept['reasons'])}" for kept in report["keep"]]
    lines += [
        f"remove  {gone['backup_timestamp']}  {', '.join(gone['reasons'])}" for gone in report["remove"]
    ]
    lines += [
        f"waits   {stone['backup_timestamp']}  its packs are deleted after {stone['delete_after']}"
        for stone in report["waiting"]
    ]
    lines += [f"error   {error}" for error in report["errors"]]
    if not arguments.dry_run:
        lines.append(f"{report['objects_deleted']} objects deleted")
    return Outcome(value=report, text="\n".join(lines) or "nothing to do", code=1 if report["errors"] else 0)


def _configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timestamp", metavar="T", help="the backup at or before T (default: all)")
    parser.add_argument(
        "--read-data",
        nargs="?",
        const="",
        metavar="n/t",
        help="read and decode every chunk as well; n/t: the n-th of t shares, so that t runs read all;"
        " next/t: the one that was read longest ago",
    )


def _verify(arguments: argparse.Namespace, place: Place) -> Outcome:
    part = arguments.read_data
    report = verify(
        place.services,
        chosen_instance(place),
        arguments.timestamp,
        read_data=None if part is None else parse_read_data(part),
    )
    lines = report.problems or [f"ok: {report.objects} objects checked"]
    text = "\n".join([*lines, *([str(report.read_data)] if report.read_data else [])])
    return Outcome(value=report.to_json(), text=text, code=0 if report.ok else 1)


VERBS = (
    Verb(name="backups", help="the table of backups()", configure=no_arguments, run=_backups),
    Verb(name="prune", help="apply retention: what goes, and why", configure=_configure_prune, run=_prune),
    Verb(name="verify", help="check that stored backups are whole", configure=_configure_verify, run=_verify),
)
