"""The command on a frozen copy: what it does without, and what becomes of a run that is killed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import questdb_backup
from questdb_backup.catalog_store import read_catalog
from questdb_backup.instances import read_name
from questdb_backup.stores.fs import FsObjectStore
from tests.support.questdb_files import OneTable

PROJECT = Path(__file__).parents[2]
PACKAGES = Path(questdb_backup.__file__).parents[1]
NOT_NEEDED = {"aws_lambda_powertools", "boto3", "botocore", "croniter", "psycopg", "rich"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = OneTable(tmp_path / "root").write().root
    (root / "db" / ".backup_instance_name").unlink()
    return root


def run_python(tmp_path: Path, root: Path, *program: str) -> "subprocess.Popen[str]":
    """A program whose last arguments are those of the command that backs the root up."""
    store = f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/store/atomic;"
    command = ("backup", "--frozen", "--root", str(root), "--server-version", "9.3.4", "--json")
    known = {name: value for name, value in os.environ.items() if not name.startswith("QDB_")}
    return subprocess.Popen(
        [sys.executable, *program, *command, "--object-store", store],
        cwd=PROJECT,
        env={**known, "PYTHONPATH": f"{PACKAGES}:{PROJECT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_backup_imports_no_more_than_it_uses(tmp_path: Path, root: Path) -> None:
    program = "import sys; from questdb_backup.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    for _ in range(2):
        with run_python(tmp_path, root, "-c", program) as process:
            out, err = process.communicate(timeout=60)
        assert err == ""
        result, modules = out.splitlines()
        assert json.loads(result)["status"] == "backup complete"
        assert NOT_NEEDED.isdisjoint(modules.split())


def test_a_run_that_is_killed_is_ended_by_its_watchdog(tmp_path: Path, root: Path) -> None:
    (tmp_path / "hold").touch()
    with run_python(tmp_path, root, "-m", "tests.support.held_backup", str(tmp_path)) as process:
        wait_until(lambda: (tmp_path / f"held-{process.pid}").exists())
        wait_until(lambda: (root / "backup" / "frozen" / "watchdog.log").exists())
        process.kill()
    name = read_name(root)
    assert name is not None
    store = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")

    wait_until(lambda: read_catalog(store, name).lease is None)
    assert [row.status for row in read_catalog(store, name).rows] == ["backup failed"]


def test_a_watchdog_whose_run_ends_well_at_once_does_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "questdb_backup.local.watchdog_process"],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        input=b"options that nobody reads\ndone\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
