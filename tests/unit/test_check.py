"""Check tells what is missing from what is left over, and never touches what is not ours."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.catalog import Catalog, RunRecord
from questdb_backup.check.orphans import NAMES_PER_TOMBSTONE, remove_orphans
from questdb_backup.check.report import InstanceReport
from questdb_backup.check.shapes import shape_of
from questdb_backup.check.store import check_store
from questdb_backup.errors import BackupInProgressError, DamagedBackupError, PreconditionFailedError
from questdb_backup.steps import prune
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.stores.base import StoredObject
from questdb_backup.verify import verify
from questdb_backup.words import BackupStatus
from tests.support.backups import INSTANCE, put_over, the_manifest
from tests.support.checking import Chain, make_chain

OLD = "2026-03-01T11:00:00.000000Z"


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return make_chain(tmp_path)


def look(chain: Chain) -> InstanceReport:
    (report,) = check_store(chain.services).instances
    return report


def leave_pack(chain: Chain, run: str, number: int = 90) -> str:
    """A pack of a worker that died before its result."""
    key = keys.pack(INSTANCE, keys.pack_name(run, number, 0, 0))
    chain.store.create(key, b"left over")
    return key


def first_run(chain: Chain) -> str:
    return chain.catalog().rows[0].backup_timestamp


def test_every_key_that_the_product_builds_has_a_shape() -> None:
    values = {
        "instance": INSTANCE,
        "backup_timestamp": OLD,
        "run": OLD,
        "removed": OLD,
        "digest": "ab" * 32,
        "unit": 0,
        "number": 1,
        "attempt": 2,
        "token": 3,
        "name": keys.pack_name(OLD, 1, 2, 3),
    }
    builders = dict(inspect.getmembers(keys, inspect.isfunction))
    for name in ("to_key", "instance_prefix", "run_prefix", "pack_name", "pack_folder", "shards"):
        del builders[name]
    assert len(builders) >= 8
    for name, build in builders.items():
        key = build(**{parameter: values[parameter] for parameter in inspect.signature(build).parameters})
        shape = shape_of(key)
        assert shape is not None, name
        assert shape.instance == INSTANCE
        assert shape.run == (None if name in ("catalog", "tombstone") else OLD)


@pytest.mark.parametrize(
    "key",
    [
        "_backup/notes.txt",
        "_backup/two-words/catalog.json",
        f"_backup/{INSTANCE}/catalog.json.old",
        f"_backup/{INSTANCE}/packs/20260301T120000.000000Z/0-0",
        f"_backup/{INSTANCE}/packs/20260301T120000.000000Z/\N{ARABIC-INDIC DIGIT ZERO}-0-0",
        f"_backup/{INSTANCE}/tables/ab/{'cd' * 32}-20260301T120000.000000Z.jsonl.zst",
        f"other/{INSTANCE}/catalog.json",
    ],
)
def test_what_only_looks_like_ours_has_no_shape(key: str) -> None:
    assert shape_of(key) is None


def test_a_sound_store_has_no_problem_and_check_writes_nothing(chain: Chain) -> None:
    before = {key: chain.store.get(key) for key in chain.stored()}
    report = check_store(chain.services)
    assert report.ok
    (instance,) = report.instances
    assert instance.orphans.objects == instance.young.objects == instance.unjudged.objects == 0
    assert [backup.restorable for backup in instance.backups] == [True, True, True]
    assert instance.waiting.objects > 0, "the scratch of the runs, which the next prune removes"
    assert report.objects == len(before)
    assert {key: chain.store.get(key) for key in chain.stored()} == before


def test_an_empty_store_is_in_order(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, 0)
    assert check_store(chain.services).to_json()["ok"]


def test_what_a_backup_needs_and_is_missing_is_a_problem_that_names_the_files(chain: Chain) -> None:
    _, manifest = the_manifest(chain.store)
    newest = keys.pack(INSTANCE, sorted(manifest.packs)[-1])
    chain.store.delete([newest])
    report = look(chain)
    assert report.problems == [f"{newest} is missing; a backup needs it"]
    told = {backup.backup_timestamp: backup for backup in report.backups}
    assert [backup.restorable for backup in told.values()] == [True, True, False]
    assert told[manifest.backup_timestamp].files == ["db/trades~1/sym.c"]


def test_an_object_of_another_size_and_a_missing_shard_are_problems(chain: Chain) -> None:
    _, manifest = the_manifest(chain.store)
    old = keys.pack(INSTANCE, sorted(manifest.packs)[0])
    shard = manifest.tables[-1].shards[0].key
    size = len(chain.store.get(old))
    put_over(chain.store, old, chain.store.get(old)[:-1])
    chain.store.delete([shard])
    problems = sorted(look(chain).problems)
    assert problems == [
        f"{old} has {size - 1} bytes instead of {size}; a backup needs it",
        f"{shard} is missing; a backup needs it",
    ]


def test_orphans_of_old_runs_are_told_and_are_no_problem(chain: Chain) -> None:
    key = leave_pack(chain, first_run(chain))
    young = look(chain)
    assert (young.orphans.objects, young.young.keys) == (0, [key])
    chain.forward(hours=49)
    report = check_store(chain.services)
    assert report.ok
    assert report.instances[0].orphans.keys == [key]
    assert report.instances[0].orphans.bytes == 9


def test_removed_orphans_go_with_a_prune_after_a_second_grace_and_never_before(chain: Chain) -> None:
    key = leave_pack(chain, first_run(chain))
    needed = {name for name in chain.stored() if "/packs/" in name or "/tables/" in name} - {key}
    remove_orphans(chain.services, INSTANCE)
    assert not chain.catalog().tombstones, "its run is younger than the grace"
    chain.forward(hours=49)
    assert remove_orphans(chain.services, INSTANCE, dry_run=True).orphans.keys == [key]
    assert not chain.catalog().tombstones
    remove_orphans(chain.services, INSTANCE)
    (stone,) = chain.catalog().tombstones
    assert stone.names == (key,)
    assert chain.catalog().lease is None
    assert look(chain).waiting.keys.count(key) == 1
    chain.prune()
    assert key in chain.stored()
    assert remove_orphans(chain.services, INSTANCE).orphans.objects == 0
    chain.forward(hours=49)
    chain.prune()
    assert key not in chain.stored()
    assert needed <= chain.stored()
    assert not chain.catalog().tombstones
    assert len(chain.catalog().complete_rows()) == 3
    assert verify(chain.services, INSTANCE, None, (1, 1)).ok


def test_many_orphans_get_tombstones_with_objects_of_their_own(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("questdb_backup.check.orphans.NAMES_PER_TOMBSTONE", 150)
    assert NAMES_PER_TOMBSTONE > 150
    left = {leave_pack(chain, first_run(chain), number) for number in range(90, 450)}
    chain.forward(hours=49)
    remove_orphans(chain.services, INSTANCE)
    stones = chain.catalog().tombstones
    assert [stone.names_key is not None for stone in stones] == [True, True, False]
    assert set(look(chain).waiting.keys) >= left
    assert check_store(chain.services).foreign.objects == 0
    chain.forward(hours=49)
    chain.prune()
    assert not left & chain.stored()
    assert not any("tombstones" in key for key in chain.stored())


def test_foreign_objects_are_told_and_never_touched(chain: Chain) -> None:
    foreign = {f"_backup/{INSTANCE}/packs/notes.txt", "_backup/readme", "_backup/some-folder/catalog.json"}
    for key in foreign:
        chain.store.create(key, b"mine")
    chain.forward(days=30)
    assert set(check_store(chain.services).foreign.keys) == foreign
    remove_orphans(chain.services, INSTANCE)
    chain.forward(days=30)
    chain.prune()
    assert foreign <= chain.stored()


def test_the_run_under_way_is_live_and_check_does_not_disturb_it(chain: Chain) -> None:
    state = acquire_lock(chain.services, "run-9", {})
    run = state["run"]["backup_timestamp"]
    key = leave_pack(chain, run)
    assert look(chain).live.keys == [key]
    with pytest.raises(BackupInProgressError):
        remove_orphans(chain.services, INSTANCE)
    lease = chain.catalog().lease
    assert lease is not None
    assert lease.run == run


def test_packs_of_a_dead_run_wait_where_a_result_names_them_and_are_orphans_otherwise(chain: Chain) -> None:
    needed = chain.stored()
    run = chain.backup("never published").backup_timestamp

    def die(before: Catalog) -> Catalog:
        row = replace(before.rows[-1], status=BackupStatus.BACKUP_FAILED, manifest=None)
        runs = [replace(known, published=False) if known.run == run else known for known in before.runs]
        return replace(before, rows=(*before.rows[:-1], row), runs=tuple(runs))

    chain.change(die)
    named = [key for key in chain.stored() - needed if "/packs/" in key]
    shards = {key for key in chain.stored() - needed if "/tables/" in key}
    unnamed = leave_pack(chain, run)
    chain.forward(hours=49)
    report = look(chain)
    assert set(report.orphans.keys) == {unnamed, *shards}
    assert {*named, keys.manifest(INSTANCE, run)} <= set(report.waiting.keys)
    assert named
    assert shards


def test_a_result_that_cannot_be_read_is_a_note(chain: Chain) -> None:
    chain.change(lambda before: replace(before, runs=(*before.runs, RunRecord(run=OLD, token=1))))
    chain.store.create(keys.result(INSTANCE, OLD, 1, 1), b"torn")
    report = look(chain)
    assert not report.problems
    assert "results/1-1" in report.notes[0]


def test_nothing_is_an_orphan_while_a_listed_manifest_cannot_be_read(chain: Chain) -> None:
    ref, _ = the_manifest(chain.store)
    left = leave_pack(chain, first_run(chain))
    put_over(chain.store, ref.key, b"x" * ref.size)
    chain.forward(hours=49)
    report = look(chain)
    assert [problem for problem in report.problems if ref.key in problem]
    assert report.orphans.objects == 0
    assert left in report.unjudged.keys
    assert report.backups[-1].error
    with pytest.raises(DamagedBackupError, match="cannot be told"):
        remove_orphans(chain.services, INSTANCE)
    assert chain.catalog().lease is None


@pytest.mark.parametrize("harm", ["lost", "torn", "another's"])
def test_a_lost_catalog_is_a_problem_and_nothing_of_it_is_removed(chain: Chain, harm: str) -> None:
    key = keys.catalog(INSTANCE)
    data = chain.store.get(key)
    chain.store.delete([key])
    if harm != "lost":
        chain.store.create(key, data[:100] if harm == "torn" else data.replace(b"gentle", b"fierce"))
    chain.forward(days=30)
    report = look(chain)
    assert "--rebuild" in report.problems[0]
    assert report.unjudged.objects == len(chain.stored()) - 1 - (harm != "lost")
    before = chain.stored()
    with pytest.raises(DamagedBackupError):
        remove_orphans(chain.services, INSTANCE)
    assert chain.stored() == before


def test_an_older_catalog_that_was_put_back_is_seen_and_nothing_newer_is_removed(chain: Chain) -> None:
    key = keys.catalog(INSTANCE)
    older = chain.store.get(key)
    chain.backup("one more")
    put_over(chain.store, key, older)
    chain.forward(days=30)
    report = look(chain)
    assert "does not know the runs" in report.problems[0]
    with pytest.raises(DamagedBackupError, match="does not know the runs"):
        remove_orphans(chain.services, INSTANCE)


def test_a_catalog_that_a_first_backup_began_anew_does_not_make_the_old_ones_orphans(chain: Chain) -> None:
    chain.store.delete([keys.catalog(INSTANCE)])
    chain.backup("the schedule went on")
    chain.forward(days=30)
    report = look(chain)
    assert len(report.backups) == 1
    assert "does not know the runs" in report.problems[0]
    assert report.orphans.objects == 0
    with pytest.raises(DamagedBackupError):
        remove_orphans(chain.services, INSTANCE)


def test_an_instance_that_instances_json_does_not_name_is_a_problem(chain: Chain) -> None:
    chain.store.delete([keys.INSTANCES])
    report = check_store(chain.services)
    assert INSTANCE in report.problems[0]
    assert len(report.instances) == 1
    put_over(chain.store, keys.INSTANCES, b"{")
    assert "cannot be read" in check_store(chain.services).problems[0]


def test_waiting_objects_of_removed_backups_are_no_problem(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, 7)
    chain.prune()
    report = look(chain)
    assert not report.problems
    assert chain.catalog().tombstones
    assert report.waiting.objects > 0
    assert report.orphans.objects == report.young.objects == 0
    chain.forward(hours=49)
    chain.prune()
    assert look(chain).waiting.objects == look(chain).orphans.objects == 0


def test_a_backup_that_is_published_or_removed_during_the_listing_is_no_problem(chain: Chain) -> None:
    whole = chain.store.list

    def slow(prefix: str) -> Iterator[StoredObject]:
        found = list(whole(prefix))
        chain.services.config = replace(chain.services.config, keep_latest_n=1)
        chain.backup("in between")
        chain.prune()
        return iter(found)

    chain.store.list = slow  # type: ignore[method-assign]
    report = look(chain)
    assert not report.problems
    assert report.orphans.objects == 0


def test_odd_names_of_a_file_system_do_not_stop_the_listing(chain: Chain) -> None:
    whole = chain.store.list

    def with_odd(prefix: str) -> Iterator[StoredObject]:
        yield StoredObject("_backup/\udcff", 3)
        yield from whole(prefix)

    chain.store.list = with_odd  # type: ignore[method-assign]
    report = check_store(chain.services)
    assert report.to_json()["foreign"]["keys"] == ["_backup/\\udcff"]


def test_a_long_listing_keeps_the_lease(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("questdb_backup.check.inventory.BATCH", 5)
    whole = chain.store.list

    def slow(prefix: str) -> Iterator[StoredObject]:
        for number, item in enumerate(whole(prefix)):
            if number % 5 == 0:
                chain.forward(seconds=500)
            yield item
        with pytest.raises(BackupInProgressError, match="a check of"):
            acquire_lock(chain.services, "run-9", {})

    assert len(chain.stored()) > 10
    monkeypatch.setattr(chain.store, "list", slow)
    remove_orphans(chain.services, INSTANCE)
    assert chain.catalog().lease is None


def test_a_swap_whose_answer_was_lost_leaves_one_tombstone(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_pack(chain, first_run(chain))
    chain.forward(hours=49)
    whole = chain.store.replace
    lost: list[str] = []

    def lose(key: str, data: bytes, expected: str | None) -> str:
        version = whole(key, data, expected)
        if b"orphans." in data and not lost:
            lost.append(version)
            raise PreconditionFailedError("the answer was lost")
        return version

    monkeypatch.setattr(chain.store, "replace", lose)
    remove_orphans(chain.services, INSTANCE)
    assert lost
    assert len(chain.catalog().tombstones) == 1


def test_packs_of_a_run_that_the_history_has_forgotten_are_orphans_and_nothing_is_lost(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "MOST_ROWS", 2)
    first = chain.catalog().rows[0].backup_timestamp
    chain.services.config = replace(chain.services.config, keep_latest_n=1)
    chain.prune()
    chain.forward(days=3)
    chain.prune()
    assert first not in {row.backup_timestamp for row in chain.catalog().rows}
    left = leave_pack(chain, first)
    chain.forward(days=3)
    report = look(chain)
    assert not report.problems
    assert report.orphans.keys == [left]
