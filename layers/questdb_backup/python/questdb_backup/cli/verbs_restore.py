"""Verbs that bring a database back: restore, restore-on-start."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from questdb_backup.cli.render import Progress, format_bytes
from questdb_backup.cli.verb import Outcome, Verb
from questdb_backup.clock import parse_timestamp
from questdb_backup.errors import ConfigurationError
from questdb_backup.local.options import Place
from questdb_backup.local.runner import run_restore
from questdb_backup.restore.staging import restore_progress
from questdb_backup.restore_on_start import restore_on_start
from questdb_backup.services import Services
from questdb_backup.settings import Settings, load_settings

_VERSION = "QDB_BACKUP_SERVER_VERSION"


def _configure_restore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--instance", metavar="NAME", help="which instance, where the store has several")
    parser.add_argument(
        "--timestamp", metavar="T", help="the newest backup at or before T (default: the latest)"
    )
    parser.add_argument("--server-version", metavar="V", help="the QuestDB version that will run on the root")
    parser.add_argument("--force", action="store_true", help="go on where the versions do not fit")
    parser.add_argument(
        "--keep-instance", action="store_true", help="the restored root keeps the instance's name"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored; write nothing")
    volumes = parser.add_argument_group(
        "with --stack, to EBS volumes made of the snapshots that were kept of the backup"
    )
    volumes.add_argument("--zone", metavar="AZ", help="make the volumes in this availability zone")
    volumes.add_argument("--volume-type", metavar="TYPE", help="gp3 (default), io2, ...")
    volumes.add_argument("--volume-size", metavar="GIB", type=int, help="larger than the snapshots")
    volumes.add_argument("--iops", metavar="N", type=int)
    volumes.add_argument("--throughput", metavar="MIB", type=int, help="MiB a second")
    volumes.add_argument(
        "--initialization-rate",
        metavar="MIB",
        type=int,
        help="load all data from S3 at 100 to 300 MiB a second, and wait for it; charged by the GiB",
    )
    volumes.add_argument(
        "--fast-snapshot-restore",
        action="store_true",
        help="prepare the snapshots first; charged by the hour",
    )
    volumes.add_argument("--attach-to", metavar="INSTANCE", help="attach the volumes to this EC2 instance")


_OF_VOLUMES = {
    "zone": "availability_zone",
    "volume_type": "volume_type",
    "volume_size": "size_gib",
    "iops": "iops",
    "throughput": "throughput",
    "initialization_rate": "initialization_rate",
    "fast_snapshot_restore": "fast_snapshot_restore",
    "attach_to": "attach_to",
}


def _volume_request(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The field ``volume`` of a restore's request; None where a path is asked for."""
    given = {option: value for option in _OF_VOLUMES if (value := getattr(arguments, option))}
    if given and not arguments.zone:
        flag = next(iter(given)).replace("_", "-")
        raise ConfigurationError(
            f"--{flag} is a matter of volumes, and no zone is given for them", "give --zone, say eu-west-1a"
        )
    if given and not getattr(arguments, "stack", None):
        raise ConfigurationError("volumes are made by a stack", "give --stack NAME, or --root without --zone")
    return {_OF_VOLUMES[option]: value for option, value in given.items()} or None


def _restore(arguments: argparse.Namespace, place: Place) -> Outcome:
    if arguments.root is None:
        raise ConfigurationError("restore needs the new server root", "give --root NEWROOT")
    target = _target(place)
    root = Path(arguments.root).absolute()
    request = restore_request(
        arguments,
        os.environ,
        root=str(root),
        instance=arguments.instance or target.settings.instance_name,
        restore_timestamp=target.settings.restore_timestamp,
    )
    with Progress("restore", quiet=arguments.json or arguments.dry_run) as bar:
        result = run_restore(target.services, request, lambda: bar.update(*restore_progress(root)))
    return restore_outcome(result, dry_run=arguments.dry_run)


def _target(place: Place) -> Place:
    """The place without its root: that is made by the restore, and no setting is read from it."""
    return Place(replace(place.options, root=None), os.environ)


def restore_request(
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    *,
    root: str | None,
    instance: str | None,
    restore_timestamp: str | None = None,
) -> dict[str, Any]:
    """The input of the restore's state machine, without what is not given."""
    volume = _volume_request(arguments)
    if arguments.timestamp is not None:
        parse_timestamp(arguments.timestamp)  # an empty one, of a variable that is not set, is not the latest
    request = {
        "target": "volume" if volume else None,
        "volume": volume,
        "root": root,
        "instance": instance,
        "timestamp": arguments.timestamp or restore_timestamp,
        "server_version": arguments.server_version or environ.get(_VERSION),
        "force": arguments.force,
        "keep_instance": arguments.keep_instance,
        "dry_run": arguments.dry_run,
    }
    return {key: value for key, value in request.items() if value is not None}


def restore_outcome(result: dict[str, Any], *, dry_run: bool) -> Outcome:
    """What `restore` tells of a restore's result."""
    return Outcome(value=result, text=_told(result, dry_run=dry_run))


def _told(result: dict[str, Any], *, dry_run: bool) -> str:
    root = result["root"]  # None: a stack without a file system, its notes say what to do instead
    volumes = result.get("volumes", [])
    verb = "restored" if (root or volumes) and not dry_run else "would restore"
    lines = [
        f"{verb} {result['backup_timestamp']}{f' to {root}' if root else ''}:"
        f" {result['tables']} tables, {result['files']} files, {format_bytes(result['bytes'])}",
        *map(_volume_line, volumes),
        *result.get("notes", []),
        *([result["command"]] if result.get("command") else []),
    ]
    return "\n".join(lines)


def _volume_line(volume: dict[str, Any]) -> str:
    at = f", attached to {volume['instance_id']} as {volume['device']}" if volume["instance_id"] else ""
    return (
        f"{volume['volume_id']} ({volume['size_gib']} GiB, {volume['availability_zone']}) of"
        f" {volume['source_device']} {volume['source_volume_id']}{at}"
    )


def _configure_on_start(_parser: argparse.ArgumentParser) -> None:
    """The trigger file has the rest."""


def _on_start(arguments: argparse.Namespace, place: Place) -> Outcome:
    if arguments.root is None:
        raise ConfigurationError("restore-on-start needs the server root", "give --root ROOT")

    root, options = Path(arguments.root).absolute(), place.options

    def make_services(object_store: str) -> Services:
        flags = {**options.flags, "object-store": object_store}
        return Place(replace(options, root=None, flags=flags), os.environ).services

    result = restore_on_start(
        root,
        _start_settings(place),
        make_services,
        run_restore,
        server_version=os.environ.get(_VERSION),
    )
    if result is None:
        return Outcome(value=None, text="")
    return Outcome(value=result, text=_told(result, dry_run=False))


def _start_settings(place: Place) -> Settings:
    """From the root as it stands: it has a conf folder, and no database yet."""
    root = place.options.root
    return load_settings(place.options.flags, os.environ, Path(root).absolute() if root else None)


VERBS = (
    Verb(
        name="restore",
        help="restore a backup into a new root",
        configure=_configure_restore,
        run=_restore,
        settings=lambda place: _target(place).settings,
    ),
    Verb(
        name="restore-on-start",
        help="restore what ROOT/_backup_restore asks for; nothing where it is absent",
        configure=_configure_on_start,
        run=_on_start,
        settings=_start_settings,
    ),
)
