"""The plan's figures on a root that is a dictionary: they are those of the backup that follows."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from questdb_backup import unit_cutting
from questdb_backup.catalog import BackupRow, Catalog, ManifestRef
from questdb_backup.catalog_store import read_catalog
from questdb_backup.packs import PACK_BYTES
from questdb_backup.plan_report import (
    Measure,
    Totals,
    estimate_puts,
    estimate_seconds,
    estimate_stored,
    removed_after,
)
from questdb_backup.planner import Planner
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, PlannedTable, Source
from questdb_backup.steps.plan import previous_manifest
from questdb_backup.steps.run import Run
from questdb_backup.stores.read_only import ReadOnlyStore
from questdb_backup.words import BackupStatus
from tests.support.kit import INSTANCE, DictSource, Kit

DAYS = 40
NOW = "2026-02-01T00:00:00.000000Z"


def day(number: int) -> str:
    return f"{number:020}"


@pytest.fixture
def kit() -> Kit:
    """A signed WAL table of forty partitions, one without signatures, and the root's own files."""
    source = DictSource()
    for number in range(DAYS):
        source.files[f"db/wide~1/{day(number)}/a.d"] = bytes([number]) * 1000
        source.files[f"db/wide~1/{day(number)}/b.d"] = bytes([number]) * 500
        source.signatures["wide~1", day(number)] = f"signature of {number}"
    source.files["db/wide~1/_name"] = b"wide"
    source.records["wide~1", 1] = "aa"
    source.files[f"db/plain~2/{day(0)}/a.d"] = b"plain" * 100
    source.files["conf/server.conf"] = b"a=b"
    return Kit(source=source)


def measure_of(kit: Kit, source: Source | None = None) -> Measure:
    store = ReadOnlyStore(kit.store)
    catalog = read_catalog(store, INSTANCE)
    run = Run(instance=INSTANCE, backup_timestamp=NOW, token=0)
    return Measure(Planner(store, run, catalog, previous_manifest(store, catalog), 0), source or kit.source)


def measured(kit: Kit) -> Measure:
    """The two passes of a live root."""
    measure = measure_of(kit)
    measure.settled()
    measure.everything()
    return measure


def figures(measure: Measure) -> dict[str, tuple[int, ...]]:
    """Partitions, unchanged ones, files, bytes, bytes to read; by directory."""
    return {
        each.directory: (
            each.partitions,
            each.partitions_unchanged,
            each.files,
            each.bytes,
            each.bytes_to_read,
        )
        for each in measure.tables()
    }


def test_before_the_first_backup_everything_is_to_be_read(kit: Kit) -> None:
    assert figures(measured(kit)) == {
        "wide~1": (DAYS, 0, 2 * DAYS + 1, DAYS * 1500 + 4, DAYS * 1500 + 4),
        "plain~2": (1, 0, 1, 500, 500),
        "": (0, 0, 1, 3, 3),
    }


def test_after_a_backup_only_the_partition_that_changed_is_to_be_read(kit: Kit) -> None:
    kit.backed_up()
    kit.source.signatures["wide~1", day(20)] = "another"

    assert figures(measured(kit)) == {
        "wide~1": (DAYS, DAYS - 1, 2 * DAYS + 1, DAYS * 1500 + 4, 1504),
        "plain~2": (1, 0, 1, 500, 500),
        "": (0, 0, 1, 3, 3),
    }


def test_the_backup_that_follows_reads_what_the_plan_said(kit: Kit) -> None:
    kit.backed_up()
    kit.source.files[f"db/wide~1/{day(7)}/a.d"] += b"more"
    kit.source.signatures["wide~1", day(7)] = "another"
    tables = measured(kit).tables()
    made = kit.backed_up()

    assert made["bytes_read"] == sum(table.bytes_to_read for table in tables)
    assert made["partitions_unchanged"] == sum(table.partitions_unchanged for table in tables)
    assert made["bytes"] == sum(table.bytes for table in tables)
    assert made["files"] == sum(table.files for table in tables)


def test_the_units_are_those_of_the_backup(kit: Kit) -> None:
    measure = measured(kit)
    kit.backed_up()

    # What was settled, and the rest.
    assert (measure.totals.units, measure.totals.reading) == (2, 2)


def test_without_the_proof_of_descent_no_signature_is_believed(kit: Kit) -> None:
    kit.backed_up()
    kit.source.records["wide~1", 1] = "bb"

    assert figures(measured(kit))["wide~1"][1] == 0


