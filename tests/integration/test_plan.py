"""The verb plan beside a real server: what it says is what the backup that follows does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import NewServer
from tests.support import table_zoo
from tests.support.deployment import Deployment, run_here
from tests.support.live import checkpoint, fs_store
from tests.support.questdb_server import QuestDBServer

pytestmark = pytest.mark.integration

DAYS = 5
WIDE = (
    "create table wide as (select rnd_double() a, rnd_varchar(1, 40, 2) v, rnd_symbol('x', 'y') s,"
    " timestamp_sequence('2024-01-01', 86400000L) ts from long_sequence(5000))"
    " timestamp(ts) partition by day wal"
)
PLAIN = (
    "create table plain as (select rnd_long() a, timestamp_sequence('2024-01-01', 86400000L) ts"
    " from long_sequence(2000)) timestamp(ts) partition by day bypass wal"
)
APPEND = (
    "insert into wide select rnd_double(), rnd_varchar(1, 40, 2), rnd_symbol('x', 'z'),"
    " timestamp_sequence('2024-01-05T23:00', 1000000L) from long_sequence(500)"
)
SMALL_FILES = 64 << 10
"""What only the checkpoint has, and what the server writes to its own tables meanwhile."""

Snapshot = dict[str, tuple[int, bytes]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    with QuestDBServer(tmp_path_factory.mktemp("planned") / "root") as server:
        for statement in (WIDE, PLAIN):
            server.execute(statement)
        server.wait_applied()
        yield server


@pytest.fixture
def deployment(server: QuestDBServer, tmp_path: Path) -> Deployment:
    return Deployment(server=server, store_text=fs_store(tmp_path), state=tmp_path / "state")


def plan(deployment: Deployment) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run_here(*deployment.arguments("plan", "--json")).done())
    return value


def backup(deployment: Deployment) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(deployment.backup("--json").done())
    return value


def table(planned: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in planned["tables"] if each["table"] == name]
    return dict(found)


def snapshot(*folders: Path) -> Snapshot:
    """Everything below, with its times."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for folder in folders
        for path in (folder, *sorted(folder.rglob("*")))
        if path.exists()
    }


def agrees(planned: dict[str, Any], made: dict[str, Any]) -> None:
    for counter, name in (("bytes_read", "bytes_to_read"), ("bytes", "bytes")):
        assert abs(planned[name] - made[counter]) < SMALL_FILES, (name, planned, made)
    assert planned["partitions_unchanged"] == made["partitions_unchanged"]


def test_after_an_append_exactly_that_partition_is_to_be_read_and_the_backup_reads_it(
    deployment: Deployment,
) -> None:
    first = plan(deployment)
    assert (first["previous"], first["partitions_unchanged"]) == (None, 0)
    agrees(first, backup(deployment))

    rested = plan(deployment)
    assert table(rested, "wide")["partitions_unchanged"] == table(rested, "wide")["partitions"] == DAYS
    deployment.server.execute(APPEND)
    deployment.server.wait_applied()
    appended = plan(deployment)
    wide = table(appended, "wide")
    assert (wide["kind"], wide["partitions"], wide["partitions_unchanged"]) == ("wal", DAYS, DAYS - 1)
    assert 0 < wide["bytes_to_read"] < wide["bytes"] / 2
    assert table(appended, "plain")["bytes_to_read"] == table(appended, "plain")["bytes"]
    made = backup(deployment)
    agrees(appended, made)
    assert made["bytes_stored"] <= appended["bytes_to_store_estimate"] * 1.2
    assert appended["previous"] < made["backup_timestamp"]


def test_it_takes_no_checkpoint_and_leaves_no_trace(deployment: Deployment, tmp_path: Path) -> None:
    root, store = deployment.server.root, tmp_path / "store"
    resting = [root / name for name in ("conf", "backup", ".checkpoint", "db/plain")]
    watched = (*resting, root / "db" / ".backup_instance_name", store, deployment.state)
    before = snapshot(*watched)
    plan(deployment)
    assert snapshot(*watched) == before
    assert not (store / "data").exists()

    backup(deployment)
    before = snapshot(*watched)
    plan(deployment)
    assert snapshot(*watched) == before
    assert checkpoint(deployment.server) == (False, None)


@pytest.mark.parametrize("version", ["8.1.4", "9.1.0", "9.3.4"])
def test_the_plan_of_every_kind_of_table_is_that_of_the_backup(
    new_server: NewServer, tmp_path: Path, version: str
) -> None:
    server = new_server(version, env=table_zoo.settings(tmp_path / "volume"))
    table_zoo.fill(server)
    deployment = Deployment(server=server, store_text=fs_store(tmp_path), state=tmp_path / "state")
    for _ in range(2):
        planned = plan(deployment)
        agrees(planned, backup(deployment))
        assert not [text for text in planned["warnings"] if "changed just now" in text]
        assert "unknown" not in {each["kind"] for each in planned["tables"]}
