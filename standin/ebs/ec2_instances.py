"""DescribeInstances, CreateTags."""

from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_lists import Ask, add_tags, check_ids, matches, page, tag_list
from standin.ebs.errors import ServiceError, instance_not_found
from standin.ebs.model import Attachment, Instance

_STATE_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


def describe_instances(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Each in a reservation of its own."""
    ids = ask.get("InstanceIds", [])
    check_ids(ids, "i", "InvalidInstanceID.Malformed")
    for instance_id in ids:
        if instance_id not in cloud.instances:
            raise instance_not_found(instance_id)
    found = [
        each
        for each in cloud.instances.values()
        if (not ids or each.instance_id in ids) and matches(each, ask.get("Filters", []), _FIELDS, each.tags)
    ]
    instances, token = page(found, ask, ids="InstanceIds")
    return {"Reservations": [_reservation(cloud, each) for each in instances], "NextToken": token}


_FIELDS = {
    "availability-zone": lambda each: [each.zone],
    "instance-id": lambda each: [each.instance_id],
    "instance-state-code": lambda each: [str(_STATE_CODES[each.state])],
    "instance-state-name": lambda each: [each.state],
}


def _reservation(cloud: Cloud, instance: Instance) -> dict[str, Any]:
    volumes = cloud.volumes_of(instance.instance_id)
    attached = [(volume.volume_id, volume.attachment) for volume in volumes if volume.attachment]
    root = next((each.device for _, each in attached if each.is_root), None)
    about = {
        "InstanceId": instance.instance_id,
        "State": {"Code": _STATE_CODES[instance.state], "Name": instance.state},
        "Placement": {
            "AvailabilityZone": instance.zone,
            "AvailabilityZoneId": cloud.zone_id(instance.zone),
        },
        "LaunchTime": instance.launched,
        "RootDeviceName": root,
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": [_mapping(cloud, volume_id, each) for volume_id, each in attached],
        "Tags": tag_list(instance.tags),
    }
    reservation_id = "r-" + instance.instance_id.removeprefix("i-")
    return {"ReservationId": reservation_id, "OwnerId": cloud.account, "Instances": [about]}


def _mapping(cloud: Cloud, volume_id: str, attachment: Attachment) -> dict[str, Any]:
    state = "attached" if cloud.clock.now() >= attachment.attached else "attaching"
    ebs = {
        "VolumeId": volume_id,
        "Status": state,
        "AttachTime": attachment.requested,
        "DeleteOnTermination": attachment.is_root,
    }
    return {"DeviceName": attachment.device, "Ebs": ebs}


def create_tags(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """On instances, volumes and snapshots, all or none."""
    targets = [_tags_of(cloud, each) for each in ask.get("Resources", [])]
    for tags in targets:
        add_tags(dict(tags), ask.get("Tags", []))
    for tags in targets:
        add_tags(tags, ask.get("Tags", []))
    return {}


def _tags_of(cloud: Cloud, resource_id: str) -> dict[str, str]:
    match resource_id.split("-")[0]:
        case "i":
            return cloud.instance(resource_id).tags
        case "vol":
            return cloud.volume(resource_id).tags
        case "snap":
            return cloud.snapshot(resource_id).tags
        case _:
            raise ServiceError("InvalidID", f"The ID '{resource_id}' is not valid")
