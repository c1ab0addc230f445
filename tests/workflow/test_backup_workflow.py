"""The deployed state machine over in-memory adapters: reuse, races, retention, and what they cost."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.catalog import Catalog, drop_lease, with_row
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.errors import BackupToolError, LeaseLostError
from questdb_backup.local.bundle import tasks
from questdb_backup.steps.guard import guard_checkpoint
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.run import keep_lease
from questdb_backup.words import BackupStatus
from tests.support.faults import Faulty, Gate, InjectedError, raise_injected
from tests.support.kit import INSTANCE, DictSource, Kit

MIB = 1 << 20


def _files(partitions: int = 3, size: int = 2 * MIB + 5) -> dict[str, bytes]:
    files = {f"db/t~1/{20260101 + n:020d}/x.d": os.urandom(size) for n in range(partitions)}
    return {**files, "db/t~1/s.c": b"symbols", "conf/server.conf": b"a=b\n", "db/_tab_index.d": bytes(8)}


def test_what_was_there_can_be_read_back() -> None:
    kit = Kit(DictSource(_files()))
    timestamp = kit.backed_up()["backup_timestamp"]
    assert kit.stored_files(timestamp) == kit.source.files
    assert kit.database.read().checkpoint.in_progress is False
    assert kit.status.read(INSTANCE) is None
    assert read_catalog(kit.inner, INSTANCE).lease is None


def test_an_unchanged_root_stores_a_manifest_and_no_pack_and_no_shard() -> None:
    kit = Kit(DictSource(_files()))
    first = kit.backed_up()["backup_timestamp"]
    names = {found.key for found in kit.inner.list("_backup/")}
    result = kit.backed_up()
    new = {found.key for found in kit.inner.list("_backup/")} - names
    assert [key.split("/")[2] for key in new] == ["manifests"]
    assert result["bytes_stored"] == 0
    assert kit.manifest(first).packs == kit.manifest(result["backup_timestamp"]).packs


def test_an_append_uploads_the_tail_only() -> None:
    kit = Kit(DictSource(_files()))
    kit.backed_up()
    path = f"db/t~1/{20260103:020d}/x.d"
    kit.source.files[path] += os.urandom(100)
    result = kit.backed_up()
    assert result["bytes_stored"] == 105
    assert kit.stored_files(result["backup_timestamp"]) == kit.source.files


def test_a_rewritten_partition_under_another_name_is_found_by_content() -> None:
    kit = Kit(DictSource(_files()))
    kit.backed_up()
    old = f"db/t~1/{20260102:020d}/x.d"
    kit.source.files[old.replace("x.d", "x.d.7")] = kit.source.files.pop(old)
    assert kit.backed_up()["bytes_stored"] == 0


def test_a_backup_lists_nothing_and_puts_few_objects() -> None:
    kit = Kit(DictSource(_files(partitions=40)))
    before = kit.store.counts
    kit.backed_up()
    spent = kit.store.counts - before
    assert spent.list == 0
    assert spent.put <= 25


def test_files_larger_than_a_unit_come_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.unit_cutting.UNIT_BYTES", MIB)
    kit = Kit(DictSource(_files(partitions=2, size=5 * MIB + 3)))
    timestamp = kit.backed_up()["backup_timestamp"]
    assert kit.stored_files(timestamp) == kit.source.files
    assert kit.backed_up()["bytes_stored"] == 0


def test_units_are_no_larger_than_a_worker_that_is_held_down_can_read() -> None:
    kit = Kit(DictSource(_files(partitions=2, size=5 * MIB + 3)))
    services = kit.make_services()
    services.config = replace(services.config, largest_unit_bytes=2 * MIB)
    assert kit.backup(services).status == "SUCCEEDED"
    packs = [found.key for found in kit.inner.list("_backup/") if "/packs/" in found.key]
    assert len({key.rpartition("/")[2].partition("-")[0] for key in packs}) == 7
    assert all(len(kit.inner.get(key)) < 2.1 * MIB for key in packs)


def test_a_short_file_fails_the_backup_and_the_row_says_which() -> None:
    kit = Kit(DictSource(_files()))
    path = f"db/t~1/{20260101:020d}/x.d"

    class Shrinking(DictSource):
        def read(self, name: str, offset: int, length: int) -> bytes:
            return super().read(name, offset, length)[: -1 if name == path else None]

    services = kit.make_services(source=Shrinking(kit.source.files))
    assert kit.backup(services).status == "FAILED"
    row = read_catalog(kit.inner, INSTANCE).rows[-1]
    assert row.status is BackupStatus.BACKUP_FAILED
    assert path in str(row.backup_error)
    assert "its rows need" in str(row.backup_error)
    assert kit.database.read().checkpoint.in_progress is False


def test_a_checkpoint_lost_during_the_copy_fails_the_backup() -> None:
    kit = Kit(DictSource(_files()))

    class Restarting(DictSource):
        def read(self, name: str, offset: int, length: int) -> bytes:
            kit.database.restart()
            return super().read(name, offset, length)

    assert kit.backup(kit.make_services(source=Restarting(kit.source.files))).status == "FAILED"
    assert "was lost" in str(read_catalog(kit.inner, INSTANCE).rows[-1].backup_error)


def test_a_foreign_checkpoint_is_left_alone() -> None:
    kit = Kit(DictSource(_files()))
    held = kit.database.hold_foreign()
    result = kit.backup()
    assert result.error == "CheckpointHeldError"
    assert kit.database.read().checkpoint.started_at == held


def test_a_second_start_is_refused_and_harms_nothing() -> None:
    kit = Kit(DictSource(_files()))
    errors: list[str | None] = []

    class Starting(DictSource):
        def read(self, name: str, offset: int, length: int) -> bytes:
            if not errors:
                errors.append("")
                errors[0] = kit.backup().error
            return super().read(name, offset, length)

    result = kit.backup(kit.make_services(source=Starting(kit.source.files)))
    assert errors == ["BackupInProgressError"]
    assert result.status == "SUCCEEDED"
    assert len(read_catalog(kit.inner, INSTANCE).rows) == 1


def test_a_stale_run_cannot_publish_after_its_lease_was_taken() -> None:
    kit = Kit(DictSource(_files()))
    first = kit.backed_up()["backup_timestamp"]

    class Stale(DictSource):
        def read(self, name: str, offset: int, length: int) -> bytes:
            update_catalog(
                kit.inner, INSTANCE, lambda before: drop_lease(before, before.last_token, "test", kit.now())
            )
            return super().read(name, offset, length)

    kit.source.files["conf/x"] = b"new"
    result = kit.backup(kit.make_services(source=Stale(kit.source.files)))
    assert result.status == "FAILED"
    catalog = read_catalog(kit.inner, INSTANCE)
    assert [row.backup_timestamp for row in catalog.complete_rows()] == [first]


def _lose_answer(kit: Kit, method: str, nth: int) -> Any:
    """A store whose nth call of a method works and raises all the same."""
    seen = [0]

    class Losing(Faulty):
        def __getattr__(self, name: str) -> Callable[..., Any]:
            value: Callable[..., Any] = getattr(self._inner, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                answer = value(*args, **kwargs)
                seen[0] += name == method
                if name == method and seen[0] == nth:
                    raise InjectedError("the answer was lost")
                return answer

            return call if callable(value) else value

    return Losing(kit.store, "store", Gate())


def test_a_backup_whose_publish_was_answered_with_an_error_is_complete() -> None:
    """FailBackup reads the catalog first: the run ends as complete, with its result."""
    kit = Kit(DictSource(_files()))
    for nth in range(1, 12):
        before = read_catalog(kit.inner, INSTANCE).latest_complete()
        result = kit.backup(kit.make_services(store=_lose_answer(kit, "replace", nth)))
        published = read_catalog(kit.inner, INSTANCE).latest_complete() != before
        assert (result.status == "SUCCEEDED") == published, nth
        assert kit.database.read().checkpoint.in_progress is False
        update_catalog(kit.inner, INSTANCE, lambda c: drop_lease(c, c.last_token, "test", kit.now()))
        live = kit.status.read(INSTANCE)
        if live:
            kit.status.finish(INSTANCE, live.run, live.token)


def _changing(kit: Kit) -> str:
    kit.source.files[f"db/t~1/{20260101:020d}/x.d"] = os.urandom(MIB)
    kit.clock.forward(hours=1)
    return str(kit.backed_up()["backup_timestamp"])


def test_retention_removes_the_oldest_in_the_safe_order() -> None:
    kit = Kit(DictSource(_files()), keep=2)
    made = [_changing(kit) for _ in range(4)]
    catalog = read_catalog(kit.inner, INSTANCE)
    assert [row.backup_timestamp for row in catalog.complete_rows()] == made[2:]
    assert {str(catalog.row(gone).status) for gone in made[:2]} == {"cleanup in progress"}  # type: ignore[union-attr]
    packs = {found.key for found in kit.inner.list(f"_backup/{INSTANCE}/packs/")}
    assert len(packs) == 4, "packs wait for their grace"

    kit.clock.forward(hours=49)
    _changing(kit)
    catalog = read_catalog(kit.inner, INSTANCE)
    assert {str(catalog.row(gone).status) for gone in made[:2]} == {"cleanup complete"}  # type: ignore[union-attr]
    for row in catalog.complete_rows():
        kit.stored_files(row.backup_timestamp)
    assert len(list(kit.inner.list(f"_backup/{INSTANCE}/manifests/"))) == 2


def test_scratch_of_published_runs_does_not_stay() -> None:
    kit = Kit(DictSource(_files()))
    kit.backed_up()
    assert list(kit.inner.list(f"_backup/{INSTANCE}/runs/")) == []


def test_what_a_dead_run_left_is_swept_after_the_grace() -> None:
    kit = Kit(DictSource(_files()))
    kit.backed_up()
    kit.source.files[f"db/t~1/{20260101:020d}/x.d"] = os.urandom(MIB)
    failed = kit.backup(CompleteBackup=lambda _event: raise_injected("complete"))
    assert failed.status == "FAILED"
    left = len(list(kit.inner.list(f"_backup/{INSTANCE}/packs/")))
    kit.source.files[f"db/t~1/{20260101:020d}/x.d"] = os.urandom(MIB)
    kit.clock.forward(hours=1)
    kit.backed_up()
    kit.clock.forward(hours=49)
    kit.backed_up()
    packs = [found.key for found in kit.inner.list(f"_backup/{INSTANCE}/packs/")]
    assert left == 2
    assert len(packs) == 2
    assert not [key for key in packs if keys.pack_name(failed_run(kit), 0, 0, 0) in key]
    assert not list(kit.inner.list(f"_backup/{INSTANCE}/runs/"))


def failed_run(kit: Kit) -> str:
    return next(
        row.backup_timestamp
        for row in read_catalog(kit.inner, INSTANCE).rows
        if row.status is BackupStatus.BACKUP_FAILED
    )


def test_a_prune_that_dies_at_any_call_leaves_every_backup_restorable_and_is_finished_later() -> None:
    number = 0
    while True:
        kit = Kit(DictSource(_files(partitions=2, size=1000)), keep=1)
        for _ in range(2):
            kit.source.files["db/t~1/s.c"] = os.urandom(2000)
            kit.clock.forward(hours=30)
            kit.backed_up()
        kit.source.files["db/t~1/s.c"] = os.urandom(2000)
        gate = Gate(at=number, when="after" if number % 2 else "before", act=raise_injected)
        services = kit.make_services(store=Faulty(kit.store, "store", gate))
        prune = tasks({"x": "${PruneBackupsFunctionArn}"}, services)["PruneBackups"]
        kit.clock.forward(hours=30)
        assert kit.backup(PruneBackups=prune).status == "SUCCEEDED"
        catalog = read_catalog(kit.inner, INSTANCE)
        for row in catalog.complete_rows():
            kit.stored_files(row.backup_timestamp)
        kit.clock.forward(hours=60)
        last = kit.backed_up()["backup_timestamp"]
        kit.clock.forward(hours=60)
        kit.backed_up()
        assert kit.stored_files()
        assert len(read_catalog(kit.inner, INSTANCE).complete_rows()) == 1, last
        statuses = {str(row.status) for row in read_catalog(kit.inner, INSTANCE).rows}
        assert statuses <= {"backup complete", "cleanup complete", "cleanup in progress"}, number
        if number >= len(gate.calls):
            assert number > 15
            return
        number += 1


def test_a_manifest_that_is_deleted_by_hand_stops_neither_prune_nor_backup() -> None:
    kit = Kit(DictSource(_files()), keep=1)
    first = _changing(kit)
    row = read_catalog(kit.inner, INSTANCE).row(first)
    assert row is not None
    assert row.manifest is not None
    _changing(kit)
    kit.inner.delete([row.manifest.key])
    _changing(kit)
    assert len(read_catalog(kit.inner, INSTANCE).complete_rows()) == 1


def test_the_manifest_is_a_pure_function_of_what_was_recorded() -> None:
    """A retried CompleteBackup meets its own manifest and goes on."""
    kit = Kit(DictSource(_files()))

    def twice(event: dict[str, Any]) -> object:
        run = event["run"]
        first = complete(event)
        update_catalog(kit.inner, INSTANCE, lambda before: _unpublished(before, run["backup_timestamp"]))
        assert complete(event) == first
        return first

    complete = tasks({"x": "${CompleteBackupFunctionArn}"}, kit.services)["CompleteBackup"]
    assert kit.backup(CompleteBackup=twice).status == "SUCCEEDED"


def _unpublished(catalog: Catalog, run: str) -> Catalog:
    return with_row(catalog, run, manifest=None, status=BackupStatus.BACKUP_IN_PROGRESS)


def test_an_abort_reason_is_on_the_row() -> None:
    kit = Kit(DictSource(_files()))

    class Hanging(DictSource):
        def read(self, name: str, offset: int, length: int) -> bytes:
            kit.status.request_abort(INSTANCE, "aborted by the user")
            raise InjectedError("gone")

    services = kit.make_services(source=Hanging(kit.source.files))
    kit.backup(services, FailBackup=lambda _event: raise_injected("fail"), ReleaseCheckpoint=_not_released)
    assert kit.database.read().checkpoint.in_progress
    report = guard_checkpoint(
        kit.services,
        INSTANCE,
        is_dead=lambda holder: holder == "execution-1",
        release=lambda fence: kit.database.release_checkpoint(fence, timeout_seconds=1),
    )
    assert report.release == "released"
    assert kit.database.read().checkpoint.in_progress is False
    row = read_catalog(kit.inner, INSTANCE).rows[-1]
    assert (row.status, row.backup_error) == (BackupStatus.BACKUP_FAILED, "aborted by the user")
    assert replace(read_catalog(kit.inner, INSTANCE), lease=None) == read_catalog(kit.inner, INSTANCE)


def _not_released(_event: dict[str, Any]) -> None:
    raise BackupToolError("the server is away")


def test_the_process_of_a_run_keeps_its_lease_during_a_long_step() -> None:
    kit = Kit(DictSource(_files()))
    acquire_lock(kit.services, "execution-1", {})
    live = kit.status.read(INSTANCE)
    assert live is not None
    keep_lease(kit.services, INSTANCE, live)
    assert kit.status.read(INSTANCE) == live, "half of the term is not over"

    kit.clock.forward(seconds=500)
    keep_lease(kit.services, INSTANCE, live)
    lease, renewed = read_catalog(kit.inner, INSTANCE).lease, kit.status.read(INSTANCE)
    assert lease is not None
    assert renewed is not None
    assert lease.expires_at == renewed.expires_at > live.expires_at

    update_catalog(
        kit.inner, INSTANCE, lambda before: drop_lease(before, before.last_token, "test", kit.now())
    )
    kit.clock.forward(seconds=500)
    with pytest.raises(LeaseLostError):
        keep_lease(kit.services, INSTANCE, renewed)
