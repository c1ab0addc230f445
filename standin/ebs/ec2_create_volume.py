"""CreateVolume."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from standin.ebs.cloud import Cloud, new_id
from standin.ebs.ec2_lists import Ask, tags_asked
from standin.ebs.ec2_volumes import told
from standin.ebs.errors import ServiceError, invalid_value
from standin.ebs.images import BLOCK_BYTES, clone
from standin.ebs.model import GIB, Snapshot, Volume

_SIZES = {
    "gp2": (1, 16_384),
    "gp3": (1, 65_536),
    "io1": (4, 16_384),
    "io2": (4, 65_536),
    "sc1": (125, 16_384),
    "st1": (125, 16_384),
    "standard": (1, 1_024),
}
_IOPS = {"gp3": (3_000, 80_000), "io1": (100, 64_000), "io2": (100, 256_000)}
_THROUGHPUT = {"gp3": (125, 2_000)}
_INITIALIZATION_RATE = (100, 300)
_MIB = 1 << 20


def create_volume(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """A new one, or the one that the same ClientToken made."""
    token = ask.get("ClientToken")
    same = {name: value for name, value in ask.items() if name != "ClientToken"}
    if token and token in cloud.client_tokens:
        before, volume_id = cloud.client_tokens[token]
        if before != same:
            raise ServiceError(
                "IdempotentParameterMismatch", "The client token was used with other parameters"
            )
        return told(cloud, cloud.volume(volume_id), created=True)
    volume = _created(cloud, ask)
    cloud.volumes[volume.volume_id] = volume
    if token:
        cloud.client_tokens[token] = (same, volume.volume_id)
    return told(cloud, volume, created=True)


def _created(cloud: Cloud, ask: Ask) -> Volume:
    zone = _zone(cloud, ask)
    snapshot = _source(cloud, ask)
    size = _size(ask, snapshot)
    kind, iops, throughput = _performance(ask, size)
    encrypted, key = _encryption(cloud, ask, snapshot)
    rate = _initialization_rate(cloud, ask)
    tags = tags_asked(ask, "volume")
    volume_id = new_id("vol")
    now = cloud.clock.now()
    ready = now + timedelta(seconds=cloud.delays.volume)
    start = _initialization(cloud, snapshot, zone, rate, ready) if snapshot else _Initialization()
    return Volume(
        volume_id=volume_id,
        image=_image(cloud, volume_id, snapshot, size),
        size_gib=size,
        zone=zone,
        volume_type=kind,
        iops=iops,
        throughput=throughput,
        encrypted=encrypted,
        kms_key_id=key,
        tags=tags,
        created=now,
        ready=ready,
        fails=key in cloud.unusable_keys,
        snapshot_id=snapshot.snapshot_id if snapshot else None,
        content=snapshot.content if snapshot else None,
        lineage=snapshot.lineage if snapshot else volume_id,
        initialization_rate=rate,
        initialized=start.ends,
        fast_restored=start.fast,
    )


def _zone(cloud: Cloud, ask: Ask) -> str:
    by_id = {cloud.zone_id(zone): zone for zone in cloud.zones}
    name, zone_id = ask.get("AvailabilityZone"), ask.get("AvailabilityZoneId")
    if (name is None) == (zone_id is None):
        raise ServiceError("MissingParameter", "Specify either AvailabilityZone or AvailabilityZoneId")
    zone = name if name is not None else by_id.get(str(zone_id))
    if zone not in cloud.zones:
        raise ServiceError("InvalidZone.NotFound", f"The zone '{name or zone_id}' does not exist.")
    return str(zone)


def _source(cloud: Cloud, ask: Ask) -> Snapshot | None:
    snapshot_id = ask.get("SnapshotId")
    if not snapshot_id:
        return None
    snapshot = cloud.snapshot(snapshot_id)
    if snapshot.state(cloud.clock.now()) != "completed" or snapshot.tier == "archive":
        raise ServiceError("IncorrectState", f"Snapshot '{snapshot_id}' is not 'completed'.")
    return snapshot


def _size(ask: Ask, snapshot: Snapshot | None) -> int:
    size = ask.get("Size")
    if size is None and snapshot is None:
        raise ServiceError("MissingParameter", "The request must contain the parameter size/snapshot")
    least = snapshot.size_gib if snapshot else 0
    if size is not None and size < least:
        raise invalid_value(f"Volume of {size}GiB is smaller than the snapshot, expect size >= {least}GiB")
    return int(size if size is not None else least)


def _performance(ask: Ask, size: int) -> tuple[str, int | None, int | None]:
    kind = ask.get("VolumeType", "gp2")
    if kind not in _SIZES:
        raise invalid_value(f"Invalid volume type: {kind}")
    _check_range("size", size, _SIZES[kind])
    iops, throughput = _allowed(ask, "Iops", kind, _IOPS), _allowed(ask, "Throughput", kind, _THROUGHPUT)
    if iops is None and kind in ("io1", "io2"):
        raise ServiceError("MissingParameter", f"The parameter iops must be specified for {kind} volumes.")
    match kind:
        case "gp3":
            return kind, iops or 3_000, throughput or 125
        case "gp2":
            return kind, min(16_000, max(100, 3 * size)), None
        case _:
            return kind, iops, None


def _allowed(ask: Ask, name: str, kind: str, ranges: Mapping[str, tuple[int, int]]) -> int | None:
    value = ask.get(name)
    if value is None:
        return None
    if kind not in ranges:
        message = f"The parameter {name} is not supported for {kind} volumes."
        raise ServiceError("InvalidParameterCombination", message)
    _check_range(name, value, ranges[kind])
    return int(value)


def _check_range(name: str, value: int, allowed: tuple[int, int]) -> None:
    least, most = allowed
    if not least <= value <= most:
        raise invalid_value(f"{name} of {value} is not within {least} and {most}")


def _encryption(cloud: Cloud, ask: Ask, snapshot: Snapshot | None) -> tuple[bool, str | None]:
    key = ask.get("KmsKeyId")
    if key and not ask.get("Encrypted"):
        message = "The parameter KmsKeyId requires the parameter Encrypted to be set."
        raise ServiceError("InvalidParameterDependency", message)
    if not ask.get("Encrypted") and not (snapshot and snapshot.encrypted):
        return False, None
    if snapshot and snapshot.encrypted and not key:
        key = snapshot.kms_key_id
    name = key or "alias/aws/ebs"
    home = f"arn:aws:kms:{cloud.region}:{cloud.account}:"
    if name.startswith("arn:"):
        return True, name
    return True, home + (name if name.startswith("alias/") else f"key/{name}")


def _initialization_rate(cloud: Cloud, ask: Ask) -> int | None:
    rate = ask.get("VolumeInitializationRate")
    if rate is None:
        return None
    if not ask.get("SnapshotId"):
        message = "VolumeInitializationRate is supported only for volumes created from snapshots"
        raise ServiceError("InvalidParameterCombination", message)
    _check_range("VolumeInitializationRate", rate, _INITIALIZATION_RATE)
    now = cloud.clock.now()
    used = sum(
        volume.initialization_rate or 0
        for volume in cloud.volumes.values()
        if volume.initialized and volume.initialized > now
    )
    if used + rate > cloud.quotas.initialization_rate:
        raise ServiceError(
            "ResourceLimitExceeded",
            f"The volume initialization rates of the Region would exceed {cloud.quotas.initialization_rate} "
            "MiB/s",
        )
    return int(rate)


@dataclass(frozen=True)
class _Initialization:
    ends: datetime | None = None
    fast: bool = False


def _initialization(
    cloud: Cloud, snapshot: Snapshot, zone: str, rate: int | None, ready: datetime
) -> _Initialization:
    fast = cloud.fast_restores.get((snapshot.snapshot_id, zone))
    if fast and rate is None and fast.spend_credit(cloud.clock.now()):
        return _Initialization(ready, fast=True)
    mib = len(snapshot.content.written()) * BLOCK_BYTES / _MIB
    seconds = mib / (rate or cloud.delays.default_initialization_rate)
    return _Initialization(ready + timedelta(seconds=seconds))


def _image(cloud: Cloud, volume_id: str, snapshot: Snapshot | None, size: int) -> Path:
    image = cloud.folder / f"{volume_id}.img"
    if snapshot:
        clone(snapshot.content.path, image)
    with image.open("ab") as file:
        file.truncate(size * GIB)
    return image
