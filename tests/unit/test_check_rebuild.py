"""A lost catalog is made anew from the manifests: the chain restores, goes on, and is pruned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.catalog import Catalog, acquire, publish
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.check.orphans import remove_orphans
from questdb_backup.check.rebuild import TOKEN_MARGIN
from questdb_backup.check.rebuild_store import RebuildReport, rebuild_store
from questdb_backup.check.store import check_store
from questdb_backup.errors import (
    BackupInProgressError,
    LeaseLostError,
    NoRestorePointError,
    ObjectExistsError,
    PreconditionFailedError,
)
from questdb_backup.instances import read_instances
from questdb_backup.manifest import read_manifest
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.verify import verify
from questdb_backup.words import BackupStatus
from tests.support.backups import INSTANCE, listing, make_services, put_over, restore_by_steps, the_manifest
from tests.support.checking import Chain, make_chain

SYMBOLS = "db/trades~1/sym.c"


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, and a busy disk would be waited for."""
    monkeypatch.setattr("questdb_backup.restore.marks.sync_file_system", lambda _descriptor: None)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return make_chain(tmp_path)


def rebuild(chain: Chain, *, force: bool = False, dry_run: bool = False) -> RebuildReport:
    return rebuild_store(chain.services, None, force=force, dry_run=dry_run)


def lose(chain: Chain) -> Catalog:
    before = chain.catalog()
    chain.store.delete([keys.catalog(INSTANCE)])
    return before


def restored(chain: Chain, root: Path, timestamp: str | None = None) -> dict[str, tuple[str, int, bytes]]:
    request = {"root": str(root), "timestamp": timestamp} if timestamp else {"root": str(root)}
    restore_by_steps(make_services(None, chain.store), request)
    return listing(root)


def test_a_chain_goes_on_after_its_catalog_was_lost(chain: Chain, tmp_path: Path) -> None:
    before = lose(chain)
    chain.store.delete([keys.INSTANCES])
    report = rebuild(chain)

    after = chain.catalog()
    assert [row.manifest for row in after.complete_rows()] == [row.manifest for row in before.complete_rows()]
    assert [row.counters for row in after.rows] == [row.counters for row in before.rows]
    assert after.data_id == before.data_id
    assert after.lease is None
    assert all(record.published for record in after.runs)
    assert report.named == [INSTANCE]
    assert read_instances(chain.store)[0][0].data_id == before.data_id
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok
    assert check_store(chain.services).ok

    oldest = before.rows[0].backup_timestamp
    assert restored(chain, tmp_path / "oldest", oldest)[SYMBOLS][2] == b"symbols of trades~1"
    assert restored(chain, tmp_path / "latest")[SYMBOLS][2] == b"symbols of backup 2"

    run = chain.backup("after the loss")
    row = chain.catalog().row(run.backup_timestamp)
    assert row is not None
    assert row.counters["bytes_reused"] > row.counters["bytes_stored"]
    assert run.token > before.last_token
    chain.services.config = replace(chain.services.config, keep_latest_n=2)
    chain.prune()
    chain.forward(hours=49)
    chain.prune()
    assert len(chain.catalog().complete_rows()) == 2
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok
    report_ = check_store(chain.services).instances[0]
    assert report_.orphans.objects == report_.young.objects == 0
    assert restored(chain, tmp_path / "newest")[SYMBOLS][2] == b"after the loss"


def test_a_dry_run_says_the_same_and_writes_nothing(chain: Chain) -> None:
    lose(chain)
    chain.store.delete([keys.INSTANCES])
    before = chain.stored()
    planned = rebuild(chain, dry_run=True)
    assert chain.stored() == before
    made = rebuild(chain)
    told, done = planned.to_json(), made.to_json()
    assert told["instances"][0].pop("written") is False
    assert done["instances"][0].pop("written") is True
    assert told == {**done, "dry_run": True}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}'])
def test_a_damaged_catalog_is_replaced(chain: Chain, data: bytes) -> None:
    put_over(chain.store, keys.catalog(INSTANCE), data)
    rebuild(chain)
    assert len(chain.catalog().complete_rows()) == 3


def test_a_catalog_that_can_be_read_is_left_alone(chain: Chain) -> None:
    before = chain.store.get(keys.catalog(INSTANCE))
    with pytest.raises(ObjectExistsError, match="can be read"):
        rebuild(chain)
    with pytest.raises(ObjectExistsError, match="can be read"):
        rebuild_store(chain.services, INSTANCE, force=False, dry_run=False)
    assert chain.store.get(keys.catalog(INSTANCE)) == before