def test_a_frozen_copy_has_one_pass_with_the_same_figures(kit: Kit) -> None:
    kit.backed_up()
    kit.source.signatures["wide~1", day(3)] = "another"
    frozen = measure_of(kit)
    frozen.everything()

    assert figures(frozen) == figures(measured(kit))
    assert frozen.totals.units == 1


def test_the_requests_are_no_fewer_than_those_of_the_backup(kit: Kit) -> None:
    for _ in range(2):
        totals = measured(kit).totals
        before = kit.store.counts
        made = kit.backed_up()
        spent = (kit.store.counts - before).put
        assert spent <= estimate_puts(totals, made["bytes_stored"], 0) <= spent + 10


def test_large_units_have_more_packs_and_removals_their_swaps() -> None:
    totals = Totals(units=1, reading=1)
    least = estimate_puts(totals, 0, 0)

    assert estimate_puts(totals, 10 * PACK_BYTES, 0) == least + 10
    assert estimate_puts(totals, 0, 2) > least


def test_what_is_stored_is_estimated_as_small_as_the_table_was_stored_before(kit: Kit) -> None:
    assert estimate_stored(measured(kit).tables(), None) is None
    made = kit.backed_up()
    tables = measured(kit).tables()
    base = kit.manifest()
    stored = {table.table: sum(sum(shard.packs.values()) for shard in table.shards) for table in base.tables}
    whole = [replace(each, bytes_to_read=each.bytes) for each in tables]

    assert estimate_stored(whole, base) == made["bytes_stored"] == sum(stored.values())
    new = [replace(each, directory="new~3") for each in whole]
    assert estimate_stored(new, base) == made["bytes_stored"]


def complete(timestamp: str, seconds: int, read: int) -> BackupRow:
    return BackupRow(
        backup_timestamp=timestamp,
        status=BackupStatus.BACKUP_COMPLETE,
        start_ts="2026-01-01T00:00:00.000000Z",
        end_ts=f"2026-01-01T00:00:{seconds:02}.000000Z",
        manifest=ManifestRef(key="m", digest="d", size=1),
        counters={"bytes_read": read},
    )


def test_the_time_is_that_of_the_newest_backup_that_read_enough_to_tell() -> None:
    rows = (complete("2026-01-01", 10, 1 << 30), complete("2026-01-02", 5, 1000))

    assert estimate_seconds(Catalog(instance=INSTANCE, rows=rows), 1 << 29) == 5.0
    assert estimate_seconds(Catalog(instance=INSTANCE, rows=rows[1:]), 1 << 29) is None


def test_retention_counts_the_backup_that_is_planned() -> None:
    rows = [complete(f"2026-01-0{number}T00:00:00.000000Z", 1, 1) for number in (1, 2, 3)]

    removed = removed_after(rows, 2, NOW)
    assert [gone["backup_timestamp"][:10] for gone in removed] == ["2026-01-02", "2026-01-01"]
    assert removed_after(rows, 4, NOW) == ()


class _Large(DictSource):
    """A database of very many files that are listed one partition at a time."""

    partitions = 100
    files_each = 50

    def tables(self) -> Iterator[PlannedTable]:
        yield PlannedTable(table="large~1", name="large", kind="wal")

    def outlines(self) -> Iterator[GroupOutline]:
        for number in range(self.partitions):
            partition = day(number)
            yield GroupOutline(
                table="large~1",
                partition=partition,
                signature=None,
                list_files=partial(self._files, partition),
            )

    def _files(self, partition: str) -> Iterator[PlannedFile]:
        for number in range(self.files_each):
            path = f"db/large~1/{partition}/column_{number}.d"
            yield PlannedFile(path=path, kind=EntryKind.FILE, mode=0o644, size=100, exact=True)


def peak_of(source: _Large) -> int:
    measure = measure_of(Kit(), source)
    tracemalloc.start()
    try:
        measure.everything()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (table,) = measure.tables()
    assert (table.files, table.partitions) == (source.partitions * source.files_each, source.partitions)
    return peak


def test_memory_does_not_grow_with_the_number_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_cutting, "UNIT_FILES", 1000)  # a unit is all that is held
    small, large = _Large(), _Large()
    large.partitions = 6 * small.partitions

    assert peak_of(large) < 1.5 * peak_of(small)
