"""The stand-in for EBS as a server: who may ask it what and how often; and what it says that it does."""

import http.client
import importlib
import re
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import standin.ebs
from standin.ebs import UNLIMITED, Quotas
from tests.contract.ebs_standin.conftest import ROWS, Account, account, full_image, refused


def test_requests_to_ec2_can_be_limited_too(tmp_path: Path) -> None:
    with account(tmp_path, quotas=Quotas(ec2_per_account=2), throttle_by_clock=True) as aws:
        for _ in range(2):
            aws.ec2.describe_volumes()
        with refused("RequestLimitExceeded", status=503):
            aws.ec2.describe_volumes()


def test_no_limits_are_none(tmp_path: Path) -> None:
    with account(tmp_path, quotas=UNLIMITED) as aws:
        for _ in range(20):
            aws.ec2.create_snapshot(VolumeId=aws.volume)
        snapshot_id = aws.cloud.snapshots()[0].snapshot_id
        for _ in range(70):
            aws.listed(snapshot_id)


def test_calls_are_logged_with_their_parameters(aws: Account) -> None:
    aws.ec2.describe_volumes(VolumeIds=[aws.volume])
    with pytest.raises(ClientError):
        aws.ec2.describe_volumes(VolumeIds=["vol-00"])
    logged = [(call.parameters["VolumeIds"], call.error) for call in aws.cloud.calls.all("DescribeVolumes")]
    assert logged == [([aws.volume], ""), (["vol-00"], "InvalidVolume.NotFound")]
    assert aws.cloud.calls.counts() == {"DescribeVolumes": 2}


def test_an_unknown_action_is_refused(aws: Account) -> None:
    with refused("InvalidAction"):
        aws.ec2.describe_images()
    for asked in ({"SnapshotId": "snap-00"}, {"SnapshotId": "snap-00", "BlockIndex": "x"}):
        with pytest.raises(ClientError) as caught:
            aws.ebs.get_snapshot_block(**{"BlockIndex": "", "BlockToken": "t"} | asked)
        assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def test_many_clients_read_at_the_same_time(aws: Account) -> None:
    snapshot_id = full_image(aws, 64)
    tokens = aws.ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    wrong: list[object] = []

    def read(blocks: list[dict[str, Any]]) -> None:
        try:
            wrong.extend(
                block
                for block in blocks
                if aws.block(snapshot_id, block["BlockIndex"], block["BlockToken"])[:2] != b"x\0"
            )
        except Exception as error:  # shown by the assertion below
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(tokens[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(aws.cloud.calls.distinct_blocks) == 64


def test_it_runs_by_hand(tmp_path: Path) -> None:
    image = tmp_path / "db.img"
    image.write_bytes(b"x" * 4096)
    command = [sys.executable, "-m", "standin.ebs", "--volume", f"vol-0a={image}:/dev/sdf"]
    root = Path(standin.ebs.__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            endpoint = lines[2].removeprefix("export AWS_ENDPOINT_URL_EBS=http://").strip()
            with closing(http.client.HTTPConnection(endpoint, timeout=10)) as connection:
                connection.request("GET", "/snapshots/snap-00/blocks")
                assert connection.getresponse().status == 404
        finally:
            process.terminate()
            process.wait(30)  # its pipe stays open until then: it may still be printing
    assert process.returncode == 0, lines
    assert lines[0].startswith("# vol-0a /dev/sdf on i-")


def test_every_row_of_the_list_has_a_test() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):  # also where this file is run alone
        importlib.import_module(f"tests.contract.ebs_standin.{path.stem}")
    listed = re.findall(r"^    ([a-z-]+) \|", standin.ebs.__doc__ or "", re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == ROWS
