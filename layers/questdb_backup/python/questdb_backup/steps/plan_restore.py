"""PlanRestore: what is restored to where, and everything that can be known to be wrong before a change."""

from pathlib import Path
from typing import Any

from questdb_backup.errors import ConfigurationError, NoRestorePointError
from questdb_backup.instances import find_instance
from questdb_backup.restore.contents import cut_restore
from questdb_backup.restore.handoff import host_command, trigger_text
from questdb_backup.restore.place import take_back
from questdb_backup.restore.point import RestorePoint, find_restore_point, table_count
from questdb_backup.restore.request import Restore, RestoreRequest
from questdb_backup.restore.server_conf import judge_rebuild
from questdb_backup.restore.staging import Staging
from questdb_backup.restore.target import (
    check_database,
    check_root,
    check_space,
    make_root,
    remove_early_start,
)
from questdb_backup.restore.volume_request import VolumeRequest
from questdb_backup.restore_point import judge_server_version
from questdb_backup.services import Config, Services


def plan_restore(services: Services, execution: str, request: dict[str, Any]) -> dict[str, Any]:
    """Choose the backup, judge the target, lay out the staging directory; give the workflow's state.

    The units are those that are not done yet: of an unfinished restore of the same backup the rest.
    Without a target (and for a dry run) there are none, and ``result`` says what to do. Raise
    NoRestorePointError, VersionMismatchError, TargetNotEmptyError, StorageFullError,
    ConfigurationError, DamagedBackupError; the target is then as it was.
    """
    asked = RestoreRequest.from_json(request)
    point = find_restore_point(services.store, asked.instance or _own(services), asked.timestamp)
    notes = judge_server_version(point.manifest.server_version, asked.server_version, force=asked.force)
    root = None if asked.volume else _target(services.config, asked)
    restore = _restore(point, asked, execution, root, notes)
    if asked.volume is not None:
        return _to_volumes(services, restore, point, asked.volume, dry_run=asked.dry_run)
    if root is None:
        return _answer(services, restore, result=_handoff(services, restore, asked))
    _judge(root, restore)
    if asked.dry_run:
        return _answer(services, restore, result={**restore.result(), "dry_run": True})
    units = _lay_out(root, restore, point, services.config.max_concurrency)
    return _answer(services, restore, units=units)


def _to_volumes(
    services: Services, restore: Restore, point: RestorePoint, asked: VolumeRequest, *, dry_run: bool
) -> dict[str, Any]:
    """The state for RestoreVolumes, which may ask EC2."""
    if not point.manifest.snapshots:
        raise NoRestorePointError(
            f"the backup {restore.backup_timestamp} was not made from EBS snapshots", "restore it to a path"
        )
    volumes = {
        "request": asked.to_json(),
        "snapshots": [each.to_json() for each in point.manifest.snapshots],
        "dry_run": dry_run,
        "phase": "new",
        "polls": 0,
    }
    return {**_answer(services, restore), "target": "volume", "volumes": volumes}


def _own(services: Services) -> str | None:
    """A stack restores its own instance, also where its store has others."""
    return find_instance(services) if services.config.stack_id else services.config.instance_name


def _answer(
    services: Services,
    restore: Restore,
    *,
    units: list[int] | None = None,
    result: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "restore": restore.to_json(),
        "units": units or [],
        "max_concurrency": services.config.max_concurrency,
        "target": "path" if units is not None else "none",
        "result": result,
        "volumes": None,
    }


def _target(config: Config, asked: RestoreRequest) -> Path | None:
    """Where to restore to; None on AWS without a mounted file system."""
    mounted = config.restore_root
    if mounted is not None:
        root = mounted / (asked.root or "")
        if ".." in root.parts or not root.is_relative_to(mounted):
            raise ConfigurationError(f"root '{asked.root}' is not below {mounted}", "give a path below it")
        return root
    if config.stack_id is not None:
        return None
    if asked.root is None:
        raise ConfigurationError(
            "no target is given for the restore", "give --root with a new root directory"
        )
    return Path(asked.root).expanduser().resolve()


def _restore(
    point: RestorePoint, asked: RestoreRequest, execution: str, root: Path | None, notes: list[str]
) -> Restore:
    ref = point.row.manifest
    assert ref is not None, "a restore point has a manifest"
    rebuild, more = judge_rebuild(point.manifest.server_version, asked.server_version)
    return Restore(
        execution=execution,
        root=str(root) if root else "",
        instance=point.instance,
        backup_timestamp=point.row.backup_timestamp,
        manifest_key=ref.key,
        manifest_digest=ref.digest,
        server_version=point.manifest.server_version,
        tables=table_count(point.manifest.tables),
        files=sum(shard.files for shard in point.shards),
        bytes=sum(shard.bytes for shard in point.shards),
        keep_instance=asked.keep_instance,
        rebuild_indexes=rebuild,
        notes=(*notes, *more),
    )


def _handoff(services: Services, restore: Restore, asked: RestoreRequest) -> dict[str, Any]:
    where = (services.config.object_store, restore.instance, restore.backup_timestamp)
    return {
        **restore.result("run the command on the target host, or put the _backup_restore file into its root"),
        "command": host_command(*where, asked),
        "_backup_restore": trigger_text(*where),
    }


def _judge(root: Path, restore: Restore) -> None:
    """Everything that speaks against the target, before anything is changed there."""
    check_root(root)
    staging = Staging.find(root)
    if staging is None:
        check_database(root, unfinished=False)
        check_space(root, restore.bytes)
        return
    with staging:
        owner = staging.owner()
        placing = staging.is_placing() and not staging.is_placed()
        if not placing:  # else what stands there is our own, and is taken back first
            check_database(root, unfinished=owner is not None and not staging.is_placed())
        if owner is None or not owner.same_backup(restore) or not staging.has_plan():
            check_space(root, max(0, restore.bytes - staging.bytes_staged()))
        elif not staging.is_placed():
            check_space(root, staging.bytes_open())


def _lay_out(root: Path, restore: Restore, point: RestorePoint, workers: int) -> list[int]:
    make_root(root)
    with Staging(root, make=True) as staging, staging.lock(exclusive=True):
        owner = staging.owner()
        take_back(staging)
        check_database(root, unfinished=owner is not None)
        remove_early_start(root)
        if owner is not None and not owner.same_backup(restore):
            staging.clear()
        staging.claim(restore)
        staging.lay_out(cut_restore(point.manifest.tables, restore.bytes, workers))
        return staging.open_units()
