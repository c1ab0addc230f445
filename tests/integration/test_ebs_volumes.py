"""Databases that are spread over several volumes, and volumes that are more than one file system.

A real server runs on mounted disks: its root on an LVM volume in a GPT partition, tables beside it on XFS,
and a boot volume that has none of it.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.catalog_store import read_catalog
from questdb_backup.errors import BackupToolError, ConfigurationError, SourceFileError
from questdb_backup.local.bundle import read_definition, tasks
from questdb_backup.manifest import Entry, Manifest, read_manifest, read_shard
from standin.ebs.quotas import Quotas
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import mounted, reflink_folder, run
from tests.support.direct_standin import client
from tests.support.ebs_route import INSTANCE, EbsRoute
from tests.support.live import checkpoint, restored
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.made_disks import zfs_disk
from tests.support.noted_checkpoint import Digests
from tests.support.partitioned_disks import (
    FIRST_EXTENT,
    MIB,
    PARTITION,
    gpt_image,
    make_ext4,
    needs_lvm,
    put_volume_group,
)
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import table_digests
from tests.support.table_zoo import settings

pytestmark = [needs_loop_mounts, needs_lvm]
GIB = 1 << 30
SIZE = 2 * GIB
DAYS = 8
ROWS = 8_000
LEDGER_ROWS = 6_000
"""3 MB in each day: most blocks of 512 KiB hold rows of one day only."""
GROUP = "questdb_backup_tests"
BOOT, ROOT, SSD = "/dev/sda1", "/dev/sdf", "/dev/sdg"


@dataclass
class Host:
    """An instance of the stand-in with its disks mounted here, and the server on them.

    ``meanwhile`` is called between CHECKPOINT CREATE and the snapshots.
    """

    cloud: EbsStandin
    instance: str
    scratch: Path
    volumes: dict[str, str] = field(default_factory=dict)
    """Ids by device."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Mount points by device."""
    meanwhile: Callable[[], None] = lambda: None

    def add_disk(self, device: str, image: Path, folder: Path | None = None) -> None:
        """Attach a disk, and say where it is mounted."""
        self.volumes[device] = self.cloud.add_volume(
            self.instance, image=image, device=device, root=device == BOOT
        )
        if folder is not None:
            self.folders[device] = folder

    def attach_as(self, device: str, name: str) -> None:
        """Attach the disk under another name, as after a stop of the instance."""
        self.cloud.detach(self.volumes[device])
        with closing(client(self.cloud, "ec2")) as ec2:
            ec2.attach_volume(VolumeId=self.volumes[device], InstanceId=self.instance, Device=name)

    def route(self, server: QuestDBServer, folder: Path, **config: Any) -> EbsRoute:
        """A deployment with an empty store."""
        return EbsRoute(self.cloud, self.instance, server.dsn, folder, config)

    def ssd_mount(self, name: str) -> tuple[str]:
        """The parameter VolumeMounts; ``name`` is what the volume is called in it."""
        return (f"{self.folders[SSD]}={name}",)

    def snapshotted(self) -> list[str]:
        """The devices of which there are snapshots."""
        devices = {volume: device for device, volume in self.volumes.items()}
        return sorted(devices[each.volume_id] for each in self.cloud.snapshots())


@contextmanager
def host(scratch: Path) -> Iterator[Host]:
    """An instance without disks."""
    known: list[Host] = []

    @contextmanager
    def around_clones() -> Iterator[None]:
        known[0].meanwhile()
        yield

    with (
        reflink_folder(scratch, 12 * GIB) as outer,
        EbsStandin(outer / "ebs", quotas=Quotas(snapshot_interval=0.0), around_clones=around_clones) as cloud,
    ):
        known.append(Host(cloud, cloud.add_instance(), outer))
        yield known[0]


@contextmanager
def boot_disk(scratch: Path) -> Iterator[tuple[Path, Path]]:
    """A GPT disk with an ext4 that has what a boot volume has: image and mount point."""
    image = gpt_image(scratch / "boot.img", SIZE)
    options = make_ext4(image, PARTITION, SIZE - 4 * MIB)
    with mounted(image, scratch / "boot", options) as folder:
        for name in ("etc", "home/ubuntu", "var/lib/mysql/db", "mnt/ssd"):
            (folder / name).mkdir(parents=True)
        (folder / "etc/os-release").write_text("ID=linux\n")
        (folder / "data").symlink_to("/mnt/data/questdb")
        yield image, folder


@contextmanager
def lvm_disk(scratch: Path) -> Iterator[tuple[Path, Path]]:
    """A GPT disk with a physical volume, and an ext4 on its one logical volume."""
    image = gpt_image(scratch / "data.img", SIZE)
    put_volume_group(image, GROUP, size=SIZE - 16 * MIB)
    options = make_ext4(image, FIRST_EXTENT, SIZE - 16 * MIB)
    with mounted(image, scratch / "data", options) as folder:
        yield image, folder


