"""DescribeVolumeStatus: where the progress of a volume's initialization stands."""

from datetime import datetime, timedelta
from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_lists import Ask, page
from standin.ebs.ec2_volumes import selected
from standin.ebs.model import Volume


def describe_volume_status(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Of those that pass ids and filters."""
    now = cloud.clock.now()
    fields = {
        "availability-zone": lambda volume: [volume.zone],
        "volume-status.status": lambda volume: [_health(volume, now)],
    }
    volumes, token = page(selected(cloud, ask, fields), ask, ids="VolumeIds")
    return {"VolumeStatuses": [_status(cloud, each, now) for each in volumes], "NextToken": token}


def _health(volume: Volume, now: datetime) -> str:
    return "ok" if volume.state(now) in ("available", "in-use") else "insufficient-data"


def _status(cloud: Cloud, volume: Volume, now: datetime) -> dict[str, Any]:
    health = _health(volume, now)
    details = [{"Name": "io-enabled", "Status": "passed" if health == "ok" else "insufficient-data"}]
    return {
        "VolumeId": volume.volume_id,
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": cloud.zone_id(volume.zone),
        "Actions": [],
        "Events": [],
        "VolumeStatus": {"Status": health, "Details": details},
        "InitializationStatusDetails": _initialization(cloud, volume, now),
    }


def _initialization(cloud: Cloud, volume: Volume, now: datetime) -> dict[str, Any] | None:
    told_from = volume.ready + timedelta(seconds=cloud.delays.initialization_report)
    if volume.initialized is None or now < told_from:
        return None
    left = max(0.0, (volume.initialized - now).total_seconds())
    whole = (volume.initialized - volume.ready).total_seconds()
    about: dict[str, Any] = {
        "InitializationType": "provisioned-rate" if volume.initialization_rate else "default",
        "Progress": int(round(100 * (1 - left / whole), 3)) if left else 100,
    }
    if volume.initialization_rate:
        about["EstimatedTimeToCompleteInSeconds"] = -int(-left // 1)
    return about
