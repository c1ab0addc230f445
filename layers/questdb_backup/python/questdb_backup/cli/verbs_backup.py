"""Verbs of the database host: backup, abort, guard."""

import argparse
import time
from typing import Any

from questdb_backup.catalog_store import read_catalog
from questdb_backup.cli.render import BackupProgress, format_bytes
from questdb_backup.cli.verb import Outcome, Verb, no_arguments
from questdb_backup.errors import ConfigurationError
from questdb_backup.local.guarding import guard, local_instance
from questdb_backup.local.options import Place
from questdb_backup.local.runner import run_backup
from questdb_backup.questdb.features import parse_version
from questdb_backup.status.run_lock import is_held
from questdb_backup.stores.connection_string import parse_connection_string

_ABORT_WAIT_SECONDS = 120.0


def need_root(place: Place) -> None:
    """Raise ConfigurationError where no server root is given."""
    if place.root is None:
        raise ConfigurationError("this verb needs the server root", "give --root with QuestDB's -d folder")


def _configure_backup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frozen",
        action="store_true",
        help="the root is a copy that holds its .checkpoint; no server is asked",
    )
    parser.add_argument(
        "--server-version", metavar="V", help="with --frozen: the version that made the checkpoint"
    )


def _backup(arguments: argparse.Namespace, place: Place) -> Outcome:
    need_root(place)
    check_words(place)
    with BackupProgress(held_down=lambda: place.services.held_down, quiet=arguments.json) as bar:
        result = run_backup(place, {"trigger": "manual"}, bar.show)
    return backup_outcome(result)


def check_words(place: Place) -> None:
    """Before anything is begun. For a frozen copy no server is asked, so no connection is looked at."""
    if place.options.source == "frozen":
        parse_connection_string(place.settings.require_object_store())
        version = place.options.server_version
        if version is not None and parse_version(version) is None:
            raise ConfigurationError(f"--server-version '{version}' is no release", "say 9.3.4")
    else:
        place.check_words()


def backup_outcome(result: dict[str, Any]) -> Outcome:
    """What `backup` tells of a backup's row and counters."""
    stored, read = result.get("bytes_stored", 0), result.get("bytes_read", 0)
    held = result.get("checkpoint_held_seconds")
    text = (
        f"{result['backup_timestamp']}\n"
        f"instance {result['backup_instance_name']}: read {format_bytes(read)},"
        f" stored {format_bytes(stored)}, reused {format_bytes(result.get('bytes_reused', 0))}"
        + (f", checkpoint held {held:.1f} s" if held is not None else "")
    )
    return Outcome(value=result, text=text)


def _abort(_arguments: argparse.Namespace, place: Place) -> Outcome:
    """As BACKUP ABORT: stop the running backup of this machine, and wait until the database is free."""
    need_root(place)
    instance = local_instance(place)
    live = place.services.status.read(instance) if instance else None
    if instance is None or live is None:
        return abort_outcome("not running", None)
    if not is_held(place.state.run_lock):
        guard(place)
        return abort_outcome("not running", None)
    place.services.status.request_abort(instance, "aborted by the user")
    give_up = time.monotonic() + _ABORT_WAIT_SECONDS
    while is_held(place.state.run_lock) and time.monotonic() < give_up:
        time.sleep(0.1)
    row = read_catalog(place.services.store, instance).row(live.run)
    if row is not None and row.manifest is not None:
        return abort_outcome("not running", live.run)
    return abort_outcome("aborted", live.run)


def abort_outcome(status: str, backup_timestamp: str | None) -> Outcome:
    """What `abort` tells: ``aborted`` or ``not running``."""
    return Outcome(value={"status": status, "backup_timestamp": backup_timestamp}, text=status)


def _guard(_arguments: argparse.Namespace, place: Place) -> Outcome:
    need_root(place)
    report = guard(place)
    left = report.release or "none"
    text = {
        "idle": "nothing to do: no run is known",
        "running": f"the run {report.backup_timestamp} is alive and was left alone",
        "ended": f"the dead run {report.backup_timestamp} was ended; checkpoint: {left}",
        "complete": f"the run {report.backup_timestamp} had completed; checkpoint: {left}",
    }[report.outcome]
    return Outcome(value=report.to_json(), text=text)


VERBS = (
    Verb(
        name="backup",
        help="start a backup, follow it, print its backup_timestamp",
        configure=_configure_backup,
        run=_backup,
    ),
    Verb(
        name="abort",
        help="stop the running backup; prints aborted or not running",
        configure=no_arguments,
        run=_abort,
    ),
    Verb(
        name="guard",
        help="release a checkpoint that a dead run of ours left behind",
        configure=no_arguments,
        run=_guard,
    ),
)
