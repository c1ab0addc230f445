"""What a backup costs beside the one before it: bytes, requests and reads follow what has changed."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.local.options import Options
from questdb_backup.local.runner import run_restore
from questdb_backup.manifest import Manifest, read_manifest
from questdb_backup.packs import PACK_BYTES
from questdb_backup.steps.lock import drop_run_lease, take_lease
from questdb_backup.steps.prune import prune_backups
from questdb_backup.stores.counting import CountingStore
from tests.support.live import catalog_of, fs_store, options_for, store_of
from tests.support.measured import Measured
from tests.support.questdb_server import QuestDBServer

pytestmark = pytest.mark.integration

WIDE = 20
LONG = 1_000_000
PUTS_PER_TABLE = 2
"""Shards: the table's own files, and the partitions, which are few here."""
PUTS_PER_RUN = 16
"""The name, the catalog (lease, publish, prune, release), work lists and indexes, a unit, its result and a
last small pack before and under the checkpoint, and the manifest. Seen: 25 for 7 tables."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    """A server of its own, without tables that change by themselves."""
    with QuestDBServer(tmp_path_factory.mktemp("sizes") / "root") as server:
        columns = ", ".join(f"rnd_double() c{number}" for number in range(WIDE))
        server.execute(
            f"create table wide as (select {columns}, timestamp_sequence('2024-01-01', 4000000L) ts"
            " from long_sequence(20000)) timestamp(ts) partition by day wal"
        )
        server.wait_applied()
        yield server


@pytest.fixture
def options(wide: QuestDBServer, tmp_path: Path) -> Options:
    return options_for(wide, fs_store(tmp_path), keep=1)


def manifest_of(options: Options) -> Manifest:
    row = catalog_of(options).latest_complete()
    assert row is not None
    assert row.manifest is not None
    return read_manifest(store_of(options), row.manifest)


def durable(options: Options) -> dict[str, int]:
    """Sizes of what stays: everything but the catalog and the scratch of runs."""
    instance = catalog_of(options).instance
    prefix = keys.instance_prefix(instance)
    return {
        info.key: info.size
        for info in store_of(options).list(prefix)
        if not info.key.startswith(f"{prefix}runs/") and info.key != keys.catalog(instance)
    }


def test_an_update_of_one_of_twenty_columns_stores_a_tenth_at_most(
    wide: QuestDBServer, options: Options
) -> None:
    measured = Measured(options)
    first, _ = measured.back_up()
    wide.execute("update wide set c7 = c7 + c8 where ts in '2024-01-01'")
    wide.wait_applied()
    second, _ = measured.back_up()
    assert first["bytes_stored"] > 20_000 * 8 * WIDE * 0.8
    assert 20_000 * 8 * 0.5 < second["bytes_stored"] < first["bytes_stored"] / 10


def test_a_backup_of_an_idle_database_stores_a_manifest_and_reads_no_partition(
    wide: QuestDBServer, options: Options
) -> None:
    Measured(options).back_up()
    before, shards = durable(options), _shards(options)
    measured = Measured(options)
    made, _ = measured.back_up()
    added = {key: size for key, size in durable(options).items() if key not in before}
    assert made["bytes_stored"] == 0
    assert [key.split("/")[2] for key in added] == ["manifests"]
    assert sum(added.values()) < 16_384
    assert _shards(options) == shards
    assert [path for path in measured.tree.touched if "/2024-01-01" in path] == []
    assert made["partitions_unchanged"] >= 1


def _shards(options: Options) -> dict[str, list[str]]:
    return {table.table: [shard.key for shard in table.shards] for table in manifest_of(options).tables}


def test_the_requests_of_a_backup_follow_what_it_stores_and_none_is_a_list(
    wide: QuestDBServer, options: Options
) -> None:
    made, counts = Measured(options).back_up()
    tables = len(manifest_of(options).tables)
    packs = ceil(made["bytes_stored"] / PACK_BYTES)
    assert counts.list == 0
    assert counts.put <= packs + PUTS_PER_TABLE * tables + PUTS_PER_RUN
    wide.execute("insert into wide (ts, c1) values ('2024-01-01T05', 1)")
    wide.wait_applied()
    _, again = Measured(options).back_up()
    assert again.list == 0
    assert again.put <= counts.put

    store = CountingStore(store_of(options))
    services = Measured(options).services
    services.make_store = lambda: store
    instance = catalog_of(options).instance
    token = take_lease(services, instance, "prune:test", "prune")
    prune_backups(services, instance, token)
    drop_run_lease(services, instance, token, "the prune ended")
    assert (store.counts.list, store.counts.delete > 0) == (0, True)


def test_a_restore_lists_nothing(wide: QuestDBServer, options: Options, tmp_path: Path) -> None:
    measured = Measured(options)
    measured.back_up()
    before = measured.store.counts
    run_restore(measured.services, {"root": str(tmp_path / "restored")})
    spent = measured.store.counts - before
    tables = len(manifest_of(options).tables)
    assert (spent.list, spent.put, spent.delete) == (0, 0, 0)
    assert spent.get <= 10 + 4 * tables


FIXED = "rnd_double() price, rnd_int() size, rnd_symbol('x', 'y', 'z') s"


@pytest.mark.parametrize(
    "row",
    # The index of a VARCHAR column holds offsets, which all differ behind the first late row.
    [FIXED, f"{FIXED}, rnd_varchar(5, 30, 1) note"],
    ids=["fixed", "varchar"],
)
def test_late_rows_in_an_old_partition_store_less_than_what_lies_behind_them(
    wide: QuestDBServer, options: Options, row: str
) -> None:
    wide.execute(
        f"create table late as (select {row}, timestamp_sequence('2024-01-01', 86000L) ts"
        f" from long_sequence({LONG})) timestamp(ts) partition by day wal"
    )
    try:
        wide.execute(f"insert into late select {row}, '2024-01-03'::timestamp ts from long_sequence(10)")
        wide.wait_applied()
        measured = Measured(options)
        first, _ = measured.back_up()
        wide.execute(
            f"insert into late select {row}, timestamp_sequence('2024-01-01T11:00:00.000001', 1000L) ts"
            " from long_sequence(1000)"
        )
        wide.wait_applied()
        second, _ = measured.back_up()
    finally:
        wide.execute("drop table late")
    assert first["bytes_stored"] > LONG * (8 + 4)
    # More than half of the day lies behind them; in columns of 8 MB chunks of up to 2 MiB are coarse.
    assert second["bytes_stored"] < 0.42 * first["bytes_stored"]