@contextmanager
def xfs_disk(scratch: Path) -> Iterator[tuple[Path, Path]]:
    """An XFS with the label ``ssd`` on the whole disk."""
    image = scratch / "ssd.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.xfs", "-q", "-L", "ssd", image)
    with mounted(image, scratch / "ssd") as folder:
        yield image, folder


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, QuestDBServer]]:
    """A server whose tables are on two volumes, beside a boot volume."""
    with (
        host(tmp_path_factory.mktemp("spread")) as found,
        boot_disk(found.scratch) as boot,
        lvm_disk(found.scratch) as data,
        xfs_disk(found.scratch) as ssd,
    ):
        for device, (image, folder) in {BOOT: boot, ROOT: data, SSD: ssd}.items():
            found.add_disk(device, image, folder)
        with QuestDBServer(data[1] / "questdb", env=settings(ssd[1] / "tables")) as server:
            make_tables(server)
            yield found, server


def make_tables(server: QuestDBServer, *, ledger_rows: int = LEDGER_ROWS) -> None:
    """``home`` beside the root, ``far`` and ``ledger`` on the other volume; ``ledger`` without WAL."""
    columns = f"rnd_symbol('a', 'b', 'c') name, rnd_varchar(1, 20, 2) note, {_ts(ROWS)}"
    for name, kind in {"home": "wal", "far": "wal in volume 'other'"}.items():
        server.execute(f"create table {name} as (select {columns}) timestamp(ts) partition by day {kind}")
    server.execute(
        f"create table ledger as (select rnd_str(2000, 2000, 0) entry, {_ts(ledger_rows)})"
        " timestamp(ts) partition by day bypass wal in volume 'other'"
    )
    server.wait_applied()


def _ts(rows: int) -> str:
    step = DAYS * 86_400_000_000 // rows
    return f"timestamp_sequence('2024-01-01', {step}L) ts from long_sequence({rows})"


def insert(server: QuestDBServer) -> None:
    """A row into the last day of each table on the other volume."""
    server.execute("insert into far values ('d', 'later', '2024-01-08T23:59:59.99')")
    server.execute("insert into ledger values ('later', '2024-01-08T23:59:59.99')")
    server.wait_applied()


def manifest_of(route: EbsRoute) -> Manifest:
    row = read_catalog(route.store, INSTANCE).latest_complete()
    assert row is not None
    assert row.manifest is not None
    return read_manifest(route.store, row.manifest)


def entries_of(route: EbsRoute, table: str) -> dict[str, Entry]:
    """What the newest backup has of a table, by path."""
    manifest = manifest_of(route)
    (known,) = (known for known in manifest.tables if known.name == table)
    groups = (group for shard in known.shards for group in read_shard(route.store, shard))
    return {entry.path: entry for group in groups for entry in group.entries}


def assert_restores(route: EbsRoute, root: Path, noted: Digests) -> None:
    with restored(route.store_text, root) as copy:
        assert table_digests(copy) == noted


def put_in_place(folder: Path) -> None:
    """Have the log's metadata written where it belongs, and not later, into blocks that hold rows too."""
    run("fsfreeze", "--freeze", folder)
    run("fsfreeze", "--unfreeze", folder)


def read_from(host: Host, device: str, route: EbsRoute) -> int:
    """Make a backup; give how many blocks of that volume its workers fetched."""
    services, calls = route.services(), host.cloud.calls
    plan = tasks(read_definition("backup"), services)["PlanBackup"]

    def planned(event: dict[str, Any]) -> object:
        answer = plan(event)
        calls.clear()
        return answer

    route.backup(services, PlanBackup=planned)
    volume = host.volumes[device]
    (snapshot,) = (each.snapshot_id for each in host.cloud.snapshots() if each.volume_id == volume)
    found = sum(1 for name, _ in calls.distinct_blocks if name == snapshot)
    print(f"{found} blocks of {device}")
    return found


def refusal(route: EbsRoute, server: QuestDBServer, kind: type[BackupToolError]) -> BackupToolError:
    """What a backup fails with; the checkpoint is released all the same."""
    with pytest.raises(kind) as error:
        route.backup()
    assert checkpoint(server)[0] is False
    return error.value


