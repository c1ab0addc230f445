"""An account on the stand-in for EBS, as boto3 sees it; the tests note which rows of its list they are of."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from standin.ebs import EbsStandin
from standin.ebs.images import BLOCK_BYTES

T = TypeVar("T", bound=Callable[..., None])

ROWS: set[str] = set()
ZONE, OTHER_ZONE = "us-east-1a", "us-east-1b"


def row(*names: str) -> Callable[[T], T]:
    """Marks a test of these rows."""
    ROWS.update(names)
    return lambda test: test


class Account:
    """A stand-in, its two clients, an instance with a data volume and a root volume."""

    def __init__(self, cloud: EbsStandin, folder: Path, clients: ExitStack) -> None:
        self.cloud = cloud
        self.folder = folder
        self._clients = clients
        self.ec2, self.ebs = self.client("ec2"), self.client("ebs")
        self.image = self.make_image("data.img", {0: b"a", 3: b"b", 5: b"c"})
        self.instance = cloud.add_instance(tags={"Name": "db"})
        self.volume = cloud.add_volume(self.instance, image=self.image, device="/dev/sdf", tags={"of": "db"})
        root = self.make_image("root.img", {1: b"r"})
        self.root = cloud.add_volume(self.instance, image=root, device="/dev/xvda", root=True)

    def client(self, service: Any) -> Any:
        config = Config(
            retries={"total_max_attempts": 1}, parameter_validation=False, connect_timeout=5, read_timeout=20
        )
        made = boto3.client(
            service,
            endpoint_url=self.cloud.endpoint,
            region_name=self.cloud.region,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=config,
        )
        return self._clients.enter_context(closing(made))

    def make_image(self, name: str, blocks: dict[int, bytes], size: int = 8 << 20) -> Path:
        image = self.folder / name
        with image.open("xb") as file:
            file.truncate(size)
        self.write(blocks, image)
        return image

    def write(self, blocks: dict[int, bytes], image: Path | None = None) -> None:
        with (image or self.image).open("r+b") as file:
            for index, byte in blocks.items():
                file.seek(index * BLOCK_BYTES)
                file.write(byte * BLOCK_BYTES)

    def snapshot(self, **more: Any) -> str:
        """A snapshot of the data volume; its id."""
        self.cloud.clock.advance(60)
        specification = {"InstanceId": self.instance, "ExcludeBootVolume": True}
        [made] = self.ec2.create_snapshots(InstanceSpecification=specification, **more)["Snapshots"]
        return str(made["SnapshotId"])

    def described(self, snapshot_id: str) -> dict[str, Any]:
        [one] = self.ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
        return dict(one)

    def listed(self, snapshot_id: str, **more: Any) -> list[int]:
        blocks = self.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, **more)["Blocks"]
        return [block["BlockIndex"] for block in blocks]

    def token(self, snapshot_id: str, index: int) -> str:
        page = self.ebs.list_snapshot_blocks(SnapshotId=snapshot_id, StartingBlockIndex=index)
        return str(page["Blocks"][0]["BlockToken"])

    def block(self, snapshot_id: str, index: int, token: str | None = None) -> bytes:
        token = token or self.token(snapshot_id, index)
        answer = self.ebs.get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token)
        return bytes(answer["BlockData"].read())

    def changes(self, second: str, first: str | None = None, **more: Any) -> dict[int, set[str]]:
        """The sides that have a token, by changed block; of one page."""
        asked = {"FirstSnapshotId": first} if first else {}
        page = self.ebs.list_changed_blocks(SecondSnapshotId=second, **asked, **more)
        return {
            each["BlockIndex"]: {name[0] for name in each if name.endswith("Token")}
            for each in page["ChangedBlocks"]
        }

    def new_volume(self, **asked: Any) -> dict[str, Any]:
        return dict(self.ec2.create_volume(**{"AvailabilityZone": ZONE, "VolumeType": "gp3"} | asked))

    def volume_state(self, volume_id: str) -> str:
        [volume] = self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
        return str(volume["State"])


@contextmanager
def account(folder: Path, **terms: Any) -> Iterator[Account]:
    """Time stands still in it."""
    cloud = EbsStandin(folder / "cloud", frozen_clock=True, **terms)
    with ExitStack() as clients, cloud:
        yield Account(cloud, folder, clients)


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Account]:
    with account(tmp_path) as opened:
        yield opened


@contextmanager
def refused(code: str, reason: str | None = None, status: int | None = None) -> Iterator[None]:
    """The block gets this error."""
    with pytest.raises(ClientError) as caught:
        yield
    answer: Any = caught.value.response
    assert answer["Error"]["Code"] == code, answer
    if reason:
        assert answer["Reason"] == reason
    if status:
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == status


def ids(items: list[dict[str, Any]], name: str) -> list[str]:
    return [item[name] for item in items]


def full_image(aws: Account, blocks: int) -> str:
    """A snapshot of a volume whose first blocks are all written."""
    image = aws.folder / "full.img"
    with image.open("xb") as file:
        file.truncate(blocks * BLOCK_BYTES)
        for index in range(blocks):
            file.seek(index * BLOCK_BYTES)
            file.write(b"x")
    volume = aws.cloud.add_volume(None, image=image, volume_id="vol-0f")
    return str(aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
