"""What the EBS route asks for, counted by the server that is asked, beside what the kernel says is needed.

The stand-in counts the blocks that it sends, first to PlanBackup, then to the workers. A copy of the snapshot is mounted,
and FIEMAP tells which blocks hold bytes of the backup's files: what a worker needs is known without any of our
readers. PlanBackup needs metadata: a block with nothing but rows of partitions is none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.disk_blocks import DiskBlocks, disk_blocks, stored_files

from questdb_backup.catalog_store import read_catalog
from questdb_backup.local.bundle import read_definition, tasks
from questdb_backup.manifest import Manifest, read_manifest
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import reflink_folder
from tests.support.ebs_route import INSTANCE, EbsRoute, database_volume
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.questdb_server import QuestDBServer

DAYS = 16
COLUMNS = 8
ROWS = 8_000_000
"""576 MB: 16 days of 9 columns, 4 MB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One backup: the blocks that were sent, and those that are needed."""

    result: dict[str, Any]
    planner: frozenset[int]
    base: frozenset[int]
    """Of the previous snapshot; the planner reads what of its metadata has changed since."""
    workers: frozenset[int]
    sent: int
    disk: DiskBlocks
    lists: int


class Counter:
    """Runs backups by the deployed machine and counts."""

    def __init__(self, route: EbsRoute) -> None:
        self._route = route

    def back_up(self) -> Counted:
        route, calls = self._route, self._route.cloud.calls
        services = route.services()
        plan = tasks(read_definition("backup"), services)["PlanBackup"]
        planned: list[tuple[frozenset[tuple[str, int]], int]] = []

        def counted_plan(event: dict[str, Any]) -> object:
            calls.clear()
            answer = plan(event)
            planned.append((calls.distinct_blocks, calls.blocks_fetched))
            lists.append(calls.count("ListSnapshotBlocks") + calls.count("ListChangedBlocks"))
            calls.clear()
            return answer

        lists: list[int] = []
        result = route.backup(services, PlanBackup=counted_plan)
        ((by_planner, sent),) = planned
        by_workers, sent = calls.distinct_blocks, sent + calls.blocks_fetched
        manifest = self.manifest()
        (snapshot,) = (known.snapshot_id for known in manifest.snapshots)
        image = route.cloud.snapshot_image(snapshot)
        return Counted(
            result=result,
            planner=_of(by_planner, snapshot),
            base=frozenset(index for name, index in by_planner if name != snapshot),
            workers=_of(by_workers, snapshot),
            sent=sent,
            disk=disk_blocks(image, str(manifest.server_root), stored_files(route.store, manifest)),
            lists=lists[0] + calls.count("ListSnapshotBlocks"),
        )

    def manifest(self) -> Manifest:
        row = read_catalog(self._route.store, INSTANCE).latest_complete()
        assert row is not None
        assert row.manifest is not None
        return read_manifest(self._route.store, row.manifest)


def _of(blocks: frozenset[tuple[str, int]], snapshot: str) -> frozenset[int]:
    return frozenset(index for name, index in blocks if name == snapshot)


def show(name, c):
    d = c.disk
    print(
        f"{name}: sent {c.sent} planner {len(c.planner)} base {len(c.base)} workers {len(c.workers)} both {len(c.planner & c.workers)}"
        f" distinct {len(c.planner | c.workers) + len(c.base)} lists {c.lists}"
        f" needed {len(d.needed)} partitions {len(d.partitions)} others {len(d.others)} files {d.files} extents {d.extents}"
        f" planner on data {len(c.planner & d.only_partitions)} workers unneeded {len(c.workers - d.needed)}"
        f" workers on data {len(c.workers & d.partitions - d.others)}"
    )
    if name != "first" and len(c.workers) < 50:
        print(
            sorted(c.workers & d.partitions - d.others),
            sorted(c.workers & d.others),
            sorted(c.planner),
            sorted(c.base),
        )
    print({k: v for k, v in c.result.items() if isinstance(v, int | float)}, flush=True)


@needs_loop_mounts
def test_x(tmp_path: Path) -> None:
    import time

    with (
        reflink_folder(tmp_path, 12 << 30) as outer,
        database_volume(outer, ("mke2fs", "-q", "-t", "ext4", "-b", "4096")) as (image, folder),
        EbsStandin(outer / "ebs") as cloud,
        QuestDBServer(folder / "questdb") as server,
    ):
        instance = cloud.add_instance()
        cloud.add_volume(instance, image=image, device="/dev/sdf")
        route = EbsRoute(cloud, instance, server.dsn, tmp_path / "deployment")
        t = time.time()
        columns = ", ".join(f"rnd_double() c{number}" for number in range(COLUMNS))
        step = DAYS * 86_400_000_000 // ROWS
        server.execute(
            f"create table wide as (select {columns}, timestamp_sequence('2024-01-01', {step}L) ts"
            f" from long_sequence({ROWS})) timestamp(ts) partition by day wal"
        )
        server.wait_applied()
        print("filled", time.time() - t)
        counter = Counter(route)
        for name, sql in [
            ("first", None),
            ("nothing", None),
            ("update", "update wide set c3 = c3 + 1 where ts in '2024-01-05'"),
            (
                "append",
                f"insert into wide select {columns}, timestamp_sequence('2024-01-17', 1000L) ts from long_sequence(80000)",
            ),
            (
                "append2",
                f"insert into wide select {columns}, timestamp_sequence('2024-01-17T10', 1000L) ts from long_sequence(80000)",
            ),
        ]:
            t = time.time()
            if name not in ("first", "update"):
                continue
            if sql:
                server.execute(sql)
                server.wait_applied()
            show(name, counter.back_up())
            import subprocess

            print(
                subprocess.run(
                    "/usr/sbin/filefrag -v $(ls -d %s/db/wide*/2024-01-05*/c3*)" % server.root,
                    shell=True,
                    capture_output=True,
                    text=True,
                )
            )
            print(time.time() - t)
