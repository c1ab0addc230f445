"""What the EBS route asks for, counted by the server that is asked, beside what the kernel says is needed.

The stand-in counts the blocks that it sends, to PlanBackup and to the workers. A copy of the snapshot is
mounted, and FIEMAP tells which blocks hold bytes of the backup's files: so what a worker needs is known
without any of our readers. PlanBackup needs metadata: a block with nothing but rows has none.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.catalog_store import read_catalog
from questdb_backup.local.bundle import read_definition, tasks
from questdb_backup.manifest import Manifest, read_manifest
from standin.ebs.quotas import Quotas
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import reflink_folder
from tests.support.direct_standin import client
from tests.support.disk_blocks import DiskBlocks, disk_blocks, stored_files
from tests.support.ebs_route import INSTANCE, EbsRoute, database_volume
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.questdb_server import QuestDBServer

FILE_SYSTEMS = {
    "ext4": ("mke2fs", "-q", "-t", "ext4", "-b", "4096"),
    "xfs": ("mkfs.xfs", "-q"),
}
DAYS = 16
COLUMNS = 8
ROWS = 8_000_000
"""576 MB: 16 days of 9 columns, 4 MB each."""
METADATA_BLOCKS = 40
"""What a plan may look at here: superblock, the log's live part, inodes, directories and ``.checkpoint``, in
both snapshots. It grows with the files and with what is written between two backups, not with the rows."""
FREE_PIECE = 192 << 10
"""Of the fragmented file system: less than a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One backup: the blocks of its snapshot that were sent, to whom, and what the kernel says of them."""

    planner: frozenset[int]
    workers: frozenset[int]
    base: int
    """Blocks of the previous snapshot: what of its metadata is not the same in the new one."""
    sent: int
    """All of them, each time counted."""
    disk: DiskBlocks
    changed: frozenset[int]
    """Since the previous snapshot."""
    result: dict[str, Any]

    @property
    def distinct(self) -> int:
        """How many blocks were sent, each counted once."""
        return len(self.planner | self.workers) + self.base

    @property
    def rows_read(self) -> frozenset[int]:
        """Blocks that workers fetched for the rows in them."""
        return self.workers & self.disk.rows - self.disk.others

    @property
    def metadata(self) -> int:
        """How many blocks were fetched for anything but rows."""
        return self.distinct - len(self.rows_read)

    def __str__(self) -> str:
        disk, result = self.disk, self.result
        return (
            f"sent {self.sent} blocks, {self.distinct} distinct: {len(self.planner)} to the planner and"
            f" {self.base} of the base, {len(self.workers)} to workers; rows are in {len(disk.rows)} blocks,"
            f" {disk.files} files, {disk.extents} extents; {len(self.rows_read)} of them fetched,"
            f" {len(self.changed & disk.rows)} have changed; {result['bytes_read']:,} bytes read,"
            f" {result['list_requests']} lists, {result['get_requests']} gets, {result['put_requests']} puts,"
            f" ${result['estimated_dollars']}"
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """A server on a volume of the stand-in, and the deployment that backs it up."""

    route: EbsRoute
    server: QuestDBServer

    def execute(self, statement: str) -> None:
        """Run it, and wait until it is applied."""
        self.server.execute(statement)
        self.server.wait_applied()

    def fill(self, rows: int) -> None:
        """Make the table ``wide``."""
        step = DAYS * 86_400_000_000 // rows
        self.execute(
            f"create table wide as (select {_columns()}, timestamp_sequence('2024-01-01', {step}L) ts"
            f" from long_sequence({rows})) timestamp(ts) partition by day wal"
        )

    def back_up(self) -> Counted:
        """One backup by the deployed machine, counted."""
        route, calls = self.route, self.route.cloud.calls
        services = route.services()
        plan = tasks(read_definition("backup"), services)["PlanBackup"]
        planned: list[frozenset[tuple[str, int]]] = []
        sent = 0

        def counted_plan(event: dict[str, Any]) -> object:
            nonlocal sent
            answer = plan(event)
            planned.append(calls.distinct_blocks)
            sent = calls.blocks_fetched
            calls.clear()
            return answer

        calls.clear()
        result = route.backup(services, PlanBackup=counted_plan)
        (by_planner,) = planned
        by_workers, sent = calls.distinct_blocks, sent + calls.blocks_fetched
        manifest = self._manifest()
        (snapshot,) = (known.snapshot_id for known in manifest.snapshots)
        assert {name for name, _ in by_workers} <= {snapshot}
        found = Counted(
            planner=frozenset(index for name, index in by_planner if name == snapshot),
            workers=frozenset(index for _, index in by_workers),
            base=sum(1 for name, _ in by_planner if name != snapshot),
            sent=sent,
            disk=disk_blocks(
                route.cloud.snapshot_image(snapshot),
                str(manifest.server_root),
                stored_files(route.store, manifest, "wide"),
            ),
            changed=self._changed(snapshot),
            result=result,
        )
        print(found, flush=True)
        return found

    def _manifest(self) -> Manifest:
        row = read_catalog(self.route.store, INSTANCE).latest_complete()
        assert row is not None
        assert row.manifest is not None
        return read_manifest(self.route.store, row.manifest)

    def _changed(self, snapshot: str) -> frozenset[int]:
        cloud = self.route.cloud
        before = [known.snapshot_id for known in cloud.snapshots() if known.snapshot_id != snapshot]
        if not before:
            return frozenset()
        with closing(client(cloud, "ebs")) as ebs:
            page = ebs.list_changed_blocks(
                FirstSnapshotId=before[-1], SecondSnapshotId=snapshot, MaxResults=10_000
            )
        return frozenset(block["BlockIndex"] for block in page["ChangedBlocks"])


def _columns() -> str:
    return ", ".join(f"rnd_double() c{number}" for number in range(COLUMNS))


@contextmanager
def placed(
    mkfs: tuple[str, ...], scratch: Path, *, size: int, is_shattered: bool = False
) -> Iterator[Placed]:
    """A server on a fresh file system, or on one whose free space is in small pieces."""
    with (
        reflink_folder(scratch, 12 << 30) as outer,
        database_volume(outer, mkfs, size=size) as (image, folder),
        EbsStandin(outer / "ebs", quotas=Quotas(snapshot_interval=0.0)) as cloud,
    ):
        if is_shattered:
            _shatter(folder / "other")
        instance = cloud.add_instance()
        cloud.add_volume(instance, image=image, device="/dev/sdf")
        with QuestDBServer(folder / "questdb") as server:
            config = {"keep_ebs_snapshots": 2}
            yield Placed(EbsRoute(cloud, instance, server.dsn, scratch / "deployment", config), server)


def _shatter(folder: Path) -> None:
    """Fill the file system with small files, and remove every other one."""
    folder.mkdir()
    files: list[Path] = []
    try:
        while True:
            files.append(folder / f"{len(files)}")
            with files[-1].open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, FREE_PIECE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    for path in files[::2]:
        path.unlink()


@needs_loop_mounts
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_what_is_fetched_is_what_is_needed_and_follows_what_has_changed(kind: str, tmp_path: Path) -> None:
    with placed(FILE_SYSTEMS[kind], tmp_path, size=3 << 30) as database:
        database.fill(ROWS)
        first = database.back_up()
        assert first.result["bytes_read"] > ROWS * 8 * (COLUMNS + 1)
        assert first.workers <= first.disk.needed, "only blocks that hold something of the backup"
        assert not first.planner & first.disk.only_rows
        assert first.metadata <= METADATA_BLOCKS
        assert first.sent <= 1.05 * min(first.distinct, len(first.disk.needed))

        same = database.back_up()
        assert same.workers <= same.disk.others, "what is made anew with each checkpoint, and the live files"
        assert not same.planner & same.disk.only_rows
        assert same.metadata == same.distinct <= METADATA_BLOCKS
        assert same.result["bytes_read"] < 1 << 20

        database.execute("update wide set c3 = c3 + 1 where ts in '2024-01-05'")
        updated = database.back_up()
        read = updated.result["bytes_read"] / first.result["bytes_read"]
        assert 0.006 <= read <= 0.013, "about one percent has changed"
        assert len(updated.rows_read) <= 0.016 * len(updated.disk.rows)
        assert updated.metadata <= METADATA_BLOCKS


@needs_loop_mounts
def test_a_fragmented_file_system_costs_no_block_twice_within_a_unit(tmp_path: Path) -> None:
    with placed(FILE_SYSTEMS["ext4"], tmp_path, size=3 << 29, is_shattered=True) as database:
        database.fill(ROWS // 4)
        first = database.back_up()
        assert first.disk.extents > 3 * first.disk.files, "it is fragmented"
        assert first.workers <= first.disk.needed
        assert first.result["blocks_fetched"] == first.result["blocks_needed"]
        database.execute("update wide set c3 = c3 + 1 where ts in '2024-01-05'")
        updated = database.back_up()
        assert updated.result["blocks_fetched"] == updated.result["blocks_needed"]
