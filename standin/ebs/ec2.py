"""EC2's actions by name."""

from collections.abc import Callable, Mapping
from typing import Any

from standin.ebs.cloud import Cloud
from standin.ebs.ec2_attachments import attach_volume, delete_volume, detach_volume
from standin.ebs.ec2_create_volume import create_volume
from standin.ebs.ec2_fast_restores import describe_fast_restores, disable_fast_restores, enable_fast_restores
from standin.ebs.ec2_instances import create_tags, describe_instances
from standin.ebs.ec2_lists import Ask
from standin.ebs.ec2_snapshots import create_snapshot, create_snapshots, delete_snapshot, describe_snapshots
from standin.ebs.ec2_volume_status import describe_volume_status
from standin.ebs.ec2_volumes import describe_volumes

Operation = Callable[[Cloud, Ask], dict[str, Any]]

ACTIONS: Mapping[str, Operation] = {
    "AttachVolume": attach_volume,
    "CreateSnapshot": create_snapshot,
    "CreateSnapshots": create_snapshots,
    "CreateTags": create_tags,
    "CreateVolume": create_volume,
    "DeleteSnapshot": delete_snapshot,
    "DeleteVolume": delete_volume,
    "DescribeFastSnapshotRestores": describe_fast_restores,
    "DescribeInstances": describe_instances,
    "DescribeSnapshots": describe_snapshots,
    "DescribeVolumeStatus": describe_volume_status,
    "DescribeVolumes": describe_volumes,
    "DetachVolume": detach_volume,
    "DisableFastSnapshotRestores": disable_fast_restores,
    "EnableFastSnapshotRestores": enable_fast_restores,
}
