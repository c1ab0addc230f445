"""Backups over time: increments, retention, other places, restore before a start."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.local.options import Options
from questdb_backup.manifest import read_manifest
from tests.support.live import (
    back_up,
    catalog_of,
    command,
    fs_store,
    options_for,
    prune,
    restored,
    store_of,
)
from tests.support.questdb_server import QuestDBServer
from tests.support.s3_server import S3Server, VersityServer, find_versitygw
from tests.support.sample_data import settle, table_digests

pytestmark = pytest.mark.integration

INCREMENTS = [
    ["insert into trades select dateadd('d', 9, ts), symbol, side, price, amount from trades limit 50"],
    [
        "insert into chained values (2, 'b', '2024-03-01T00:00:01'), (3, 'c', '2024-03-04')",
        "update chained set a = 5 where s = 'x'",
    ],
    ["alter table chained add column added varchar", "drop table passing"],
    ["alter table chained drop partition list '2024-03-02'", "truncate table emptied"],
    ["update ledger set entry = 7 where entry > 0", "alter table chained rename column a to b"],
]
ROWS = "rnd_int() a, rnd_symbol('x', 'y') s, timestamp_sequence('2024-03-01', 200000000L) ts"


@pytest.fixture
def chained(sampled: QuestDBServer) -> Iterator[QuestDBServer]:
    """The sample with more tables that the increments above change; gone afterwards."""
    names = ("chained", "passing", "emptied")
    for name in names:
        sampled.execute(
            f"create table {name} as (select {ROWS} from long_sequence(900))"
            " timestamp(ts) partition by day wal"
        )
    settle(sampled)
    yield sampled
    for name in names:
        sampled.execute(f"drop table if exists {name}")


@pytest.fixture(params=["fs", "moto", "versitygw"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "fs":
        yield fs_store(tmp_path)
        return
    if request.param == "versitygw" and find_versitygw() is None:
        pytest.skip("versitygw is missing: run make setup where Go is installed")
    with S3Server() if request.param == "moto" else VersityServer() as server:
        yield server.connection_string(server.create_bucket("backups"), root="a/b")


def test_each_backup_that_retention_left_of_a_chain_restores_to_what_it_held(
    chained: QuestDBServer, store: str, tmp_path: Path
) -> None:
    noted: dict[str, dict[str, tuple[Any, ...]]] = {}
    options = options_for(chained, store, keep=2)
    for statements in INCREMENTS:
        for statement in statements:
            chained.execute(statement)
        settle(chained)
        found = table_digests(chained)
        noted[back_up(options)["backup_timestamp"]] = found
        assert prune(options)["errors"] == []
    left = [row.backup_timestamp for row in catalog_of(options).complete_rows()]
    assert left == list(noted)[-2:]
    told = command("verify", "--read-data", store=store)
    assert told.returncode == 0, told.stdout
    assert_nothing_but(options, left)
    for timestamp in left:
        with restored(store, tmp_path / timestamp, timestamp=timestamp) as server:
            assert table_digests(server) == noted[timestamp]


def assert_nothing_but(options: Options, left: list[str]) -> None:
    """The store holds the packs, shards and manifests of these backups, and no others."""
    objects, catalog = store_of(options), catalog_of(options)
    manifests = [row.manifest for row in catalog.complete_rows() if row.manifest]
    wanted = {ref.key for ref in manifests}
    for ref in manifests:
        manifest = read_manifest(objects, ref)
        wanted |= {keys.pack(catalog.instance, name) for name in manifest.packs}
        wanted |= {shard.key for table in manifest.tables for shard in table.shards}
    there = {info.key for info in objects.list(keys.instance_prefix(catalog.instance))}
    assert there - {keys.catalog(catalog.instance)} == wanted
    assert len(left) == len(manifests)


def test_a_lost_state_folder_and_another_host_change_nothing_of_what_is_known(
    chained: QuestDBServer, tmp_path: Path
) -> None:
    store = fs_store(tmp_path)
    options = options_for(chained, store)
    back_up(options)
    chained.execute("insert into passing values (1, 's', '2024-05-01')")
    settle(chained)
    noted = table_digests(chained)
    second = back_up(options)["backup_timestamp"]
    here = command("backups", "--json", "--root", str(chained.root), store=store)
    shutil.rmtree(chained.root / "backup")
    elsewhere = command("backups", "--json", store=store)
    again = command("backups", "--json", "--root", str(chained.root), store=store)
    assert json.loads(here.stdout) == json.loads(elsewhere.stdout) == json.loads(again.stdout)
    assert [row["status"] for row in json.loads(here.stdout)] == ["backup complete"] * 2
    told = command("restore", "--json", "--root", str(tmp_path / "restored"), store=store)
    assert json.loads(told.stdout)["backup_timestamp"] == second
    with QuestDBServer(tmp_path / "restored") as server:
        server.wait_applied()
        assert table_digests(server) == noted
    assert back_up(options)["bytes_reused"] > 0


def test_restore_on_start_prepares_a_root_that_the_server_then_starts_on(
    chained: QuestDBServer, tmp_path: Path
) -> None:
    store, root = fs_store(tmp_path), tmp_path / "fresh"
    noted = table_digests(chained)
    options = options_for(chained, store)
    timestamp = back_up(options)["backup_timestamp"]
    chained.execute("truncate table emptied")
    back_up(options)
    root.mkdir()
    (root / "_backup_restore").write_text(
        f"backup.object.store={store}\nbackup.restore.timestamp={timestamp}\n"
    )
    told = command("restore-on-start", "--root", str(root), store="")
    assert told.returncode == 0, told.stderr
    assert not (root / "_backup_restore").exists()
    nothing = command("restore-on-start", "--root", str(root), store="")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    with QuestDBServer(root) as server:
        server.wait_applied()
        assert table_digests(server) == noted


def test_a_store_with_two_instances_asks_which_one_is_meant(sampled: QuestDBServer, tmp_path: Path) -> None:
    store, target = fs_store(tmp_path), tmp_path / "restored"
    for name in ("quiet-river-stone", "gentle-forest-orchid"):
        flags = {**options_for(sampled, store).flags, "instance-name": name}
        back_up(options_for(sampled, store, flags=flags))
    told = command("restore", "--root", str(target), store=store)
    assert told.returncode == 2
    assert "several backup instances share the store: gentle-forest-orchid, quiet-river-stone" in told.stderr
    assert not target.exists()
    chosen = command(
        "restore",
        "--root",
        str(target),
        "--instance",
        "quiet-river-stone",
        "--dry-run",
        "--json",
        store=store,
    )
    assert json.loads(chosen.stdout)["backup_instance_name"] == "quiet-river-stone"
