"""RestoreVolumes: volumes made of a backup's kept snapshots, step by step until they can be used.

Each call looks at what there is and does what comes next, so it may be called again and again: EC2 is
asked by tag what an earlier call made. ``$.volumes`` is ``{"request", "snapshots", "phase",
"wait_seconds", "polls", "result"}``; the phases are ``optimizing`` (fast snapshot restore),
``creating``, ``initializing``, ``attaching``, ``done``.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import chain
from typing import Any

from questdb_backup.clock import add_seconds
from questdb_backup.ebs.base import INSTANCE_TAG, KEPT_UNTIL_TAG, RUN_TAG, STACK_TAG, Snapshot, VolumeSnapshot
from questdb_backup.ebs.volumes import RestoredVolume, VolumeService, VolumeSpec
from questdb_backup.errors import ConfigurationError, NoRestorePointError, SnapshotError
from questdb_backup.restore.request import Restore
from questdb_backup.restore.server_conf import PROPERTY
from questdb_backup.restore.volume_request import VolumeRequest
from questdb_backup.services import Services, logger

RESTORE_TAG = "questdb-backup:restore"
"""Tag of a restored volume: which restore made it."""

_LAZY = (
    "the volumes fetch each block from S3 when it is first read, so the first queries are slow; read all of"
    " the data once (fio, dd), or restore with an initialization_rate"
)
_REBUILD = (
    f"add {PROPERTY}=true to its conf/server.conf: indexes in the snapshot can be ahead of their rows, and"
    " some filters would answer wrong in silence; needed for the first start only"
)
_SECONDS = {"optimizing": 60, "creating": 5, "initializing": 30, "attaching": 5, "done": 0}
_MOST_POLLS = 5000
_KEPT_SECONDS = 90_000.0
"""Longer than the 24 hours that the state machine gives a restore: a backup may be completed meanwhile."""
_LETTERS = "fghijklmnop"
"""AWS recommends /dev/sd[f-p] for data volumes."""


def restore_volumes(
    services: Services, restore: Restore, volumes: dict[str, Any], error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Do what comes next; give ``$.volumes`` anew. After an ``error`` that is only to end fast restore.

    Raise NoRestorePointError where the snapshots are not kept, ConfigurationError where a size is too
    small, SnapshotError, VolumeUnavailableError.
    """
    asked = VolumeRequest.from_json(volumes["request"])
    snapshots = [VolumeSnapshot.from_json(each) for each in volumes["snapshots"]]
    making = _Making(services, restore, asked, snapshots)
    if error is not None:
        making.end_optimizing()
        return volumes
    polls = int(volumes["polls"]) + 1
    if volumes["phase"] == "new":
        _judge(_kept_snapshots(services, restore, snapshots), asked)
    if volumes["phase"] == "new" and not volumes["dry_run"]:
        until = add_seconds(services.now(), _KEPT_SECONDS)
        services.ec2.tag_snapshots([each.snapshot_id for each in snapshots], {KEPT_UNTIL_TAG: until})
    if volumes["dry_run"]:
        return _state(volumes, "done", polls, {**restore.result(), "dry_run": True, "volumes": []})
    if polls > _MOST_POLLS:
        raise SnapshotError(
            f"the volumes of {restore.backup_timestamp} are still {volumes['phase']} after {polls} looks",
            f"look at them in EC2; they have the tag {RESTORE_TAG}",
        )
    phase, result = making.go_on()
    logger.info("volumes of %s: %s", restore.backup_timestamp, phase)
    return _state(volumes, phase, polls, result)


def _state(volumes: dict[str, Any], phase: str, polls: int, result: dict[str, Any] | None) -> dict[str, Any]:
    return {**volumes, "phase": phase, "polls": polls, "wait_seconds": _SECONDS[phase], "result": result}


def _kept_snapshots(
    services: Services, restore: Restore, snapshots: Sequence[VolumeSnapshot]
) -> list[Snapshot]:
    found = services.ec2.describe_snapshots([each.snapshot_id for each in snapshots])
    usable = [snapshot for snapshot in found if snapshot.state == "completed"]
    if len(usable) == len(snapshots):
        return usable
    tags = {INSTANCE_TAG: restore.instance, STACK_TAG: services.config.stack_name}
    kept = sorted({each.tags.get(RUN_TAG, "") for each in services.ec2.find_snapshots(tags)} - {""})
    there = f"there are some of {', '.join(kept)}; " if kept else ""
    raise NoRestorePointError(
        f"no EBS snapshots are kept of the backup {restore.backup_timestamp}",
        f"{there}this one can be restored to a path; the parameter KeepEbsSnapshots says how many are kept",
    )


def _judge(snapshots: Sequence[Snapshot], asked: VolumeRequest) -> None:
    smallest = max(snapshot.size for snapshot in snapshots) >> 30
    if asked.size_gib is not None and asked.size_gib < smallest:
        raise ConfigurationError(
            f"size_gib is {asked.size_gib}, the snapshots are of volumes of {smallest} GiB", "give no less"
        )


