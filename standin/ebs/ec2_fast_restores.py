"""EnableFastSnapshotRestores, DescribeFastSnapshotRestores, DisableFastSnapshotRestores."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_lists import Ask, matches, page
from standin.ebs.errors import ServiceError, invalid_value, snapshot_not_found
from standin.ebs.model import FastRestore

_LARGEST_GIB = 16_384
_GIB_A_TIB = 1024


def enable_fast_restores(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Each snapshot in each zone; what cannot be is told in ``Unsuccessful``, beside an HTTP 200."""
    return _each(cloud, ask, _enable)


def disable_fast_restores(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """The same, off."""
    return _each(cloud, ask, _disable)


def _each(cloud: Cloud, ask: Ask, act: Callable[[Cloud, str, str], FastRestore]) -> dict[str, Any]:
    done, failed = [], []
    for snapshot_id, zone in _pairs(cloud, ask):
        try:
            done.append(_told(cloud, act(cloud, snapshot_id, zone)))
        except ServiceError as error:
            failed.append(_failure(cloud, snapshot_id, zone, error))
    return {"Successful": done, "Unsuccessful": failed}


def _pairs(cloud: Cloud, ask: Ask) -> Iterator[tuple[str, str]]:
    by_id = {cloud.zone_id(zone): zone for zone in cloud.zones}
    zones = ask.get("AvailabilityZones") or [
        by_id.get(each, each) for each in ask.get("AvailabilityZoneIds", [])
    ]
    for zone in zones:
        if zone not in cloud.zones:
            raise invalid_value(f"Invalid availability zone: [{zone}]")
    return ((snapshot_id, zone) for snapshot_id in ask.get("SourceSnapshotIds", []) for zone in zones)


def _enable(cloud: Cloud, snapshot_id: str, zone: str) -> FastRestore:
    now = cloud.clock.now()
    snapshot = cloud.snapshots.get(snapshot_id)
    if not snapshot:
        raise snapshot_not_found(snapshot_id)
    if snapshot.state(now) != "completed" or snapshot.tier == "archive":
        raise ServiceError("IncorrectState", f"Snapshot '{snapshot_id}' is not 'completed'.")
    if snapshot.size_gib > _LARGEST_GIB:
        raise invalid_value(f"The snapshot {snapshot_id} is larger than 16 TiB")
    there = cloud.fast_restores.get((snapshot_id, zone))
    if there and not there.disabling:
        return there
    _check_quota(cloud, snapshot_id, zone)
    optimizing = now + timedelta(seconds=cloud.delays.enable_fast_restore)
    takes = cloud.delays.optimize_fast_restore_tib * snapshot.size_gib / _GIB_A_TIB
    enabled = optimizing + timedelta(seconds=takes)
    restore = FastRestore(
        snapshot_id=snapshot_id,
        zone=zone,
        size_gib=snapshot.size_gib,
        enabling=now,
        optimizing=optimizing,
        enabled=enabled,
        credits_at=enabled,
    )
    cloud.fast_restores[snapshot_id, zone] = restore
    return restore


def _check_quota(cloud: Cloud, snapshot_id: str, zone: str) -> None:
    others = {
        each.snapshot_id
        for each in cloud.fast_restores.values()
        if not each.disabling and each.snapshot_id != snapshot_id
    }
    if len(others) >= cloud.quotas.fast_restores:
        message = f"Fast snapshot restore is enabled for {len(others)} snapshots, as many as the quota allows"
        raise ServiceError("ResourceLimitExceeded", f"{message} ({zone})")


def _disable(cloud: Cloud, snapshot_id: str, zone: str) -> FastRestore:
    restore = cloud.fast_restores.get((snapshot_id, zone))
    if not restore or restore.disabling:
        raise ServiceError(
            "IncorrectState", f"Fast snapshot restore is not enabled for {snapshot_id} in {zone}"
        )
    restore.disabling = cloud.clock.now()
    restore.disabled = cloud.clock.after(cloud.delays.enable_fast_restore)
    return restore


def _failure(cloud: Cloud, snapshot_id: str, zone: str, error: ServiceError) -> dict[str, Any]:
    reason = {"Code": error.code, "Message": error.message}
    where = {"AvailabilityZone": zone, "AvailabilityZoneId": cloud.zone_id(zone), "Error": reason}
    return {"SnapshotId": snapshot_id, "FastSnapshotRestoreStateErrors": [where]}


def describe_fast_restores(cloud: Cloud, ask: Ask) -> dict[str, Any]:
    """Those that pass the filters."""
    now = cloud.clock.now()
    fields: Mapping[str, Callable[[FastRestore], list[str]]] = {
        "availability-zone": lambda each: [each.zone],
        "availability-zone-id": lambda each: [cloud.zone_id(each.zone)],
        "owner-id": lambda _: [cloud.account],
        "snapshot-id": lambda each: [each.snapshot_id],
        "state": lambda each: [each.state(now)],
    }
    found = [
        each for each in cloud.fast_restores.values() if matches(each, ask.get("Filters", []), fields, {})
    ]
    restores, token = page(found, ask, least=0)
    return {"FastSnapshotRestores": [_told(cloud, each) for each in restores], "NextToken": token}


def _told(cloud: Cloud, restore: FastRestore) -> dict[str, Any]:
    now = cloud.clock.now()
    state = restore.state(now)
    asked = "Client.UserInitiated"
    by_user = state in ("enabling", "disabling")
    return {
        "SnapshotId": restore.snapshot_id,
        "AvailabilityZone": restore.zone,
        "AvailabilityZoneId": cloud.zone_id(restore.zone),
        "State": state,
        "StateTransitionReason": asked if by_user else f"{asked} - Lifecycle state transition",
        "OwnerId": cloud.account,
        "EnablingTime": restore.enabling,
        "OptimizingTime": _past(restore.optimizing, now),
        "EnabledTime": _past(restore.enabled, now),
        "DisablingTime": restore.disabling,
        "DisabledTime": _past(restore.disabled, now),
    }


def _past(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment and moment <= now else None
