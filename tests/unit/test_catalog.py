"""The catalog's changes: leases, rows, the publish."""

from dataclasses import replace

import pytest

from questdb_backup.catalog import (
    BackupRow,
    Catalog,
    ManifestRef,
    RunRecord,
    Tombstone,
    acquire,
    decode_catalog,
    drop_lease,
    encode_catalog,
    fail_run,
    forget_rows,
    publish,
    renew,
    require_lease,
)
from questdb_backup.errors import (
    BackupInProgressError,
    DamagedBackupError,
    LeaseLostError,
    ScheduleServedError,
    UnsupportedFormatError,
)
from questdb_backup.sealed import seal
from questdb_backup.words import BackupStatus

NOW = "2026-01-01T00:00:00.000000Z"
LATER = "2026-01-01T00:10:00.000000Z"
MUCH_LATER = "2026-01-02T00:00:00.000000Z"
REF = ManifestRef(key="m", digest="d", size=1)


def _acquired(catalog: Catalog | None = None, holder: str = "a", now: str = NOW) -> Catalog:
    empty = Catalog(instance="gentle-forest-orchid")
    return acquire(catalog or empty, holder=holder, purpose="backup", now=now, term_seconds=900)


def test_a_backup_gets_a_lease_a_row_and_a_run() -> None:
    catalog = _acquired()
    lease = require_lease(catalog, 1)
    assert lease.run == NOW
    assert catalog.rows[0].status is BackupStatus.BACKUP_IN_PROGRESS
    assert catalog.runs[0].run == NOW


def test_the_same_holder_gets_the_same_lease_again() -> None:
    first = _acquired()
    again = _acquired(first, now=LATER)
    assert again.last_token == 1
    assert len(again.rows) == 1


def test_another_holder_is_refused_while_the_lease_lives() -> None:
    with pytest.raises(BackupInProgressError, match="one backup at a time"):
        _acquired(_acquired(), holder="b", now=LATER)


def test_an_expired_lease_is_taken_over_and_its_run_fails_with_the_reason() -> None:
    catalog = _acquired(_acquired(), holder="b", now=MUCH_LATER)
    assert require_lease(catalog, 2).run == MUCH_LATER
    assert catalog.rows[0].status is BackupStatus.BACKUP_FAILED
    assert "expired" in str(catalog.rows[0].backup_error)


def test_a_run_is_later_than_every_row_whatever_the_clock_says() -> None:
    row = BackupRow(backup_timestamp=MUCH_LATER, status=BackupStatus.BACKUP_FAILED, start_ts=MUCH_LATER)
    catalog = _acquired(Catalog(instance="i", rows=(row,)))
    assert require_lease(catalog, 1).run == "2026-01-02T00:00:00.000001Z"


def test_a_stale_token_can_neither_renew_nor_publish() -> None:
    catalog = _acquired(_acquired(), holder="b", now=MUCH_LATER)
    with pytest.raises(LeaseLostError, match="token 1"):
        renew(catalog, 1, now=MUCH_LATER, term_seconds=900, progress=5)
    with pytest.raises(LeaseLostError):
        publish(catalog, 1, REF, now=MUCH_LATER, counters={}, data_id=None)


def test_publishing_the_same_manifest_again_changes_nothing() -> None:
    published = publish(_acquired(), 1, REF, now=LATER, counters={"files": 3}, data_id="x")
    assert published.latest_complete() is not None
    assert publish(drop_lease(published, 1, "over", LATER), 1, REF, now=LATER, counters={}, data_id=None)


def test_a_complete_backup_is_never_failed_afterwards() -> None:
    published = publish(_acquired(), 1, REF, now=LATER, counters={}, data_id=None)
    assert fail_run(published, NOW, "too late", LATER) == published
    assert drop_lease(published, 1, "over", LATER).rows == published.rows


def test_a_failed_row_never_shows_one_hundred_percent() -> None:
    assert fail_run(_acquired(), NOW, "x", LATER, progress=100).rows[0].progress_percent == 99