def test_a_damaged_instances_file_alone_is_written_anew(chain: Chain) -> None:
    before = chain.store.get(keys.catalog(INSTANCE))
    put_over(chain.store, keys.INSTANCES, b"{")
    report = rebuild(chain)
    assert (report.instances, report.named) == ([], [INSTANCE])
    assert chain.store.get(keys.catalog(INSTANCE)) == before
    assert [known.name for known in read_instances(chain.store)[0]] == [INSTANCE]


def test_force_keeps_what_the_catalog_says_and_adds_what_it_does_not_know(chain: Chain) -> None:
    older = chain.store.get(keys.catalog(INSTANCE))
    run = chain.backup("newer")
    chain.backup("newest")
    put_over(chain.store, keys.catalog(INSTANCE), older)
    known = chain.catalog()
    rebuild(chain, force=True)
    after = chain.catalog()
    assert after.rows[:3] == known.rows
    assert len(after.complete_rows()) == 5
    assert after.row(run.backup_timestamp) is not None
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok
    assert check_store(chain.services).ok


def test_force_lists_the_backups_before_a_catalog_that_was_begun_anew(chain: Chain, tmp_path: Path) -> None:
    lose(chain)
    chain.backup("a chain of its own")
    rebuild(chain, force=True)
    assert len(chain.catalog().complete_rows()) == 4
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok
    remove_orphans(chain.services, INSTANCE)
    assert restored(chain, tmp_path / "latest")[SYMBOLS][2] == b"a chain of its own"


def test_force_does_not_list_what_the_catalog_calls_failed(chain: Chain) -> None:
    newest = chain.catalog().rows[-1].backup_timestamp

    def fail(before: Catalog) -> Catalog:
        row = replace(before.rows[-1], status=BackupStatus.BACKUP_FAILED, manifest=None)
        return replace(before, rows=(*before.rows[:-1], row))

    chain.change(fail)
    rebuild(chain, force=True)
    row = chain.catalog().row(newest)
    assert row is not None
    assert row.manifest is None


def test_force_waits_for_a_run_that_is_alive(chain: Chain) -> None:
    acquire_lock(chain.services, "run-9", {})
    with pytest.raises(BackupInProgressError):
        rebuild(chain, force=True)


def test_a_manifest_that_was_never_published_but_is_whole_is_a_backup(chain: Chain) -> None:
    """Nobody can tell any more; everything that it needs is there."""
    newest = chain.catalog().rows[-1].backup_timestamp

    def unpublish(before: Catalog) -> Catalog:
        row = replace(before.rows[-1], status=BackupStatus.BACKUP_FAILED, manifest=None)
        return replace(before, rows=(*before.rows[:-1], row))

    chain.change(unpublish)
    lose(chain)
    rebuild(chain)
    latest = chain.catalog().latest_complete()
    assert latest is not None
    assert latest.backup_timestamp == newest


@pytest.mark.parametrize(
    "harm", ["pack lost", "pack short", "shard lost", "shard torn", "manifest", "renamed"]
)
def test_what_is_not_whole_is_left_out_and_said(chain: Chain, harm: str) -> None:
    ref, manifest = the_manifest(chain.store)
    older = read_manifest(chain.store, chain.catalog().rows[1].manifest)  # type: ignore[arg-type]
    pack = keys.pack(INSTANCE, sorted(set(manifest.packs) - set(older.packs))[0])
    old_shards = {shard.key for table in older.tables for shard in table.shards}
    own_shards = {shard.key for table in manifest.tables for shard in table.shards} - old_shards
    shard = sorted(own_shards)[0]
    data = chain.store.get(ref.key)
    if harm == "pack lost":
        chain.store.delete([pack])
    elif harm == "pack short":
        put_over(chain.store, pack, chain.store.get(pack)[:-1])
    elif harm == "shard lost":
        chain.store.delete([shard])
    elif harm == "shard torn":
        put_over(chain.store, shard, chain.store.get(shard)[:-1])
    elif harm == "manifest":
        put_over(chain.store, ref.key, data[:-20])
    else:
        put_over(chain.store, ref.key, data.replace(INSTANCE.encode(), b"fierce-forest-orchid"))
    lose(chain)
    report = rebuild(chain)
    (made,) = report.instances
    assert [one.key for one in made.rejected] == [ref.key]
    assert made.rejected[0].reason
    assert len(chain.catalog().complete_rows()) == 2
    row = chain.catalog().row(manifest.backup_timestamp)
    assert row is not None
    assert row.status is BackupStatus.BACKUP_FAILED
    assert ref.key in chain.stored(), "nothing is deleted by a rebuild"
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok
    run = chain.backup("and on")
    assert run.backup_timestamp > manifest.backup_timestamp


