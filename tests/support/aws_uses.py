"""IAM's actions and resources of the calls to AWS, as its reference of actions lists them."""

from collections.abc import Iterator
from typing import Any

from tests.support.deployed_template import ACCOUNT, REGION

OWN = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
SNAPSHOT = f"arn:aws:ec2:{REGION}::snapshot"


def ec2_uses(operation: str, params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a call of boto3's ec2 client needs to be allowed."""
    match operation:
        case "CreateSnapshots":
            yield "ec2:CreateSnapshots", f"{OWN}:instance/{params['InstanceSpecification']['InstanceId']}"
            yield "ec2:CreateSnapshots", f"{OWN}:volume/vol-of-the-instance"
            yield "ec2:CreateSnapshots", f"{SNAPSHOT}/snap-new"
            yield "ec2:CreateTags", f"{SNAPSHOT}/snap-new"
        case "DeleteSnapshot":
            yield "ec2:DeleteSnapshot", f"{SNAPSHOT}/{params['SnapshotId']}"
        case "CreateVolume":
            yield "ec2:CreateVolume", f"{SNAPSHOT}/{params['SnapshotId']}"
            yield "ec2:CreateVolume", f"{OWN}:volume/vol-new"
            yield "ec2:CreateTags", f"{OWN}:volume/vol-new"
        case "CreateTags":
            for each in params["Resources"]:
                yield "ec2:CreateTags", f"{SNAPSHOT}/{each}"
        case "AttachVolume":
            yield "ec2:AttachVolume", f"{OWN}:volume/{params['VolumeId']}"
            yield "ec2:AttachVolume", f"{OWN}:instance/{params['InstanceId']}"
        case "EnableFastSnapshotRestores" | "DisableFastSnapshotRestores":
            for each in params["SourceSnapshotIds"]:
                yield f"ec2:{operation}", f"{SNAPSHOT}/{each}"
        case _:
            assert operation.startswith("Describe"), operation
            yield f"ec2:{operation}", "*"


def data_uses(operation: str, params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a call of boto3's s3 or dynamodb client needs to be allowed."""
    bucket = f"arn:aws:s3:::{params.get('Bucket')}"
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/"
    match operation:
        case "GetObject" | "HeadObject":
            yield "s3:GetObject", f"{bucket}/{params['Key']}"
        case "PutObject" | "DeleteObject":
            yield f"s3:{operation}", f"{bucket}/{params['Key']}"
        case "DeleteObjects":
            for each in params["Delete"]["Objects"]:
                yield "s3:DeleteObject", f"{bucket}/{each['Key']}"
        case "ListObjectsV2":
            yield "s3:ListBucket", bucket
        case "TransactWriteItems":
            for each in params["TransactItems"]:
                for kind, item in each.items():
                    yield f"dynamodb:{kind}Item", table + item["TableName"]
        case _:
            yield f"dynamodb:{operation}", table + params["TableName"]
