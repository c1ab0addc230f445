"""What a backup takes over from the one before: by signature unread, by content, and from runs that died."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.chunker import MIN_CHUNK_BYTES
from questdb_backup.errors import StoreUnavailableError
from questdb_backup.local.bundle import read_definition, tasks
from questdb_backup.source.base import Tree
from questdb_backup.source.clones import NoClones
from tests.support.faults import raise_injected
from tests.support.kit import INSTANCE, DictSource, Kit

KIB = 1 << 10
OWN = {"db/t~1/s.c", "_meta"}


def partition(number: int) -> str:
    return f"{number:020d}"


def path(number: int) -> str:
    return f"db/t~1/{partition(number)}/x.d"


def signed(partitions: int, size: int = 4 * KIB) -> DictSource:
    """A table whose partitions have signatures and whose log has ten transactions."""
    source = DictSource({"db/t~1/s.c": b"symbols", "_meta": b"root"})
    for number in range(partitions):
        source.files[path(number)] = os.urandom(size)
        source.signatures["t~1", partition(number)] = "first"
    source.records["t~1", 10] = "10 at noon"
    return source


def grow(source: DictSource) -> None:
    """More transactions come."""
    last = max(txn for _, txn in source.records)
    source.records["t~1", last + 1] = f"{last + 1} later"


def change(source: DictSource, number: int, data: bytes, signature: str) -> None:
    source.files[path(number)] = data
    source.signatures["t~1", partition(number)] = signature
    grow(source)


def test_an_unchanged_partition_is_neither_listed_nor_read() -> None:
    kit = Kit(signed(100))
    first = kit.backed_up()
    kit.source.listed.clear()
    again = kit.backed_up()
    assert set(kit.source.listed) == OWN
    assert (again["bytes_stored"], again["partitions_unchanged"]) == (0, 100)
    assert again["bytes_unchanged"] == 100 * 4 * KIB
    assert again["files"] == first["files"] == 102
    assert kit.stored_files() == kit.source.files


def test_shards_whose_signatures_hold_are_not_even_read() -> None:
    kit = Kit(signed(200))
    kit.backed_up()
    shards = [shard.key for table in kit.manifest().tables for shard in table.shards]
    assert len(shards) > 4
    before = kit.store.counts
    kit.source.listed.clear()
    kit.backed_up()
    assert [shard.key for table in kit.manifest().tables for shard in table.shards] == shards
    assert (kit.store.counts - before).get < 40


def test_a_changed_partition_alone_is_read_and_renews_one_shard() -> None:
    kit = Kit(signed(200))
    kit.backed_up()
    before = {shard.key for table in kit.manifest().tables for shard in table.shards}
    change(kit.source, 77, b"other bytes", "second")
    kit.source.listed.clear()
    output = kit.backed_up()
    after = {shard.key for table in kit.manifest().tables for shard in table.shards}
    assert set(kit.source.listed) == OWN | {path(77)}
    assert output["partitions_unchanged"] == 199
    assert len(after - before) == len(before - after) == 1
    assert kit.stored_files() == kit.source.files


def test_new_and_dropped_partitions_are_seen() -> None:
    kit = Kit(signed(40))
    kit.backed_up()
    for number in (0, 17, 39):
        del kit.source.files[path(number)]
        del kit.source.signatures["t~1", partition(number)]
    for number in (40, 41):
        change(kit.source, number, os.urandom(100), "new")
    kit.source.listed.clear()
    kit.backed_up()
    assert set(kit.source.listed) == OWN | {path(40), path(41)}
    assert kit.stored_files() == kit.source.files


def test_many_increments_leave_the_shards_that_one_backup_would_make() -> None:
    kit = Kit(signed(70))
    kit.backed_up()
    for day in range(70, 90):
        change(kit.source, day, os.urandom(50), "new")
        kit.backed_up()
    alone = Kit(kit.source)
    alone.backed_up()
    assert [table.shards[1:] and len(table.shards) for table in kit.manifest().tables] == [
        table.shards[1:] and len(table.shards) for table in alone.manifest().tables
    ]
    assert kit.stored_files() == alone.stored_files() == kit.source.files


@pytest.mark.parametrize(
    "record", ["10 at another hour", None], ids=["another history", "a log that ends before"]
)
def test_equal_signatures_of_another_history_count_for_nothing(record: str | None) -> None:
    kit = Kit(signed(5))
    kit.backed_up()
    kit.source.files[path(3)] = b"rows of another history"
    del kit.source.records["t~1", 10]
    if record is not None:
        kit.source.records["t~1", 10] = record
    assert kit.backed_up()["partitions_unchanged"] == 0
    assert kit.stored_files() == kit.source.files


def test_a_table_without_a_log_goes_by_content() -> None:
    kit = Kit(signed(5))
    kit.source.records.clear()
    kit.backed_up()
    kit.source.files[path(3)] = b"other rows"
    output = kit.backed_up()
    assert output["partitions_unchanged"] == 0
    assert output["bytes_stored"] == len(b"other rows")
    assert kit.stored_files() == kit.source.files


def test_packs_that_are_mostly_dead_are_given_up_and_their_rest_is_stored_again() -> None:
    kit = Kit(signed(20, size=100 * KIB), keep=1)
    kit.backed_up()
    old, _ = kit.manifest().packs
    for number in range(15):
        change(kit.source, number, os.urandom(100 * KIB), "second")
    wasted = kit.backed_up()["bytes_wasted"]
    assert wasted > 1400 * KIB
    assert old in kit.manifest().packs
    last = kit.backed_up()
    assert old not in kit.manifest().packs
    assert last["bytes_stored"] >= 4 * 100 * KIB
    assert last["partitions_unchanged"] == 16
    assert last["bytes_wasted"] < 100 * KIB
    assert kit.stored_files() == kit.source.files


def test_a_damaged_pack_is_not_referred_to_any_more() -> None:
    kit = Kit(signed(20))
    kit.backed_up()
    old, _ = kit.manifest().packs
    update_catalog(kit.inner, INSTANCE, lambda before: replace(before, damaged_packs=(old,)))
    kit.inner.delete([keys.pack(INSTANCE, old)])
    kit.backed_up()
    assert old not in kit.manifest().packs
    assert kit.stored_files() == kit.source.files


def test_a_run_that_died_is_gone_on_with() -> None:
    kit = Kit(signed(20, size=100 * KIB))
    died = kit.backup(CompleteBackup=lambda _event: raise_injected("complete"))
    assert died.status == "FAILED"
    output = kit.backed_up()
    assert output["bytes_stored"] == 0
    assert output["bytes_read"] > 20 * 100 * KIB
    undisturbed = Kit(kit.source)
    undisturbed.backed_up()
    assert digests(kit) == digests(undisturbed)
    kit.clock.forward(hours=49)
    kit.backed_up()
    kit.clock.forward(hours=49)
    kit.backed_up()
    assert kit.stored_files() == kit.source.files


def test_a_dead_run_lends_only_what_it_stored_itself() -> None:
    kit = Kit(signed(20, size=100 * KIB))
    kit.backed_up()
    old = set(kit.manifest().packs)
    change(kit.source, 3, os.urandom(100 * KIB), "second")
    kit.source.records.clear()
    assert kit.backup(CompleteBackup=lambda _event: raise_injected("complete")).status == "FAILED"
    key = next(row.manifest.key for row in read_catalog(kit.inner, INSTANCE).rows if row.manifest)
    kit.inner.delete([key])
    kit.inner.create(key, b"damaged")
    output = kit.backed_up()
    assert old.isdisjoint(kit.manifest().packs)
    assert output["bytes_reused"] == 100 * KIB
    assert kit.stored_files() == kit.source.files


def test_a_partition_of_which_a_part_was_lost_is_never_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.unit_cutting.UNIT_BYTES", 2 * MIN_CHUNK_BYTES)
    kit = Kit(signed(3, size=MIN_CHUNK_BYTES))
    for name in ("a", "b", "c", "e"):
        kit.source.files[f"db/t~1/{partition(1)}/{name}.d"] = os.urandom(MIN_CHUNK_BYTES)
    lost = f"db/t~1/{partition(1)}/c.d"

    def plan(event: dict[str, Any]) -> Any:
        planned = task(kit, "PlanBackup")(event)
        if planned["settled"]:
            kit.source.files[lost + "-"] = kit.source.files.pop(lost)
        return planned

    def create(event: dict[str, Any]) -> Any:
        kit.source.files[lost] = kit.source.files.pop(lost + "-")
        return task(kit, "CreateCheckpoint")(event)

    assert kit.backup(PlanBackup=plan, CreateCheckpoint=create).error == "SourceFileError"
    kit.backed_up()
    assert kit.stored_files() == kit.source.files


def test_crashes_cost_no_more_than_the_units_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.unit_cutting.UNIT_BYTES", MIN_CHUNK_BYTES)
    kit = Kit(signed(16, size=MIN_CHUNK_BYTES))
    for crash in range(3):
        uploads = 0

        def upload(event: dict[str, object]) -> object:
            nonlocal uploads
            uploads += 1
            if uploads > 4 * (crash + 1):  # noqa: B023
                raise_injected("upload")
            return task(kit, "UploadPartitions")(event)

        assert kit.backup(UploadPartitions=upload).status == "FAILED"
    output = kit.backed_up()
    stored = sum(len(found) for found in packs(kit))
    assert output["bytes_stored"] < 16 * MIN_CHUNK_BYTES / 2
    assert stored <= (16 + 3 * 2 + 1) * MIN_CHUNK_BYTES
    assert kit.stored_files() == kit.source.files


def task(kit: Kit, name: str) -> Callable[[dict[str, Any]], Any]:
    return tasks(read_definition("backup"), kit.services)[name]


def test_settled_partitions_are_stored_before_the_checkpoint_is_held() -> None:
    kit = Kit(signed(50))

    def create(event: dict[str, Any]) -> Any:
        assert set(kit.source.reads) == {path(number) for number in range(49)}
        kit.source.reads.clear()
        return task(kit, "CreateCheckpoint")(event)

    result = kit.backup(CreateCheckpoint=create)
    assert result.status == "SUCCEEDED"
    assert set(kit.source.reads) == OWN | {path(49)}
    assert kit.stored_files() == kit.source.files
    assert isinstance(result.output, dict)
    assert result.output["bytes_read"] == sum(map(len, kit.source.files.values()))
    alone = Kit(kit.source)
    kit.source.records.clear()
    alone.backed_up()
    assert digests(kit) == digests(alone)


def test_what_changed_after_it_was_settled_is_read_again() -> None:
    kit = Kit(signed(50))

    def create(event: dict[str, Any]) -> Any:
        change(kit.source, 7, b"changed at the last moment", "second")
        del kit.source.files[path(8)]
        del kit.source.signatures["t~1", partition(8)]
        return task(kit, "CreateCheckpoint")(event)

    assert kit.backup(CreateCheckpoint=create).status == "SUCCEEDED"
    assert kit.stored_files() == kit.source.files


def test_a_settled_partition_that_vanishes_while_it_is_read_is_left_to_the_checkpoint() -> None:
    kit = Kit(signed(50))

    def plan(event: dict[str, Any]) -> Any:
        planned = task(kit, "PlanBackup")(event)
        if planned["settled"]:
            del kit.source.files[path(8)]
            change(kit.source, 8, b"", "second")
            del kit.source.files[path(8)]
            del kit.source.signatures["t~1", partition(8)]
        return planned

    assert kit.backup(PlanBackup=plan).status == "SUCCEEDED"
    assert kit.stored_files() == kit.source.files


def test_a_history_that_was_replaced_meanwhile_takes_nothing_that_was_settled() -> None:
    kit = Kit(signed(50))

    def create(event: dict[str, Any]) -> Any:
        kit.source.records["t~1", 10] = "10 of another history"
        kit.source.files[path(3)] = b"its rows, under the same signature"
        return task(kit, "CreateCheckpoint")(event)

    assert kit.backup(CreateCheckpoint=create).status == "SUCCEEDED"
    assert kit.stored_files() == kit.source.files


def packs(kit: Kit) -> list[bytes]:
    return [kit.inner.get(found.key) for found in kit.inner.list(f"_backup/{INSTANCE}/packs/")]


def digests(kit: Kit) -> list[tuple[str, list[str]]]:
    return [(entry.path, [chunk.digest for chunk in entry.chunks]) for entry in kit.entries()]


def test_the_next_backup_does_not_suffer_from_a_damaged_shard() -> None:
    kit = Kit(signed(100))
    kit.backed_up()
    shard = next(
        shard for table in kit.manifest().tables for shard in table.shards if shard.first > partition(0)
    )
    kit.inner.delete([shard.key])
    kit.inner.create(shard.key, b"damaged")
    change(kit.source, int(shard.first), b"other rows", "second")
    output = kit.backed_up()
    assert output["partitions_unchanged"] == 100 - shard.groups
    assert kit.stored_files() == kit.source.files


def test_a_shard_that_is_noted_as_damaged_is_not_taken_over() -> None:
    kit = Kit(signed(100))
    kit.backed_up()
    shard = next(
        shard for table in kit.manifest().tables for shard in table.shards if shard.first > partition(0)
    )
    update_catalog(kit.inner, INSTANCE, lambda before: replace(before, damaged_packs=(shard.key,)))
    kit.inner.delete([shard.key])
    assert kit.backed_up()["partitions_unchanged"] == 100 - shard.groups
    assert kit.stored_files() == kit.source.files


def test_a_settled_plan_whose_last_write_failed_is_made_again_as_the_root_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = Kit(signed(50))
    create = kit.inner.create
    failed: list[str] = []

    def failing(key: str, data: bytes) -> None:
        if key.endswith("/settled.json") and not failed:
            failed.append(key)
            change(kit.source, 7, b"changed meanwhile", "second")
            raise StoreUnavailableError("no answer")
        create(key, data)

    monkeypatch.setattr(kit.inner, "create", failing)
    assert kit.backup().status == "SUCCEEDED"
    assert failed
    assert kit.stored_files() == kit.source.files


def test_a_file_that_is_cut_is_cloned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.unit_cutting.UNIT_BYTES", MIN_CHUNK_BYTES)
    kit = Kit(signed(2))
    kit.source.files[path(1)] = os.urandom(5 * MIN_CHUNK_BYTES)
    cloned: list[str] = []

    class OnceOnly(NoClones):
        def add(self, _run: str, path: str) -> None:
            if path in cloned:
                raise FileExistsError(path)
            cloned.append(path)

        def tree(self, _run: str) -> Tree:
            return kit.source.tree

    planned: list[Any] = []
    services = kit.make_services(clones=OnceOnly())

    def plan(event: dict[str, Any]) -> Any:
        planned.append(tasks(read_definition("backup"), services)["PlanBackup"](event))
        return planned[-1]

    assert kit.backup(services, PlanBackup=plan).status == "SUCCEEDED"
    assert planned[-1]["cloned"]
    assert planned[-1]["units"] > 1
    assert kit.stored_files() == kit.source.files