def test_a_catalog_is_read_back_as_it_was_written() -> None:
    catalog = replace(
        publish(_acquired(), 1, REF, now=LATER, counters={"a": 1.5}, data_id="x"),
        tombstones=(Tombstone(removed="r", created_at=NOW, delete_after=LATER, names=("a", "b")),),
    )
    assert decode_catalog(encode_catalog(catalog)) == catalog


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"format": 1}', b"\xff", seal({}), seal({"format": "x"}), seal({"rows": 1})]
)
def test_a_damaged_catalog_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(DamagedBackupError, match="catalog cannot be read"):
        decode_catalog(data)


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(UnsupportedFormatError, match="newer"):
        decode_catalog(seal({"format": 2}))


TICK = "2026-01-01T00:00:00.000000Z"
NEXT_TICK = "2026-01-02T00:00:00.000000Z"


def _served(catalog: Catalog, tick: str | None, holder: str, now: str) -> Catalog:
    return acquire(catalog, holder=holder, purpose="backup", now=now, term_seconds=900, scheduled_time=tick)


def _ended(catalog: Catalog) -> Catalog:
    return drop_lease(catalog, catalog.last_token, "test", LATER)


def test_a_tick_that_is_delivered_twice_starts_one_backup() -> None:
    first = _served(Catalog(instance="gentle-forest-orchid"), TICK, "a", LATER)
    assert first.last_scheduled_time == TICK
    assert _served(first, TICK, "a", LATER).rows == first.rows, "a retry of the same execution"
    for tick in (TICK, "2025-12-31T00:00:00.000000Z"):
        with pytest.raises(ScheduleServedError, match=f"tick of {tick}"):
            _served(_ended(first), tick, "b", LATER)


def test_the_next_tick_and_a_start_by_hand_are_served() -> None:
    first = _ended(_served(Catalog(instance="gentle-forest-orchid"), TICK, "a", LATER))
    by_hand = _served(first, None, "b", LATER)
    assert by_hand.last_scheduled_time == TICK
    assert _served(_ended(by_hand), NEXT_TICK, "c", MUCH_LATER).last_scheduled_time == NEXT_TICK


def test_a_tick_of_a_clock_that_was_wrong_stops_no_schedule() -> None:
    wrong = _served(Catalog(instance="gentle-forest-orchid"), "2036-01-01T00:00:00.000000Z", "a", LATER)
    assert _served(_ended(wrong), NEXT_TICK, "b", MUCH_LATER).last_scheduled_time == NEXT_TICK


def test_the_history_is_bounded_and_what_is_noted_or_needed_stays() -> None:
    def row(day: int, status: BackupStatus, manifest: ManifestRef | None = None) -> BackupRow:
        at = f"2026-01-{day:02}T00:00:00.000000Z"
        return BackupRow(backup_timestamp=at, status=status, start_ts=at, manifest=manifest)

    complete = ManifestRef(key="m", digest="d", size=1)
    rows = (
        row(1, BackupStatus.BACKUP_COMPLETE, complete),
        row(2, BackupStatus.CLEANUP_COMPLETE),
        row(3, BackupStatus.BACKUP_FAILED),
        row(4, BackupStatus.CLEANUP_IN_PROGRESS),
        row(5, BackupStatus.CLEANUP_COMPLETE),
        row(6, BackupStatus.BACKUP_FAILED),
        row(7, BackupStatus.BACKUP_FAILED),
    )
    catalog = Catalog(
        instance="gentle-forest-orchid",
        rows=rows,
        runs=(RunRecord(run=rows[5].backup_timestamp, token=6),),
        tombstones=(Tombstone(removed=rows[4].backup_timestamp, created_at=LATER, delete_after=MUCH_LATER),),
    )
    assert forget_rows(catalog, 7) == catalog
    assert forget_rows(catalog, 6).rows == (rows[0], *rows[2:])
    assert forget_rows(catalog, 1).rows == (rows[0], *rows[3:])