class _Making:
    def __init__(
        self,
        services: Services,
        restore: Restore,
        asked: VolumeRequest,
        snapshots: Sequence[VolumeSnapshot],
    ) -> None:
        self._api: VolumeService = services.volumes
        self._stack = services.config.stack_name
        self._restore = restore
        self._asked = asked
        self._snapshots = snapshots
        self._ids = [each.snapshot_id for each in snapshots]

    def go_on(self) -> tuple[str, dict[str, Any] | None]:
        """The phase, and the result where it is the last one."""
        made = {volume.snapshot_id: volume for volume in self._api.find(self._tags)}
        if not made.keys() >= set(self._ids):
            if not self._is_optimized():
                return "optimizing", None
            for snapshot in self._snapshots:
                if snapshot.snapshot_id not in made:
                    self._create(snapshot)
            return "creating", None
        volumes = [made[each] for each in self._ids]
        self._refuse_failed(volumes)
        if any(volume.state == "creating" for volume in volumes):
            return "creating", None
        self.end_optimizing()
        if self._asked.initialization_rate and not self._is_initialized(volumes):
            return "initializing", None
        if self._asked.attach_to and not self._attach(volumes, self._asked.attach_to):
            return "attaching", None
        return "done", self._result(volumes)

    @property
    def _tags(self) -> dict[str, str]:
        return {
            STACK_TAG: self._stack,
            INSTANCE_TAG: self._restore.instance,
            RESTORE_TAG: _token(self._restore.execution),
        }

    def _is_optimized(self) -> bool:
        if not self._asked.fast_snapshot_restore:
            return True
        zone = self._asked.availability_zone
        states = self._api.fast_restore_states(self._ids, zone)
        off = [each for each in self._ids if states.get(each) in (None, "disabled")]
        if off:
            self._api.enable_fast_restore(off, zone)
            return False
        return all(states[each] == "enabled" for each in self._ids)

    def end_optimizing(self) -> None:
        """It is paid for by the hour, and the volumes that were made keep what they have."""
        if self._asked.fast_snapshot_restore:
            zone = self._asked.availability_zone
            states = self._api.fast_restore_states(self._ids, zone)
            on = [each for each, state in states.items() if state in ("enabling", "optimizing", "enabled")]
            if on:
                self._api.disable_fast_restore(on, zone)

    def _create(self, snapshot: VolumeSnapshot) -> None:
        asked = self._asked
        spec = VolumeSpec(
            snapshot_id=snapshot.snapshot_id,
            availability_zone=asked.availability_zone,
            volume_type=asked.volume_type,
            size_gib=asked.size_gib,
            iops=asked.iops,
            throughput=asked.throughput,
            initialization_rate=asked.initialization_rate,
        )
        tags = {
            **self._tags,
            RUN_TAG: self._restore.backup_timestamp,
            "Name": f"questdb-backup {self._restore.instance} {self._restore.backup_timestamp}",
        }
        token = _token(f"{self._restore.execution} {snapshot.snapshot_id}")
        logger.info("%s is made of %s", self._api.create(spec, token, tags), snapshot.snapshot_id)

    def _refuse_failed(self, volumes: Sequence[RestoredVolume]) -> None:
        for volume in volumes:
            if volume.state not in ("creating", "available", "in-use"):
                raise SnapshotError(
                    f"{volume.volume_id}, made of {volume.snapshot_id}, is in state '{volume.state}'",
                    "often the key of the snapshot cannot be used; delete the volume and restore again",
                )

    def _is_initialized(self, volumes: Sequence[RestoredVolume]) -> bool:
        return all(self._api.initialized_percent(volume.volume_id) >= 100 for volume in volumes)

    def _attach(self, volumes: Sequence[RestoredVolume], instance_id: str) -> bool:
        """Attach what is not; give whether all are."""
        waiting = [volume for volume in volumes if volume.instance_id is None]
        if waiting:
            used = set(self._api.used_devices(instance_id))
            of_old = {each.snapshot_id: each.device for each in self._snapshots}
            for volume in waiting:
                device = _free_device(of_old[volume.snapshot_id], used)
                self._api.attach(volume.volume_id, instance_id, device)
                used.add(device)
            return False
        return all(volume.is_attached for volume in volumes)

    def _result(self, volumes: Sequence[RestoredVolume]) -> dict[str, Any]:
        of_old = {each.snapshot_id: each for each in self._snapshots}
        notes = list(next_steps(self._restore, attached=bool(self._asked.attach_to)))
        if not self._asked.initialization_rate and not self._asked.fast_snapshot_restore:
            notes.append(_LAZY)
        return {
            **self._restore.result(*notes),
            "volumes": [
                {
                    "volume_id": volume.volume_id,
                    "snapshot_id": volume.snapshot_id,
                    "source_volume_id": of_old[volume.snapshot_id].volume_id,
                    "source_device": of_old[volume.snapshot_id].device,
                    "availability_zone": volume.availability_zone,
                    "size_gib": volume.size_gib,
                    "instance_id": volume.instance_id,
                    "device": volume.device,
                }
                for volume in volumes
            ],
        }


def next_steps(restore: Restore, *, attached: bool) -> tuple[str, ...]:
    """What remains to be done on the host, in order.

    What to do about indexes where the server cannot make them anew stands in the restore's own notes.
    """
    return (
        *(() if attached else ("attach the volumes to the instance",)),
        "mount them where the server expects them (XFS beside the original: mount -o nouuid), with no server"
        " running on them",
        "make an empty file _restore in the server root, the folder with db and .checkpoint: without it the"
        " server would start on files that were being written",
        *((_REBUILD,) if restore.rebuild_indexes else ()),
        f"start QuestDB {restore.server_version or 'of the version that was backed up'} there; it recovers"
        " from the checkpoint and removes _restore",
    )


def _free_device(wanted: str, used: set[str]) -> str:
    for device in chain((wanted,), (f"/dev/sd{letter}" for letter in _LETTERS)):
        if device and device not in used:
            return device
    raise SnapshotError("the instance has no device name left for a volume", "detach one")


def _token(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]
