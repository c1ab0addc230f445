"""``make run-ebs``: the whole EBS route on this machine, with a stand-in for EC2 and EBS.

A real QuestDB runs on a real, loop-mounted ext4 volume and is written to. The deployed state machine
takes a checkpoint, snapshots the volume (an atomic clone of the image file), releases the checkpoint, and
reads the server root straight out of the snapshot: nothing is mounted, no program runs beside the
database. Then the newest backup is restored twice, to a path and to a volume, and both are compared.
It needs root, loop mounts, mke2fs and mkfs.xfs.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from questdb_backup.cli.render import format_bytes
from questdb_backup.restore.server_conf import set_rebuild
from scripts.demo import command, compare, say
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import mounted, reflink_folder
from tests.support.ebs_route import EbsRoute, database_volume
from tests.support.loop_mounts import lacking
from tests.support.noted_checkpoint import Digests, PausingWriter
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import create_sample_tables, settle, table_digests

GIB = 1 << 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=700_000, help="rows in each of the three large tables")
    arguments = parser.parse_args()
    if lack := lacking():
        print(f"*** SKIPPED: the EBS route cannot be shown here, this host lacks {lack} ***", file=sys.stderr)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="questdb-backup-ebs-"))
    try:
        return run(folder, arguments.rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, rows: int) -> int:
    with (
        reflink_folder(folder, 30 * GIB) as outer,
        database_volume(outer, ("mke2fs", "-q", "-t", "ext4"), size=8 * GIB) as (image, disk),
        EbsStandin(outer / "ebs") as cloud,
    ):
        instance = cloud.add_instance()
        volume = cloud.add_volume(instance, image=image, device="/dev/sdf")
        with QuestDBServer(disk / "questdb") as server:
            say(f"QuestDB {server.version} on {instance}, its root on {volume} (ext4): {rows:,} rows a table")
            create_sample_tables(server, rows)
            route = EbsRoute(cloud, instance, server.dsn, folder / "deployment")
            back_up(route, server)
            say("a second backup: what has not changed is neither read nor stored")
            noted = back_up(route, server)
        command("backups", store=route.store_text)
        command("verify", "--read-data", store=route.store_text)
        restored = folder / "restored"
        command("restore", "--root", str(restored), store=route.store_text)
        say("the restored root")
        with QuestDBServer(restored) as server:
            settle(server)
            different = compare(noted, table_digests(server))
        with restored_volume(route) as root, QuestDBServer(root) as server:
            settle(server)
            return different or compare(noted, table_digests(server))


def back_up(route: EbsRoute, server: QuestDBServer) -> Digests:
    """A backup with writes going on; give what the tables held at its checkpoint."""
    say("a backup by the deployed state machine   (a writer is running)")
    cloud = route.cloud
    before = cloud.calls.blocks_fetched
    with PausingWriter(server) as writer:
        writer.wait_batches(8)
        result, noted = route.noted_backup(server, writer)
    read, stored = format_bytes(result["bytes_read"]), format_bytes(result["bytes_stored"])
    say(
        f"{result['backup_timestamp']} {result['status']}:"
        f" {result['bytes']:,} bytes in {result['files']:,} files;"
        f"\n   read {read} in {cloud.calls.blocks_fetched - before:,} blocks of 512 KiB, stored {stored},"
        f" about ${result['estimated_dollars']:.4f} on AWS"
    )
    return noted


@contextmanager
def restored_volume(route: EbsRoute) -> Iterator[Path]:
    """The server root on a volume made of the kept snapshot, mounted as its host would do it."""
    say("restore to a volume: made of the kept snapshot, attached to a new instance")
    target = route.cloud.add_instance()
    request: dict[str, Any] = {"availability_zone": "us-east-1a", "attach_to": target}
    result = route.restore({"target": "volume", "volume": request})
    for line in result["notes"]:
        print(f"   {line}")
    image = route.cloud.volume_image(result["volumes"][0]["volume_id"])
    with mounted(image, image.parent / "mounted") as disk:
        root = disk / "questdb"
        (root / "_restore").touch()
        set_rebuild(root, root).apply()
        yield root


if __name__ == "__main__":
    sys.exit(main())
