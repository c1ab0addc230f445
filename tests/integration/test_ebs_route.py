"""The EBS route whole: a real server on a real, mounted, busy volume; only the cloud is a stand-in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from questdb_backup.errors import SourceFileError
from questdb_backup.questdb.pgwire import PgwireDatabase
from questdb_backup.steps.database import database_to_json
from standin.ebs.quotas import Quotas
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import mounted, reflink_folder
from tests.support.ebs_route import EbsRoute, database_volume
from tests.support.live import checkpoint, restored
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.noted_checkpoint import PausingWriter
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import create_sample_tables, settle, table_digests

FILE_SYSTEMS = {
    "ext4": ("mke2fs", "-q", "-t", "ext4", "-b", "4096"),
    "xfs": ("mkfs.xfs", "-q"),
}


@pytest.fixture(params=FILE_SYSTEMS)
def placed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[EbsRoute, QuestDBServer]]:
    """A server whose root is on a volume of an instance, and the deployment that backs it up."""
    with (
        reflink_folder(tmp_path, 12 << 30) as outer,
        database_volume(outer, FILE_SYSTEMS[request.param]) as (image, folder),
        EbsStandin(outer / "ebs", quotas=Quotas(snapshot_interval=0.0)) as cloud,
        QuestDBServer(folder / "questdb", env={"QDB_DEV_MODE_ENABLED": "true"}) as server,
    ):
        instance = cloud.add_instance()
        cloud.add_volume(instance, image=image, device="/dev/sdf")
        yield EbsRoute(cloud, instance, server.dsn, tmp_path / "deployment"), server


@needs_loop_mounts
def test_a_busy_volume_is_backed_up_from_its_snapshots_again_and_again(
    placed: tuple[EbsRoute, QuestDBServer], tmp_path: Path
) -> None:
    route, server = placed
    create_sample_tables(server, 20_000)
    stored = []
    for number in range(3):
        with PausingWriter(server) as writer:
            writer.wait_batches(5)
            result, noted = route.noted_backup(server, writer)
        assert checkpoint(server)[0] is False
        stored.append(result["bytes_stored"])
        print({name: value for name, value in result.items() if isinstance(value, int | float)})
        with restored(route.store_text, tmp_path / f"restored{number}") as copy:
            settle(copy)
            assert table_digests(copy) == noted
    assert stored[1] < stored[0] / 2
    assert len(route.cloud.snapshots()) == 1, "only the newest backup's snapshots are kept"
    refuses_the_snapshot_of_another_server(route)
    assert checkpoint(server)[0] is False
    with volume_of(route) as folder, QuestDBServer(folder / "questdb") as copy:
        settle(copy)
        assert table_digests(copy) == noted


def refuses_the_snapshot_of_another_server(route: EbsRoute) -> None:
    def told_otherwise(_event: object) -> dict[str, object]:
        return {**database_to_json(PgwireDatabase(route.dsn).read()), "data_id": "0f" * 16}

    with pytest.raises(SourceFileError, match="DatabaseInstance"):
        route.backup(ReadDatabase=told_otherwise)


def image_is_xfs(image: Path) -> bool:
    with image.open("rb") as file:
        return file.read(4) == b"XFSB"


@contextmanager
def volume_of(route: EbsRoute) -> Iterator[Path]:
    """A volume made of the newest backup's snapshot, mounted as its host would, with the trigger file."""
    request = {"availability_zone": "us-east-1a", "attach_to": route.cloud.add_instance(zone="us-east-1a")}
    result = route.restore({"target": "volume", "volume": request})
    (volume,) = result["volumes"]
    assert (volume["device"], volume["instance_id"]) == ("/dev/sdf", request["attach_to"])
    image = route.cloud.volume_image(volume["volume_id"])
    options = "nouuid" if image_is_xfs(image) else ""
    with mounted(image, image.parent / "restored", options) as folder:
        assert (folder / "questdb/.checkpoint/db").is_dir()
        (folder / "questdb/_restore").touch()
        yield folder
