"""Which volumes of the server's instance a snapshot is made of: looked up before CHECKPOINT CREATE."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from questdb_backup.ebs.base import AttachedVolume, Ec2, Snapshot
from questdb_backup.errors import PreflightError

_MOST_PENDING = 5
"""Snapshots of one volume that EC2 lets be pending at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What CreateSnapshots is told; ``without_root`` and ``without`` are the volumes that it leaves out."""

    instance_id: str
    volumes: tuple[AttachedVolume, ...]
    without_root: bool
    without: tuple[str, ...]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Target":
        """From the workflow's state."""
        return cls(
            instance_id=value["instance_id"],
            volumes=tuple(AttachedVolume(**volume) for volume in value["volumes"]),
            without_root=value["without_root"],
            without=tuple(value["without"]),
        )

    def to_json(self) -> dict[str, Any]:
        """To the workflow's state."""
        return asdict(self)


def find_target(ec2: Ec2, selector: str, volume_ids: Sequence[str]) -> Target:
    """The instance and its volumes as they are now.

    All data volumes are taken, and the boot volume only where there is no other; ``volume_ids``, where it
    names any, are the ones taken instead, the boot volume among them or not. Raise PreflightError where
    one of them is not attached, or none is.
    """
    instance_id = ec2.find_instance(selector)
    attached = ec2.volumes(instance_id)
    if not attached:
        raise PreflightError(f"{instance_id} has no EBS volume", "name the database's instance")
    chosen = choose_volumes(attached, volume_ids)
    left = [volume for volume in attached if volume not in chosen]
    return Target(
        instance_id=instance_id,
        volumes=chosen,
        without_root=any(volume.is_root for volume in left),
        without=tuple(volume.volume_id for volume in left if not volume.is_root),
    )


def choose_volumes(
    attached: Sequence[AttachedVolume], volume_ids: Sequence[str]
) -> tuple[AttachedVolume, ...]:
    """The volumes to take of those that are attached; see `find_target`."""
    if volume_ids:
        known = {volume.volume_id for volume in attached}
        if missing := [each for each in volume_ids if each not in known]:
            raise PreflightError(
                f"{missing[0]} is not attached to the database's instance, but {', '.join(sorted(known))}",
                "correct the parameter VolumeIds, or leave it empty for all data volumes",
            )
        return tuple(volume for volume in attached if volume.volume_id in volume_ids)
    return tuple(volume for volume in attached if not volume.is_root) or tuple(attached)


def judge_target(target: Target, state: str, snapshots: Iterable[Snapshot]) -> list[str]:
    """Warnings about the instance and our snapshots of it. Raise PreflightError where EC2 would refuse."""
    warnings = []
    if state != "running":
        warnings.append(
            f"{target.instance_id} is {state}, and yet the database answers. Hint: see that the parameter"
            " DatabaseInstance names the instance that it runs on."
        )
    pending = [snapshot for snapshot in snapshots if snapshot.state == "pending"]
    for volume in target.volumes:
        of_it = [snapshot for snapshot in pending if snapshot.volume_id == volume.volume_id]
        if len(of_it) >= _MOST_PENDING:
            raise PreflightError(
                f"{volume.volume_id} has {len(of_it)} snapshots that are pending, as many as EC2 allows",
                "wait until one of them is completed",
            )
        warnings += [
            f"{snapshot.snapshot_id} of {volume.volume_id} is still pending at {snapshot.progress_percent} %"
            for snapshot in of_it
        ]
    return warnings