@pytest.mark.parametrize("field", [b'"files":', b'"groups":', b'"bytes":', b'"first":"'])
def test_a_number_of_a_shard_that_flipped_in_the_manifest_is_seen(chain: Chain, field: bytes) -> None:
    """The digest of the manifest went with the catalog: the shards tell."""
    ref, _ = the_manifest(chain.store)
    data = bytearray(chain.store.get(ref.key))
    at = data.find(b'"shards":[{')
    at = data.find(field, at) + len(field)
    data[at] ^= 1
    put_over(chain.store, ref.key, bytes(data))
    lose(chain)
    (made,) = rebuild(chain).instances
    assert [one.key for one in made.rejected] == [ref.key]


def test_a_stale_run_can_never_meet_its_own_token_again(chain: Chain) -> None:
    state = acquire_lock(chain.services, "run-9", {})
    stale = state["run"]["token"]
    ref, manifest = the_manifest(chain.store)
    lose(chain)
    rebuild(chain)
    catalog = chain.catalog()
    assert catalog.last_token >= manifest.token + TOKEN_MARGIN
    taken = acquire(catalog, holder="new", purpose="backup", now=chain.services.now(), term_seconds=9.0)
    assert taken.lease is not None
    assert taken.lease.token > stale
    with pytest.raises(LeaseLostError):
        publish(
            taken, stale, replace(ref, digest="other"), now=chain.services.now(), counters={}, data_id=None
        )


def test_runs_that_left_scratch_are_cleaned_by_prune(chain: Chain) -> None:
    state = acquire_lock(chain.services, "run-9", {})
    run = state["run"]["backup_timestamp"]
    chain.store.create(keys.plan(INSTANCE, run), json.dumps([{"unit": 0, "attempt": 0}]).encode())
    unit = keys.unit(INSTANCE, run, 0, 0)
    chain.store.create(unit, b"unit")
    lose(chain)
    (made,) = rebuild(chain).instances
    assert made.to_json()["unfinished_runs"] == [run]
    row = chain.catalog().row(run)
    assert row is not None
    assert row.status is BackupStatus.BACKUP_FAILED
    chain.prune()
    chain.forward(hours=49)
    chain.prune()
    assert not any("/runs/" in key for key in chain.stored())
    assert len(chain.catalog().complete_rows()) == 3
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok


def test_a_run_that_left_only_packs_never_lends_its_name_again(chain: Chain) -> None:
    later = "2030-01-01T00:00:00.000000Z"
    chain.store.create(keys.pack(INSTANCE, keys.pack_name(later, 0, 0, 0)), b"pack")
    lose(chain)
    rebuild(chain)
    assert chain.backup("x").backup_timestamp > later


def test_what_waited_for_its_deletion_becomes_orphans_and_goes(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, 7)
    chain.prune()
    waited = {name for stone in chain.catalog().tombstones for name in stone.names}
    assert waited
    lose(chain)
    rebuild(chain)
    chain.forward(hours=49)
    orphans = check_store(chain.services).instances[0].orphans
    assert set(orphans.keys) == waited
    remove_orphans(chain.services, INSTANCE)
    chain.forward(hours=49)
    chain.prune()
    assert not waited & chain.stored()
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok


def test_a_catalog_that_appears_meanwhile_is_not_overwritten(chain: Chain) -> None:
    lose(chain)
    whole = chain.store.get

    def slow(key: str) -> bytes:
        update_catalog(chain.store, INSTANCE, lambda before: replace(before, last_token=77))
        return whole(key)

    chain.store.get = slow  # type: ignore[method-assign]
    with pytest.raises(PreconditionFailedError, match="written by another"):
        rebuild(chain)
    assert read_catalog(chain.store, INSTANCE).last_token == 77


def test_an_unknown_instance_is_not_made_up(chain: Chain) -> None:
    with pytest.raises(NoRestorePointError):
        rebuild_store(chain.services, "brave-bay-acorn", force=False, dry_run=False)
    assert not any("brave-bay-acorn" in key for key in chain.stored())
