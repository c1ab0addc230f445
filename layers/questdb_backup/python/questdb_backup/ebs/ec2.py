"""`Ec2` over boto3: the instance, its volumes, their snapshots. Our own account's alone."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from questdb_backup.aws_errors import Answer
from questdb_backup.clock import format_timestamp
from questdb_backup.ebs.aws import open_client, translated
from questdb_backup.ebs.base import AttachedVolume, Snapshot, UnknownOutcomeError
from questdb_backup.errors import SnapshotError, VolumeUnavailableError

Json = Mapping[str, Any]

_GIB = 1 << 30
_PAGE = 200
_GONE = "InvalidSnapshot.NotFound"
_NOT_ATTACHED = ("detached", "detaching")
_THROTTLES = {"EC2ThrottledException", "RequestLimitExceeded"}
"""EC2 answers them with status 503, and has done nothing."""


class BotoEc2:
    """EC2 by the environment's credentials and region; the clients are made when first needed."""

    @cached_property
    def _client(self) -> Any:
        return open_client("ec2")

    @cached_property
    def _once(self) -> Any:
        """For the one request that has no client token: what is not answered is not sent again."""
        return open_client("ec2", attempts=1)

    def find_instance(self, selector: str) -> str:
        """See `Ec2`."""
        key, is_tag, value = selector.partition("=")
        if not is_tag:
            return str(self._instance(selector)["InstanceId"])
        with translated(f"looking for the instance with the tag {selector}"):
            pages = self._pages(
                "describe_instances", {f"tag:{key}": [value], "instance-state-name": ["running"]}
            )
            found = [str(each["InstanceId"]) for page in pages for each in _instances(page)]
        if len(found) != 1:
            raise SnapshotError(
                f"{len(found) or 'no'} running instances have the tag {selector}"
                + (f": {', '.join(sorted(found)[:5])}" if found else ""),
                "give the parameter DatabaseInstance the id of the one, or a tag that it alone has",
            )
        return found[0]

    def instance_state(self, instance_id: str) -> str:
        """See `Ec2`."""
        return str(self._instance(instance_id)["State"]["Name"])

    def _instance(self, instance_id: str) -> Json:
        with translated(f"describing the instance {instance_id}"):
            found = [*_instances(self._client.describe_instances(InstanceIds=[instance_id]))]
        if not found:
            raise SnapshotError(
                f"there is no instance {instance_id}", "correct the parameter DatabaseInstance"
            )
        return found[0]

    def volumes(self, instance_id: str) -> tuple[AttachedVolume, ...]:
        """See `Ec2`."""
        root = self._instance(instance_id).get("RootDeviceName", "")
        with translated(f"describing the volumes of {instance_id}"):
            pages = self._pages("describe_volumes", {"attachment.instance-id": [instance_id]})
            found = [
                attached
                for page in pages
                for volume in page["Volumes"]
                for attached in _attached(volume, instance_id, root)
            ]
        return tuple(sorted(found, key=lambda volume: volume.device))

    def create_snapshots(
        self, instance_id: str, tags: Mapping[str, str], *, without_root: bool, without: Sequence[str]
    ) -> tuple[Snapshot, ...]:
        """See `Ec2`."""
        specification: dict[str, Any] = {"InstanceId": instance_id, "ExcludeBootVolume": without_root}
        if without:
            specification["ExcludeDataVolumeIds"] = list(without)
        made_of = [{"Key": key, "Value": value} for key, value in tags.items()]
        request: dict[str, Any] = {
            "InstanceSpecification": specification,
            "Description": tags.get("Name", "questdb-backup"),
            "TagSpecifications": [{"ResourceType": "snapshot", "Tags": made_of}],
        }
        client = self._once
        try:
            with translated(f"creating snapshots of {instance_id}"):
                answer = client.create_snapshots(**request)
        except VolumeUnavailableError as error:
            if _is_refusal(error.__cause__):
                raise
            raise UnknownOutcomeError(error.fact, error.hint) from error
        return tuple(_snapshot(each) for each in answer["Snapshots"])

    def find_snapshots(self, tags: Mapping[str, str]) -> tuple[Snapshot, ...]:
        """See `Ec2`."""
        with translated("looking for snapshots by their tags"):
            filters = {f"tag:{key}": [value] for key, value in tags.items()}
            pages = self._pages("describe_snapshots", filters, OwnerIds=["self"])
            found = [_snapshot(each) for page in pages for each in page["Snapshots"]]
        return tuple(sorted(found, key=lambda snapshot: (snapshot.started_at, snapshot.snapshot_id)))

    def describe_snapshots(self, snapshot_ids: Sequence[str]) -> tuple[Snapshot, ...]:
        """See `Ec2`."""
        # A filter leaves out what is not there; SnapshotIds would make an error of it.
        filters = {"snapshot-id": list(snapshot_ids)}
        with translated(f"describing {', '.join(snapshot_ids)}"):
            pages = self._pages("describe_snapshots", filters, OwnerIds=["self"])
            found = {each["SnapshotId"]: each for page in pages for each in page["Snapshots"]}
        return tuple(_snapshot(found[each]) for each in snapshot_ids if each in found)

    def tag_snapshots(self, snapshot_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """See `Ec2`."""
        with translated(f"tagging {', '.join(snapshot_ids)}"):
            self._client.create_tags(
                Resources=list(snapshot_ids),
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """See `Ec2`."""
        from botocore.exceptions import ClientError

        with translated(f"deleting {snapshot_id}"):
            try:
                self._client.delete_snapshot(SnapshotId=snapshot_id)
            except ClientError as error:
                if Answer.of(error).code == _GONE:
                    return False
                raise
        return True

    def _pages(self, operation: str, filters: Mapping[str, list[str]], **more: Any) -> Iterator[Json]:
        wanted = [{"Name": name, "Values": values} for name, values in filters.items()]
        pages: Iterator[Json] = iter(
            self._client.get_paginator(operation).paginate(
                Filters=wanted, PaginationConfig={"PageSize": _PAGE}, **more
            )
        )
        return pages

    def close(self) -> None:
        """Close the connections."""
        for name in ("_client", "_once"):
            if name in self.__dict__:
                self.__dict__[name].close()


def _is_refusal(cause: BaseException | None) -> bool:
    """Whether EC2 answered that it does not do it now, and was not merely silent or broken."""
    from botocore.exceptions import ClientError

    return isinstance(cause, ClientError) and (
        Answer.of(cause).status < 500 or Answer.of(cause).code in _THROTTLES
    )


def _instances(page: Json) -> Iterator[Json]:
    for reservation in page["Reservations"]:
        yield from reservation["Instances"]


def _attached(volume: Json, instance_id: str, root: str) -> Iterator[AttachedVolume]:
    for attachment in volume["Attachments"]:
        if attachment["InstanceId"] == instance_id and attachment["State"] not in _NOT_ATTACHED:
            yield AttachedVolume(
                volume_id=volume["VolumeId"],
                device=attachment["Device"],
                size=volume["Size"] * _GIB,
                is_root=attachment["Device"] == root,
            )


def _snapshot(found: Json) -> Snapshot:
    """From DescribeSnapshots, or CreateSnapshots, whose answer has the same names but fewer of them."""
    percent = str(found.get("Progress") or "0%").rstrip("%")
    return Snapshot(
        snapshot_id=found["SnapshotId"],
        volume_id=found["VolumeId"],
        state=found["State"],
        message=str(found.get("StateMessage") or ""),
        progress_percent=int(percent) if percent.isdigit() else 0,
        size=int(found["VolumeSize"]) * _GIB,
        started_at=format_timestamp(found["StartTime"]),
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", ())},
    )
