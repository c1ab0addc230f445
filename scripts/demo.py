"""``make run``: a real QuestDB is backed up while it is written to, restored, started, and compared.

The writer rests for a moment around CHECKPOINT CREATE, so that the state at the checkpoint can be
noted; during the whole copy it writes. Everything is on 127.0.0.1 and below one temporary folder.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from questdb_backup.cli.render import BackupProgress, format_bytes
from questdb_backup.local.options import Options, Place
from questdb_backup.local.runner import run_backup
from questdb_backup.services import Services
from tests.support.noted_checkpoint import Digests, NotingDatabase, PausingWriter
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import create_sample_tables, settle, table_digests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=700_000, help="rows in each of the three large tables")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="questdb-backup-run-"))
    try:
        return run(folder, arguments.rows)
    finally:
        if arguments.keep:
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, rows: int) -> int:
    root, restored = folder / "questdb", folder / "restored"
    (folder / "store").mkdir()
    store = f"fs::root={folder}/store/data;atomic_write_dir={folder}/store/atomic;"
    with QuestDBServer(root) as server:
        say(f"QuestDB {server.version} on {root}: making sample tables of {rows:,} rows")
        create_sample_tables(server, rows)
        options = Options(root=str(root), dsn=server.dsn, flags={"object-store": store})
        first = back_up(options, server)
        say("a second backup: only what has changed is stored")
        second = back_up(options, server)
    del first
    command("backups", store=store)
    command("verify", "--read-data", store=store)
    command("restore", "--root", str(restored), store=store)
    with QuestDBServer(restored) as server:
        say(f"a second server on {restored}")
        settle(server)
        return compare(second, table_digests(server))


def back_up(options: Options, server: QuestDBServer) -> Digests:
    """A backup with writes going on; give what the tables held at its checkpoint."""
    place = Place(options, os.environ)
    with PausingWriter(server) as writer:
        writer.wait_batches(8)
        noting = NotingDatabase(place.services.database, server, writer)
        before = writer.batches
        services = Services(
            config=replace(place.services.config),
            make_store=lambda: place.services.store,
            make_status=lambda: place.services.status,
            make_database=lambda: noting,
            make_source=place.services.make_source,
        )
        say(f"questdb-backup backup --root {options.root}   (a writer is running)")
        with BackupProgress() as bar:
            result = run_backup(place, {}, bar.show, workflow_services=services)
        say(
            f"{result['backup_timestamp']} {result['status']}: read {format_bytes(result['bytes_read'])},"
            f" stored {format_bytes(result['bytes_stored'])}, reused {format_bytes(result['bytes_reused'])},"
            f" checkpoint held {result['checkpoint_held_seconds']:.1f} s,"
            f" {writer.batches - before} statements written meanwhile"
        )
    return noting.noted


def command(*arguments: str, store: str) -> None:
    """Run the product's command as a user would."""
    say(f"questdb-backup {' '.join(arguments)}")
    executable = Path(sys.executable).with_name("questdb-backup")
    subprocess.run(
        [str(executable), *arguments], env={**os.environ, "QDB_BACKUP_OBJECT_STORE": store}, check=True
    )


def compare(wanted: Digests, found: Digests) -> int:
    """Print row counts and checksums of every table side by side; give the exit code."""
    equal = True
    print(f"\n{'table':<14} {'rows at checkpoint':>20} {'rows restored':>15}  checksums")
    for name in sorted({*wanted, *found}):
        left, right = wanted.get(name), found.get(name)
        same = left == right
        equal = equal and same
        rows = [f"{side[0]:,}" if side else "missing" for side in (left, right)]
        checksum = str(left[-1][-1])[2:14] if left else ""
        print(f"{name:<14} {rows[0]:>20} {rows[1]:>15}  {checksum} {'equal' if same else 'DIFFERENT'}")
    print("\nthe restored database equals the checkpoint" if equal else "\nTHE RESTORED DATABASE DIFFERS")
    return 0 if equal else 1


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
