"""What PlanBackup needs of EBS snapshots: the server root in them, and what of it has not changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice

from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.ebs.base import DirectApi, VolumeSnapshot
from questdb_backup.ebs.blocks import BaseDevice, SnapshotDevice
from questdb_backup.ebs.root import ServerRoot, open_server_root
from questdb_backup.ebs.unchanged import NOT_COMPARED, ChangedBlocks, KnownFiles, Locator
from questdb_backup.errors import SnapshotError, SourceFileError
from questdb_backup.instances import record_data_id
from questdb_backup.manifest import Manifest, read_shard
from questdb_backup.services import Services, logger
from questdb_backup.source.base import Tree
from questdb_backup.source.listing import CHECKPOINT
from questdb_backup.source.path import CheckpointSource
from questdb_backup.steps.run import Run

_SLACK_SECONDS = 5.0
_MOST_CHANGED = 4 << 20
"""Blocks, 2 TiB of them: where more have changed, comparing would save little and cost memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSnapshots:
    """The source of one run: its origin, and what tells where each file lies."""

    root: ServerRoot
    origin: CheckpointSource
    locator: Locator
    volumes: tuple[str, ...]
    api: DirectApi


def open_snapshots(
    services: Services,
    run: Run,
    snapshots: Sequence[VolumeSnapshot],
    base: Manifest | None,
    spent: frozenset[str],
    version: str | None,
    *,
    told_data_id: str | None = None,
    started_at: str | None = None,
) -> OpenSnapshots:
    """Open the root in the snapshots, see that it is this instance's database, and find what to compare with.

    ``told_data_id`` is what the server, whose checkpoint was held, says of itself; None where it is too old
    to say; ``started_at`` when that checkpoint began. Raise SourceFileError where no root is in them, or it
    is another server's, DataIdMismatchError.
    """
    config = services.config
    api = services.direct.counting()
    devices = tuple(SnapshotDevice(api, known.snapshot_id) for known in snapshots)
    root = open_server_root(
        list(zip(snapshots, devices, strict=True)),
        server_root=config.ebs_server_root,
        mounts=config.ebs_mounts,
    )
    for refused in root.refused:
        logger.info("not read: %s", refused)
    logger.info("the server root is /%s of %s on %s", root.path, root.part, snapshots[root.volume].device)
    data_id = _data_id(root.tree)
    if data_id is not None and told_data_id is not None and data_id != told_data_id:
        raise SourceFileError(
            f"the database in the snapshots has data ID {data_id}, the server has {told_data_id}",
            "the parameters DatabaseHost and DatabaseInstance name two different servers",
        )
    if started_at is not None:
        refuse_old_checkpoint(root, started_at)
    record_data_id(services.store, run.instance, data_id)
    return OpenSnapshots(
        root=root,
        origin=CheckpointSource(root.tree, server_version=version),
        locator=_locator(services, api, root, snapshots, devices, base, spent),
        volumes=tuple(known.snapshot_id for known in snapshots),
        api=api,
    )


def refuse_old_checkpoint(root: ServerRoot, started_at: str) -> None:
    """Raise SourceFileError where the checkpoint in the snapshots was made before the one that was held.

    CREATE removes and makes its folder anew; that time and ``started_at`` are of the same host's clock.
    """
    made_at = root.tree.changed_at(CHECKPOINT)
    if made_at >= parse_timestamp(started_at).timestamp() - _SLACK_SECONDS:
        return
    made = format_timestamp(datetime.fromtimestamp(made_at, UTC))
    raise SourceFileError(
        f"/{root.path}/{CHECKPOINT} in the snapshots was made at {made}, the server's checkpoint at"
        f" {started_at}: they are not of the server that was asked",
        "the parameters DatabaseInstance and VolumeIds must name the machine of DatabaseHost and the disk of"
        " its root, and ServerRoot that root; an absolute cairo.root has the checkpoint stand beside it",
    )


def _data_id(tree: Tree) -> str | None:
    try:
        return tree.read("db/.data_id", 0, 64).hex() or None
    except FileNotFoundError:
        return None


def _locator(
    services: Services,
    api: DirectApi,
    root: ServerRoot,
    snapshots: Sequence[VolumeSnapshot],
    devices: Sequence[SnapshotDevice],
    base: Manifest | None,
    spent: frozenset[str],
) -> Locator:
    everything = Locator(tree=root.tree)
    earlier = _base_snapshots(snapshots, base)
    if base is None or earlier is None:
        return everything
    if base.server_root != root.path:
        # A copy of the database may stand here in both snapshots, unchanged, but it was not what was stored.
        logger.info("the root was at %s then: everything is read", base.server_root)
        return everything
    try:
        changed = [
            ChangedBlocks(islice(api.list_changed(then.snapshot_id, now.snapshot_id), _MOST_CHANGED + 1))
            for then, now in zip(earlier, snapshots, strict=True)
        ]
        if sum(map(len, changed)) > _MOST_CHANGED:
            logger.info("too much has changed for a comparison of blocks: everything is read")
            return everything
        before = open_server_root(
            [
                (
                    replace(then, device=known.device),
                    BaseDevice(now, SnapshotDevice(api, then.snapshot_id), blocks),
                )
                for then, known, now, blocks in zip(earlier, snapshots, devices, changed, strict=True)
            ],
            server_root=root.path,
            mounts=services.config.ebs_mounts,
        )
    except (*NOT_COMPARED, SnapshotError) as error:
        logger.warning("the snapshots of %s cannot be compared with: %s", base.backup_timestamp, error)
        return everything
    tables = {table.table: table for table in base.tables}
    return Locator(
        tree=root.tree,
        base=before.tree,
        changed=changed,
        known=KnownFiles(tables, partial(read_shard, services.store)),
        spent=spent,
    )


def _base_snapshots(
    snapshots: Sequence[VolumeSnapshot], base: Manifest | None
) -> list[VolumeSnapshot] | None:
    """The previous backup's snapshots of the same volumes, in the same order; None where one lacks."""
    known = {snapshot.volume_id: snapshot for snapshot in (base.snapshots if base else ())}
    if not known or any(snapshot.volume_id not in known for snapshot in snapshots):
        return None
    return [known[snapshot.volume_id] for snapshot in snapshots]
