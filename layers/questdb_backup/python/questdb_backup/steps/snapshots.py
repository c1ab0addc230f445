"""CreateSnapshots and CheckSnapshots: the volumes under the checkpoint, then until they can be read.

What they give is ``$.snapshots``: ``{"volumes": [{"volume_id", "device", "snapshot_id"}], "state":
"pending" | "completed", "progress_percent", "polls", "wait_seconds"}``: ``progress_percent`` is EC2's, of the
snapshot that has come least far, for whoever looks at the execution.
"""

from collections.abc import Sequence
from typing import Any

from questdb_backup.ebs.base import (
    CHECKPOINT_TAG,
    INSTANCE_TAG,
    RUN_TAG,
    STACK_TAG,
    Snapshot,
    UnknownOutcomeError,
    VolumeSnapshot,
)
from questdb_backup.ebs.target import Target, find_target, judge_target
from questdb_backup.errors import ConfigurationError, SnapshotError, VolumeUnavailableError
from questdb_backup.questdb.base import Fence
from questdb_backup.services import Services, logger
from questdb_backup.steps.run import Run, check_lease

_LOOKS = 5
_LOOK_SECONDS = 2.0
_WAITS = ((600, 15), (86_400, 60), (165_600, 300))
"""Until so many seconds have been waited, wait so many: the 46 h make 1,734 polls, and at the 9 events of a
poll some 15,600 of the 25,000 events that an execution may have."""
_POLLS_UNTIL_SEEN = 5
"""DescribeSnapshots may not know a new snapshot at once."""


def find_volumes(services: Services, run: Run) -> tuple[Target, list[str]]:
    """The instance's volumes for CheckPreflight, with warnings: nothing is looked up under the checkpoint."""
    selector = services.config.ebs_instance
    if selector is None:
        raise ConfigurationError(
            "the database's EC2 instance is not known",
            "give the parameter DatabaseInstance its id, or key=value of a tag that it alone has",
        )
    target = find_target(services.ec2, selector, services.config.ebs_volume_ids)
    ours = services.ec2.find_snapshots(tags_of_instance(services, run.instance))
    return target, judge_target(target, services.ec2.instance_state(target.instance_id), ours)


def create_snapshots(
    services: Services, run: Run, fence: Fence, preflight: dict[str, Any], attempt: int
) -> dict[str, Any]:
    """Make one crash-consistent set of the volumes that CheckPreflight found; give it.

    The first attempt makes one call. A later one looks by tag first, and takes what an earlier one made.
    After an unknown outcome the set is looked for, and never made again. Raise SnapshotError, and
    VolumeUnavailableError where nothing was made.
    """
    target = Target.from_json(preflight)
    tags = _tags_of_round(services, run, fence)
    made = _look_for(services, target, tags) if attempt else None
    if made is None:
        made = _create(services, target, tags)
    return _state([_of_volume(target, made, volume.volume_id) for volume in target.volumes])


def _create(services: Services, target: Target, tags: dict[str, str]) -> Sequence[Snapshot]:
    name = f"questdb-backup {tags[INSTANCE_TAG]} {tags[RUN_TAG]}"
    try:
        return services.ec2.create_snapshots(
            target.instance_id,
            {**tags, "Name": name},
            without_root=target.without_root,
            without=target.without,
        )
    except UnknownOutcomeError as error:
        logger.warning("it is not known whether snapshots were made, they are looked for: %s", error)
        try:
            made = _look_for(services, target, tags)
        except VolumeUnavailableError as unavailable:  # a retry could make a second set
            raise SnapshotError(
                f"{error.fact}, nor whether there are any: {unavailable.fact}", "start the backup again"
            ) from error
        if made is None:
            raise SnapshotError(
                f"{error.fact}; no snapshots of it were found", "start the backup again"
            ) from error
        return made


