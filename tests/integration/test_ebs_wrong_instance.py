"""An instance that is not the server's, with a disk that has the server's data ID and an old checkpoint."""

import os
import time
from pathlib import Path

import pytest

from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import SourceFileError
from questdb_backup.volumes.base import ImageDevice
from questdb_backup.volumes.layout import open_file_system
from standin.ebs.quotas import Quotas
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import clone, mounted, reflink_folder, run
from tests.support.ebs_route import INSTANCE, EbsRoute, database_volume
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.questdb_server import QuestDBServer

PAST_SLACK_SECONDS = 6.0


@needs_loop_mounts
def test_a_copy_with_an_old_checkpoint_is_not_taken_for_the_database(tmp_path: Path) -> None:
    with (
        reflink_folder(tmp_path, 8 << 30) as outer,
        database_volume(outer, ("mke2fs", "-q", "-t", "ext4")) as (image, folder),
        EbsStandin(outer / "ebs", quotas=Quotas(snapshot_interval=0.0)) as cloud,
        QuestDBServer(folder / "questdb") as server,
    ):
        server.execute("create table t (x long, ts timestamp) timestamp(ts) partition by day wal")
        server.execute("checkpoint create")
        os.sync()
        copy = clone(image, outer / "copy.img")
        server.execute("checkpoint release")
        time.sleep(PAST_SLACK_SECONDS)
        other = cloud.add_instance()
        cloud.add_volume(other, image=copy, device="/dev/sdf")
        route = EbsRoute(cloud, other, server.dsn, tmp_path / "deployment")
        with pytest.raises(SourceFileError, match="DatabaseInstance"):
            route.backup()
        assert read_catalog(route.store, INSTANCE).complete_rows() == []
        own = cloud.add_instance()
        cloud.add_volume(own, image=image, device="/dev/sdf")
        right = EbsRoute(cloud, own, server.dsn, tmp_path / "deployment")
        assert right.backup()["tables"] > 0


@needs_loop_mounts
@pytest.mark.parametrize(
    "mkfs",
    [
        ("mke2fs", "-q", "-t", "ext4"),
        ("mke2fs", "-q", "-t", "ext4", "-I", "128"),
        ("mkfs.xfs", "-q", "-m", "bigtime=1"),
        ("mkfs.xfs", "-q", "-m", "bigtime=0"),
    ],
    ids=" ".join,
)
def test_the_time_of_change_is_the_one_that_the_kernel_shows(mkfs: tuple[str, ...], tmp_path: Path) -> None:
    image = tmp_path / "volume.img"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    run(*mkfs, image)
    with mounted(image, tmp_path / "mounted") as folder:
        (folder / "inner").mkdir()
        (folder / "file").write_bytes(b"x")
        seen = {path.name: path.stat().st_ctime for path in folder.iterdir()}
    device = ImageDevice(image)
    files = open_file_system("xfs" if mkfs[0] == "mkfs.xfs" else "ext4", device)
    found = {name: node.changed_at for name, node in files.entries(files.root)}
    device.close()
    assert found == pytest.approx(seen, abs=1e-5)