def test_tables_on_a_second_volume_are_in_the_backup_and_their_unchanged_partitions_are_not_read_again(
    spread: tuple[Host, QuestDBServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, server = spread
    route = host.route(server, tmp_path / "deployment")
    lost = refusal(route, server, ConfigurationError)
    print(lost)
    assert f"is a link to {host.folders[SSD]}/tables/" in lost.fact
    assert "VolumeMounts" in lost.hint
    failed = {each.snapshot_id for each in host.cloud.snapshots()}
    assert host.snapshotted() == [ROOT, SSD]

    put_in_place(host.folders[SSD])
    route.config = {"ebs_mounts": host.ssd_mount(SSD)}
    read_of_all = read_from(host, SSD, route)
    assert host.snapshotted() == [ROOT, SSD]
    assert not failed & {each.snapshot_id for each in host.cloud.snapshots()}, "they are swept"
    for table in ("far", "ledger"):
        (link,) = {entry.link for entry in entries_of(route, table).values() if entry.link}
        assert link.startswith(f"{host.folders[SSD]}/tables/{table}")

    host.attach_as(SSD, "/dev/sdk")
    route.config = {"ebs_mounts": host.ssd_mount("/dev/sdk")}
    insert(server)
    noted = table_digests(server)
    monkeypatch.setattr(host, "meanwhile", lambda: insert(server))
    assert read_from(host, SSD, route) < read_of_all / 2, "only the last day has changed"
    assert table_digests(server) != noted
    assert_restores(route, tmp_path / "restored", noted)


def test_a_root_is_found_beside_a_boot_volume_and_a_volume_goes_by_each_of_its_names(
    spread: tuple[Host, QuestDBServer], tmp_path: Path
) -> None:
    host, server = spread
    noted = table_digests(server)
    names = (host.volumes[BOOT], host.volumes[ROOT], host.volumes[SSD])
    route = host.route(
        server, tmp_path / "deployment", ebs_volume_ids=names, ebs_mounts=host.ssd_mount("ssd")
    )
    route.backup()
    assert host.snapshotted() == [BOOT, ROOT, SSD]
    assert manifest_of(route).server_root == "questdb"
    assert_restores(route, tmp_path / "restored", noted)


def test_what_is_wrong_with_the_root_is_told(spread: tuple[Host, QuestDBServer], tmp_path: Path) -> None:
    host, server = spread
    here = f"/questdb on {ROOT} ({host.volumes[ROOT]}), LV data of VG {GROUP}"
    mounts = host.ssd_mount(host.volumes[SSD])
    route = host.route(
        server, tmp_path / "wrong", ebs_server_root=f"{host.folders[ROOT]}/questdb", ebs_mounts=mounts
    )
    wrong = refusal(route, server, SourceFileError)
    print(wrong)
    assert f"{host.folders[ROOT]}/questdb, the parameter ServerRoot, holds no .checkpoint/db" in wrong.fact
    assert here in wrong.hint

    other = host.folders[ROOT] / "srv/other/.checkpoint/db"
    other.mkdir(parents=True)
    try:
        route = host.route(server, tmp_path / "two", ebs_mounts=mounts)
        several = refusal(route, server, SourceFileError)
        print(several)
        assert here in several.fact
        assert f"/srv/other on {ROOT}" in several.fact
        route.config = {"ebs_server_root": "/questdb", "ebs_mounts": mounts}
        route.backup()
    finally:
        other.rmdir()

    pool = host.scratch / "pool.img"
    pool.write_bytes(zfs_disk("tank"))
    host.add_disk("/dev/sdh", pool)
    ids = (host.volumes[BOOT], host.volumes["/dev/sdh"])
    try:
        route = host.route(server, tmp_path / "none", ebs_volume_ids=ids)
        none = refusal(route, server, SourceFileError)
    finally:
        host.cloud.detach(host.volumes["/dev/sdh"])
    print(none)
    assert f"{BOOT} ({host.volumes[BOOT]}), partition 1 (GPT)" in none.fact
    assert f"/dev/sdh ({host.volumes['/dev/sdh']}), whole disk: a member of the ZFS pool 'tank'" in none.fact
    assert "VolumeIds" in none.hint


def test_a_database_on_the_boot_volume_alone_is_found_by_itself(tmp_path: Path) -> None:
    with host(tmp_path) as found, boot_disk(found.scratch) as (image, folder):
        found.add_disk(BOOT, image, folder)
        with QuestDBServer(folder / "home/ubuntu/.questdb", env=settings(folder / "tables")) as server:
            make_tables(server, ledger_rows=DAYS)
            noted = table_digests(server)
            mounts = (f"{folder}={BOOT}",)
            route = found.route(server, tmp_path / "deployment", ebs_mounts=mounts)
            route.backup()
        assert found.snapshotted() == [BOOT]
        assert manifest_of(route).server_root == "home/ubuntu/.questdb"
        assert_restores(route, tmp_path / "restored", noted)
