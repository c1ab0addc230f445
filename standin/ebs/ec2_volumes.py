"""DescribeVolumes (the rest of a volume's life stands in ``ec2_volume_life``)."""

from collections.abc import Mapping
from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_lists import Ask, Values, check_ids, matches, page, tag_list
from standin.ebs.errors import volume_not_found
from standin.ebs.model import Attachment, Volume


def describe_volumes(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Those that pass ids and filters."""
    found = selected(cloud, ask, volume_fields(cloud))
    volumes, token = page(found, ask)
    return {"Volumes": [told(cloud, each) for each in volumes], "NextToken": token}


def selected(cloud: Cloud, ask: Ask, fields: Mapping[str, Values[Volume]]) -> list[Volume]:
    """The volumes of VolumeIds and Filters."""
    ids = ask.get("VolumeIds", [])
    check_ids(ids, "vol", "InvalidVolumeID.Malformed")
    for volume_id in ids:
        if volume_id not in cloud.volumes:
            raise volume_not_found(volume_id)
    return [
        each
        for each in cloud.volumes.values()
        if (not ids or each.volume_id in ids) and matches(each, ask.get("Filters", []), fields, each.tags)
    ]


def told(cloud: Cloud, volume: Volume, *, created: bool = False) -> dict[str, Any]:
    """The volume as EC2 tells it; CreateVolume (``created``) leaves some out."""
    about = {
        "VolumeId": volume.volume_id,
        "Size": volume.size_gib,
        "SnapshotId": volume.snapshot_id or "",
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": cloud.zone_id(volume.zone),
        "State": volume.state(cloud.clock.now()),
        "CreateTime": volume.created,
        "Encrypted": volume.encrypted,
        "KmsKeyId": volume.kms_key_id,
        "VolumeType": volume.volume_type,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
        "MultiAttachEnabled": False,
        "VolumeInitializationRate": volume.initialization_rate,
        "Tags": tag_list(volume.tags),
    }
    if created:
        return about
    attachments = [told_attachment(cloud, volume, volume.attachment)] if volume.attachment else []
    return about | {"Attachments": attachments, "FastRestored": volume.fast_restored}


def told_attachment(cloud: Cloud, volume: Volume, attachment: Attachment) -> dict[str, Any]:
    """An attachment as EC2 tells it."""
    return {
        "VolumeId": volume.volume_id,
        "InstanceId": attachment.instance_id,
        "Device": attachment.device,
        "State": _attachment_state(cloud, attachment),
        "AttachTime": attachment.requested,
        "DeleteOnTermination": attachment.is_root,
    }


def _attachment_state(cloud: Cloud, attachment: Attachment) -> str:
    return "attached" if cloud.clock.now() >= attachment.attached else "attaching"


def volume_fields(cloud: Cloud) -> Mapping[str, Values[Volume]]:
    """What DescribeVolumes filters by."""
    now = cloud.clock.now()
    return {
        "attachment.instance-id": lambda v: [v.attachment.instance_id] if v.attachment else [],
        "attachment.device": lambda v: [v.attachment.device] if v.attachment else [],
        "attachment.status": lambda v: [_attachment_state(cloud, v.attachment)] if v.attachment else [],
        "attachment.delete-on-termination": lambda v: (
            [str(v.attachment.is_root).lower()] if v.attachment else []
        ),
        "availability-zone": lambda v: [v.zone],
        "availability-zone-id": lambda v: [cloud.zone_id(v.zone)],
        "encrypted": lambda v: [str(v.encrypted).lower()],
        "fast-restored": lambda v: [str(v.fast_restored).lower()],
        "size": lambda v: [str(v.size_gib)],
        "snapshot-id": lambda v: [v.snapshot_id] if v.snapshot_id else [],
        "status": lambda v: [v.state(now)],
        "volume-id": lambda v: [v.volume_id],
        "volume-type": lambda v: [v.volume_type],
    }
