"""What an increment costs, on a root that is a dictionary: bytes, requests, and what is looked at."""

import random
from math import ceil

from questdb_backup.packs import PACK_BYTES
from tests.support.kit import DictSource, Kit

COLUMNS = 20
DAYS = 40
RUN_PUTS = 18
"""The catalog (lease, publish, prune, release), work lists, units, results, the last pack, the manifest."""


def noise(seed: int, size: int) -> bytes:
    """Bytes that no codec makes smaller."""
    return random.Random(seed).randbytes(size)


def wide(days: int = 1, size: int = 20_000) -> DictSource:
    """A WAL table of twenty columns, each partition signed."""
    source = DictSource()
    for day in range(days):
        for column in range(COLUMNS):
            source.files[f"db/wide~1/{day:020}/c{column}.d"] = noise(day * COLUMNS + column, size)
        source.signatures["wide~1", f"{day:020}"] = f"signature of {day}"
    source.files["db/wide~1/_name"] = b"wide"
    source.records["wide~1", 1] = "aa"
    return source


def test_a_change_of_one_of_twenty_columns_stores_a_tenth_at_most() -> None:
    kit = Kit(source=wide())
    first = kit.backed_up()
    kit.source.files[f"db/wide~1/{0:020}/c7.d"] = noise(10_000, 20_000)
    kit.source.signatures["wide~1", f"{0:020}"] = "another"
    kit.source.records["wide~1", 2] = "bb"
    second = kit.backed_up()
    assert first["bytes_stored"] >= COLUMNS * 20_000
    assert second["bytes_stored"] == 20_000


def test_of_many_partitions_only_the_one_that_changed_is_looked_at() -> None:
    kit = Kit(source=wide(DAYS, 100))
    kit.backed_up()
    changed = f"{DAYS // 2:020}"
    kit.source.signatures["wide~1", changed] = "another"
    kit.source.listed.clear()
    made = kit.backed_up()
    partitions = {path.split("/")[2] for path in kit.source.listed if path.count("/") == 3}
    assert partitions == {changed}
    assert made["partitions_unchanged"] == DAYS - 1


def test_without_the_proof_of_descent_every_partition_is_read_whatever_its_signature() -> None:
    kit = Kit(source=wide(DAYS, 100))
    kit.backed_up()
    kit.source.records["wide~1", 1] = "cc"
    kit.source.files[f"db/wide~1/{3:020}/c0.d"] = noise(10_000, 100)
    kit.source.listed.clear()
    made = kit.backed_up()
    assert {path for path in kit.source.files if path.count("/") == 3} <= set(kit.source.listed)
    assert made["bytes_stored"] == 100
    assert made["partitions_unchanged"] == 0


def test_a_backup_puts_its_packs_and_a_constant_and_lists_nothing() -> None:
    kit = Kit(source=wide(2, 3_000_000))
    before = kit.store.counts
    made = kit.backed_up()
    spent = kit.store.counts - before
    assert made["bytes_stored"] > 3 * PACK_BYTES
    assert spent.list == 0
    assert spent.put <= ceil(made["bytes_stored"] / PACK_BYTES) + RUN_PUTS
