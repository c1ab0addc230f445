"""Snapshots on the stand-in server, with the bytes that a test wants, and clients of it."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from questdb_backup.ebs.base import BLOCK_BYTES
from standin.ebs import EbsStandin

BETWEEN_SNAPSHOTS_SECONDS = 60
"""EC2 wants 15 between two of one volume."""


def make_volume(server: EbsStandin, image: Path, gib: int) -> str:
    """A volume on a new, sparse image; its id."""
    with image.open("xb") as file:
        file.truncate(gib << 30)
    return server.add_volume(None, image=image)


def write_blocks(image: Path, blocks: Mapping[int, bytes]) -> None:
    """Write them where they belong."""
    with image.open("r+b") as file:
        for index, data in blocks.items():
            file.seek(index * BLOCK_BYTES)
            file.write(data)


def take_snapshot(server: EbsStandin, volume_id: str) -> str:
    """A completed snapshot of the volume as it is; its id."""
    server.clock.advance(BETWEEN_SNAPSHOTS_SECONDS)
    with closing(client(server, "ec2")) as ec2:
        return str(ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"])


def client(server: EbsStandin, service: Any, *, connections: int = 10, attempts: int = 1) -> Any:
    """boto3's client of that service, for the server."""
    config = Config(
        max_pool_connections=connections,
        connect_timeout=5,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    return boto3.client(
        service,
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id="standin",
        aws_secret_access_key="standin",
        config=config,
    )
