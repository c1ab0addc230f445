"""AttachVolume, DetachVolume, DeleteVolume."""

from datetime import timedelta
from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_lists import Ask
from standin.ebs.ec2_volumes import told_attachment
from standin.ebs.errors import ServiceError, invalid_value
from standin.ebs.model import Attachment, Instance, Volume


def attach_volume(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """To an instance of the same zone, under a device name that is free."""
    volume = cloud.volume(ask.get("VolumeId", ""))
    instance = cloud.instance(ask.get("InstanceId", ""))
    device = ask.get("Device", "")
    _check_volume(cloud, volume, instance)
    _check_instance(cloud, instance, device)
    now = cloud.clock.now()
    attached = now + timedelta(seconds=cloud.delays.attach)
    volume.attachment = Attachment(
        instance_id=instance.instance_id, device=device, is_root=False, attached=attached, requested=now
    )
    # The response always says "attaching".
    return told_attachment(cloud, volume, volume.attachment) | {"State": "attaching"}


def _check_volume(cloud: Cloud, volume: Volume, instance: Instance) -> None:
    volume_id = volume.volume_id
    if volume.attachment:
        raise ServiceError("VolumeInUse", f"{volume_id} is already attached to an instance")
    state = volume.state(cloud.clock.now())
    if state != "available":
        raise ServiceError("IncorrectState", f"Volume '{volume_id}' is in the '{state}' state.")
    if volume.zone != instance.zone:
        raise ServiceError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume_id}' is not in the same availability zone as instance "
            f"'{instance.instance_id}'",
        )


def _check_instance(cloud: Cloud, instance: Instance, device: str) -> None:
    if instance.state not in ("running", "stopped"):
        raise ServiceError(
            "IncorrectState", f"Instance '{instance.instance_id}' is not 'running' or 'stopped'."
        )
    if not device:
        raise ServiceError("MissingParameter", "The request must contain the parameter device")
    used = (each.attachment.device for each in cloud.volumes_of(instance.instance_id) if each.attachment)
    if device in used:
        raise invalid_value(
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
        )


def detach_volume(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """At once."""
    volume = cloud.volume(ask.get("VolumeId", ""))
    attachment = volume.attachment
    if not attachment:
        raise ServiceError("IncorrectState", f"Volume '{volume.volume_id}' is in the 'available' state.")
    volume.attachment = None
    return told_attachment(cloud, volume, attachment) | {"State": "detaching"}


def delete_volume(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """One that is not attached. An image that was registered from outside stays."""
    volume = cloud.volume(ask.get("VolumeId", ""))
    if volume.attachment:
        raise ServiceError(
            "VolumeInUse",
            f"Volume {volume.volume_id} is currently attached to {volume.attachment.instance_id}",
        )
    if volume.state(cloud.clock.now()) == "creating":
        raise ServiceError("IncorrectState", f"Volume '{volume.volume_id}' is in the 'creating' state.")
    del cloud.volumes[volume.volume_id]
    if volume.image.parent == cloud.folder:
        volume.image.unlink(missing_ok=True)
    return {}
