"""CreateSnapshot, CreateSnapshots, DescribeSnapshots, DeleteSnapshot."""

from collections.abc import Mapping
from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_lists import Ask, Values, check_ids, matches, page, tag_list, tags_asked
from standin.ebs.errors import ServiceError, invalid_value, snapshot_not_found
from standin.ebs.images import BLOCK_BYTES
from standin.ebs.model import Snapshot, Volume

_MOST_EXCLUDED = 40


def create_snapshots(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """One of each attached volume that is not excluded, all or none."""
    instance = ask.get("InstanceSpecification", {})
    volumes = _wanted(cloud, instance)
    given = tags_asked(ask, "snapshot")
    copied = ask.get("CopyTagsFromSource") == "volume"
    snapshots = cloud.take_snapshots(
        volumes, ask.get("Description", ""), lambda volume: (volume.tags if copied else {}) | given
    )
    return {"Snapshots": [_told_at_once(cloud, snapshot) for snapshot in snapshots]}


def _wanted(cloud: Cloud, specification: Ask) -> list[Volume]:
    instance_id = specification.get("InstanceId", "")
    check_ids([instance_id], "i", "InvalidInstanceID.Malformed")
    cloud.instance(instance_id)
    excluded = specification.get("ExcludeDataVolumeIds", [])
    if len(excluded) > _MOST_EXCLUDED:
        raise invalid_value(f"More than {_MOST_EXCLUDED} volumes are excluded")
    attached = cloud.volumes_of(instance_id)
    by_id = {volume.volume_id: volume for volume in attached}
    for volume_id in excluded:
        cloud.volume(volume_id)
        if volume_id not in by_id:
            raise invalid_value(f"Volume '{volume_id}' is not attached to instance '{instance_id}'")
        if _is_root(by_id[volume_id]):
            raise invalid_value(f"'{volume_id}' is the root volume: use ExcludeBootVolume")
    without_root = specification.get("ExcludeBootVolume", False)
    wanted = [
        volume
        for volume in attached
        if volume.volume_id not in excluded and not (without_root and _is_root(volume))
    ]
    if not wanted:
        raise invalid_value(f"There are no volumes of instance '{instance_id}' to snapshot")
    return wanted


def _is_root(volume: Volume) -> bool:
    return bool(volume.attachment and volume.attachment.is_root)


def create_snapshot(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """One volume's."""
    volume = cloud.volume(ask.get("VolumeId", ""))
    given = tags_asked(ask, "snapshot")
    [snapshot] = cloud.take_snapshots([volume], ask.get("Description", ""), lambda _: given)
    return _told_at_once(cloud, snapshot)


def _told_at_once(cloud: Cloud, snapshot: Snapshot) -> dict[str, Any]:
    # The response is always "pending" and its progress is empty, however fast the snapshot is.
    return _common(cloud, snapshot) | {"State": "pending", "Progress": ""}


def _common(cloud: Cloud, snapshot: Snapshot) -> dict[str, Any]:
    now = cloud.clock.now()
    return {
        "SnapshotId": snapshot.snapshot_id,
        "VolumeId": snapshot.volume_id,
        "VolumeSize": snapshot.size_gib,
        "State": snapshot.state(now),
        "Progress": snapshot.progress(now),
        "StartTime": snapshot.started,
        "OwnerId": cloud.account,
        "Description": snapshot.description,
        "Encrypted": snapshot.encrypted,
        "Tags": tag_list(snapshot.tags),
    }


def _described(cloud: Cloud, snapshot: Snapshot) -> dict[str, Any]:
    now = cloud.clock.now()
    about = _common(cloud, snapshot) | {
        "StorageTier": snapshot.tier,
        "KmsKeyId": snapshot.kms_key_id,
        "StateMessage": snapshot.message if snapshot.state(now) in ("error", "recoverable") else None,
    }
    if snapshot.state(now) == "completed":
        about["CompletionTime"] = snapshot.completes
        about["FullSnapshotSizeInBytes"] = len(snapshot.content.written()) * BLOCK_BYTES
    if snapshot.encrypted:
        about["DataEncryptionKeyId"] = snapshot.lineage
    return about


def describe_snapshots(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Those that pass ids, owners and filters, oldest first."""
    now = cloud.clock.now()
    shown = {key: each for key, each in cloud.snapshots.items() if now >= each.visible}
    ids = ask.get("SnapshotIds", [])
    check_ids(ids, "snap", "InvalidSnapshotID.Malformed")
    for snapshot_id in ids:
        if snapshot_id not in shown:
            raise snapshot_not_found(snapshot_id)
    if set(ask.get("OwnerIds", ["self"])).isdisjoint({"self", cloud.account}):
        shown = {}
    fields = _fields(cloud)
    found = [
        each
        for each in shown.values()
        if (not ids or each.snapshot_id in ids) and matches(each, ask.get("Filters", []), fields, each.tags)
    ]
    snapshots, token = page(found, ask)
    return {"Snapshots": [_described(cloud, each) for each in snapshots], "NextToken": token}


def _fields(cloud: Cloud) -> Mapping[str, Values[Snapshot]]:
    now = cloud.clock.now()
    return {
        "description": lambda each: [each.description],
        "encrypted": lambda each: [str(each.encrypted).lower()],
        "owner-id": lambda _: [cloud.account],
        "progress": lambda each: [each.progress(now)],
        "snapshot-id": lambda each: [each.snapshot_id],
        "start-time": lambda each: [each.started.strftime("%Y-%m-%dT%H:%M:%S.000Z")],
        "status": lambda each: [each.state(now)],
        "storage-tier": lambda each: [each.tier],
        "volume-id": lambda each: [each.volume_id],
        "volume-size": lambda each: [str(each.size_gib)],
    }


def delete_snapshot(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Also a pending one. Not one that is locked, or that an AMI was registered from."""
    snapshot_id = ask.get("SnapshotId", "")
    check_ids([snapshot_id], "snap", "InvalidSnapshotID.Malformed")
    snapshot = cloud.snapshot(snapshot_id)
    if snapshot.used_by:
        raise ServiceError(
            "InvalidSnapshot.InUse", f"The snapshot {snapshot_id} is currently in use by {snapshot.used_by}"
        )
    if snapshot.locked_until and cloud.clock.now() < snapshot.locked_until:
        raise ServiceError(
            "OperationNotPermitted", f"The snapshot {snapshot_id} is locked and can't be deleted."
        )
    cloud.drop_snapshot(snapshot_id)
    return {}
