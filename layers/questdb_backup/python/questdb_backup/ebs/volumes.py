"""Volumes made of kept snapshots: the fast restore. `VolumeService`, and EC2's by boto3."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from questdb_backup.ebs.aws import open_client, translated
from questdb_backup.errors import SnapshotError

Json = Mapping[str, Any]
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """What is asked for in CreateVolume; None leaves EC2's default. Sizes in GiB, rates in MiB/s."""

    snapshot_id: str
    availability_zone: str
    volume_type: str = "gp3"
    size_gib: int | None = None
    iops: int | None = None
    throughput: int | None = None
    initialization_rate: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredVolume:
    """A volume that was made of a snapshot; ``state`` is EC2's word (creating, available, in-use, error)."""

    volume_id: str
    snapshot_id: str
    state: str
    availability_zone: str
    size_gib: int
    instance_id: str | None = None
    device: str | None = None
    is_attached: bool = False


class VolumeService(Protocol):
    """What a restore asks of EC2. All raise SnapshotError (refused) and VolumeUnavailableError (busy)."""

    def create(self, spec: VolumeSpec, token: str, tags: Mapping[str, str]) -> str:
        """Make a volume; give its id. With the same token (at most 64 characters) it is made once."""

    def find(self, tags: Mapping[str, str]) -> tuple[RestoredVolume, ...]:
        """The volumes that have all these tags."""

    def initialized_percent(self, volume_id: str) -> int:
        """How far the data have come from S3; 100 where EC2 tells nothing of it."""

    def attach(self, volume_id: str, instance_id: str, device: str) -> None:
        """Attach it as that device."""

    def used_devices(self, instance_id: str) -> frozenset[str]:
        """The device names that volumes of the instance have."""

    def fast_restore_states(self, snapshot_ids: Sequence[str], zone: str) -> dict[str, str]:
        """Fast snapshot restore by snapshot: enabling, optimizing, enabled, ...; none where it is off."""

    def enable_fast_restore(self, snapshot_ids: Sequence[str], zone: str) -> None:
        """Switch it on; it is charged by the hour until it is switched off."""

    def disable_fast_restore(self, snapshot_ids: Sequence[str], zone: str) -> None:
        """Switch it off."""


class BotoVolumes:
    """VolumeService by the environment's credentials and region; the client is made when first needed."""

    @cached_property
    def _client(self) -> Any:
        return open_client("ec2")

    def create(self, spec: VolumeSpec, token: str, tags: Mapping[str, str]) -> str:
        """As VolumeService says."""
        wanted = {
            "Size": spec.size_gib,
            "Iops": spec.iops,
            "Throughput": spec.throughput,
            "VolumeInitializationRate": spec.initialization_rate,
        }
        with translated(f"making a volume of {spec.snapshot_id}"):
            answer = self._client.create_volume(
                SnapshotId=spec.snapshot_id,
                AvailabilityZone=spec.availability_zone,
                VolumeType=spec.volume_type,
                ClientToken=token,
                TagSpecifications=[
                    {
                        "ResourceType": "volume",
                        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
                    }
                ],
                **{name: value for name, value in wanted.items() if value is not None},
            )
        return str(answer["VolumeId"])

    def find(self, tags: Mapping[str, str]) -> tuple[RestoredVolume, ...]:
        """As VolumeService says."""
        filters = {f"tag:{key}": value for key, value in tags.items()}
        with translated("looking for restored volumes by their tags"):
            found = [_volume(each) for page in self._volumes(filters) for each in page["Volumes"]]
        return tuple(sorted(found, key=lambda volume: volume.volume_id))

    def initialized_percent(self, volume_id: str) -> int:
        """As VolumeService says; DescribeVolumeStatus, ``InitializationStatusDetails``."""
        with translated(f"asking how far {volume_id} is initialized"):
            answer = self._client.describe_volume_status(VolumeIds=[volume_id])
        for status in answer["VolumeStatuses"]:
            if details := status.get("InitializationStatusDetails"):
                return int(details.get("Progress", 0))
        return 100

    def attach(self, volume_id: str, instance_id: str, device: str) -> None:
        """As VolumeService says."""
        with translated(f"attaching {volume_id} to {instance_id} as {device}"):
            self._client.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)

    def used_devices(self, instance_id: str) -> frozenset[str]:
        """As VolumeService says."""
        with translated(f"describing the volumes of {instance_id}"):
            return frozenset(
                attachment["Device"]
                for page in self._volumes({"attachment.instance-id": instance_id})
                for volume in page["Volumes"]
                for attachment in volume["Attachments"]
                if attachment["InstanceId"] == instance_id
            )

    def fast_restore_states(self, snapshot_ids: Sequence[str], zone: str) -> dict[str, str]:
        """As VolumeService says."""
        filters = [
            {"Name": "snapshot-id", "Values": list(snapshot_ids)},
            {"Name": "availability-zone", "Values": [zone]},
        ]
        with translated(f"asking for fast snapshot restore of {', '.join(snapshot_ids)}"):
            pages = self._client.get_paginator("describe_fast_snapshot_restores").paginate(Filters=filters)
            return {
                each["SnapshotId"]: each["State"] for page in pages for each in page["FastSnapshotRestores"]
            }

    def enable_fast_restore(self, snapshot_ids: Sequence[str], zone: str) -> None:
        """As VolumeService says."""
        with translated(f"enabling fast snapshot restore of {', '.join(snapshot_ids)} in {zone}"):
            answer = self._client.enable_fast_snapshot_restores(
                AvailabilityZones=[zone], SourceSnapshotIds=list(snapshot_ids)
            )
        _refuse_unsuccessful(answer)

    def disable_fast_restore(self, snapshot_ids: Sequence[str], zone: str) -> None:
        """As VolumeService says."""
        with translated(f"disabling fast snapshot restore of {', '.join(snapshot_ids)} in {zone}"):
            self._client.disable_fast_snapshot_restores(
                AvailabilityZones=[zone], SourceSnapshotIds=list(snapshot_ids)
            )

    def _volumes(self, filters: Mapping[str, str]) -> Iterator[Json]:
        pages: Iterator[Json] = iter(
            self._client.get_paginator("describe_volumes").paginate(
                Filters=[{"Name": name, "Values": [value]} for name, value in filters.items()],
                PaginationConfig={"PageSize": _PAGE},
            )
        )
        return pages


def _refuse_unsuccessful(answer: Json) -> None:
    for item in answer.get("Unsuccessful", ()):
        for state in item.get("FastSnapshotRestoreStateErrors", ()):
            told = state.get("Error", {})
            raise SnapshotError(
                f"fast snapshot restore of {item.get('SnapshotId')}: {told.get('Message')}",
                "restore without it, or with an initialization rate",
            )


def _volume(found: Json) -> RestoredVolume:
    attachment: Json = next(iter(found["Attachments"]), {})
    return RestoredVolume(
        volume_id=found["VolumeId"],
        snapshot_id=found.get("SnapshotId", ""),
        state=found["State"],
        availability_zone=found["AvailabilityZone"],
        size_gib=found["Size"],
        instance_id=attachment.get("InstanceId"),
        device=attachment.get("Device"),
        is_attached=attachment.get("State") == "attached",
    )