def _look_for(services: Services, target: Target, tags: dict[str, str]) -> Sequence[Snapshot] | None:
    """A whole set with these tags; EC2 may show it some seconds after it was made."""
    wanted = {volume.volume_id for volume in target.volumes}
    for look in range(_LOOKS):
        if look:
            services.sleep(_LOOK_SECONDS)
        found = services.ec2.find_snapshots(tags)
        if wanted <= {snapshot.volume_id for snapshot in found}:
            return found
    return None


def _of_volume(target: Target, made: Sequence[Snapshot], volume_id: str) -> VolumeSnapshot:
    found = [snapshot for snapshot in made if snapshot.volume_id == volume_id]
    if not found:
        raise SnapshotError(
            f"EC2 made no snapshot of {volume_id}: it is not attached to {target.instance_id} any more",
            "attach it again, or start the backup again without it",
        )
    device = next(volume.device for volume in target.volumes if volume.volume_id == volume_id)
    return VolumeSnapshot(volume_id=volume_id, device=device, snapshot_id=found[-1].snapshot_id)


def _state(
    volumes: Sequence[VolumeSnapshot], state: str = "pending", progress_percent: int = 0, polls: int = 0
) -> dict[str, Any]:
    return {
        "volumes": [volume.to_json() for volume in volumes],
        "state": state,
        "progress_percent": progress_percent,
        "polls": polls,
        "wait_seconds": _wait_seconds(polls),
    }


def check_snapshots(services: Services, run: Run, snapshots: dict[str, Any]) -> dict[str, Any]:
    """See how far they are; give the same shape with ``state`` and the seconds to wait.

    Raise SnapshotError with EC2's message where one has failed, is gone, or takes longer than 46 h;
    LeaseLostError.
    """
    check_lease(services, run)
    polls = int(snapshots["polls"]) + 1
    volumes = [VolumeSnapshot.from_json(volume) for volume in snapshots["volumes"]]
    ids = [volume.snapshot_id for volume in volumes]
    found = {snapshot.snapshot_id: snapshot for snapshot in services.ec2.describe_snapshots(ids)}
    pending = [each for each in ids if not _is_completed(each, found.get(each), polls)]
    if pending and _wait_seconds(polls) == 0:
        raise SnapshotError(
            f"{pending[0]} is not completed after {_WAITS[-1][0] // 3600} h",
            "see its progress in EC2; the next backup copies only what has changed since",
        )
    progress = {each: found[each].progress_percent if each in found else 0 for each in ids}
    logger.info("snapshots: %s", ", ".join(f"{each} {percent} %" for each, percent in progress.items()))
    return _state(volumes, "pending" if pending else "completed", min(progress.values()), polls)


def _is_completed(snapshot_id: str, snapshot: Snapshot | None, polls: int) -> bool:
    """False where it is pending. Raise SnapshotError where it will never be completed."""
    if snapshot is None:
        if polls < _POLLS_UNTIL_SEEN:
            return False
        raise SnapshotError(f"{snapshot_id} is gone", "somebody deleted it; start the backup again")
    if snapshot.state in ("pending", "completed"):
        return snapshot.state == "completed"
    told = f": {snapshot.message}" if snapshot.message else ""
    raise SnapshotError(
        f"{snapshot_id} of {snapshot.volume_id} is in state '{snapshot.state}'{told}",
        "the message is EC2's: mend its cause (often the key of the volume), then start the backup again",
    )


def _wait_seconds(polls: int) -> int:
    """How long to wait after so many polls; 0 when all has been waited."""
    waited = 0
    for until, seconds in _WAITS:
        here = -(-(until - waited) // seconds)
        if polls < here:
            return seconds
        polls -= here
        waited = until
    return 0


def tags_of_instance(services: Services, instance: str) -> dict[str, str]:
    """What every snapshot of the instance has that this stack made, and may delete."""
    return {STACK_TAG: services.config.stack_name, INSTANCE_TAG: instance}


def _tags_of_round(services: Services, run: Run, fence: Fence) -> dict[str, str]:
    """What a set is found by again: of this run, and of the checkpoint that is held now."""
    return {
        **tags_of_instance(services, run.instance),
        RUN_TAG: run.backup_timestamp,
        CHECKPOINT_TAG: str(fence.started_at),
    }
