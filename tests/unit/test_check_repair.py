"""Repair tells the catalog which packs are damaged, and strikes off what is whole again."""

from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.check.repair import Wanted, repair
from questdb_backup.check.store import check_store
from questdb_backup.errors import BackupInProgressError, ConfigurationError, DamagedBackupError
from questdb_backup.steps.lock import acquire_lock
from tests.support.backups import INSTANCE, put_over, the_manifest
from tests.support.checking import Chain, make_chain

ALL = Wanted(share=(1, 1))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return make_chain(tmp_path)


def packs(chain: Chain) -> list[str]:
    return sorted(the_manifest(chain.store)[1].packs)


def flip(chain: Chain, name: str) -> bytes:
    key = keys.pack(INSTANCE, name)
    data = chain.store.get(key)
    put_over(chain.store, key, bytes([data[0] ^ 1]) + data[1:])
    return data


def test_a_missing_pack_is_noted_without_reading_anything(chain: Chain) -> None:
    first, *_ = packs(chain)
    chain.store.delete([keys.pack(INSTANCE, first)])
    report, added, struck = repair(chain.services, INSTANCE, Wanted())
    assert (added, struck) == ([first], [])
    assert chain.catalog().damaged_packs == (first,)
    assert chain.catalog().lease is None
    assert [backup.restorable for backup in report.backups] == [False, False, False]
    assert report.backups[0].damaged_files > 1


def test_a_dry_run_notes_nothing(chain: Chain) -> None:
    first, *_ = packs(chain)
    chain.store.delete([keys.pack(INSTANCE, first)])
    before = chain.store.get(keys.catalog(INSTANCE))
    assert repair(chain.services, INSTANCE, Wanted(), dry_run=True)[1] == [first]
    assert chain.store.get(keys.catalog(INSTANCE)) == before


def test_a_flipped_bit_is_found_by_reading_all_a_share_or_the_pack_by_name(chain: Chain) -> None:
    names = packs(chain)
    flip(chain, names[0])
    assert repair(chain.services, INSTANCE, Wanted(), dry_run=True)[1] == []
    by_share = [repair(chain.services, INSTANCE, Wanted(share=(n, 2)), dry_run=True)[1] for n in (1, 2)]
    assert sorted(by_share) == [[], [names[0]]]
    assert repair(chain.services, INSTANCE, Wanted(packs=(names[0],)), dry_run=True)[1] == [names[0]]
    report, added, _ = repair(chain.services, INSTANCE, ALL)
    assert added == [names[0]]
    assert "does not match its digest" in report.problems[0]
    assert chain.catalog().damaged_packs == (names[0],)


def test_what_was_noted_is_not_called_whole_by_a_later_look(chain: Chain) -> None:
    first, *_ = packs(chain)
    flip(chain, first)
    repair(chain.services, INSTANCE, ALL)
    report = check_store(chain.services)
    assert not report.ok
    assert "was found damaged before" in report.instances[0].problems[0]
    assert not all(backup.restorable for backup in report.instances[0].backups)


def test_a_pack_that_is_whole_again_is_struck_off(chain: Chain) -> None:
    first, *_ = packs(chain)
    data = flip(chain, first)
    repair(chain.services, INSTANCE, ALL)
    assert repair(chain.services, INSTANCE, Wanted())[1:] == ([], []), "still damaged: read again"
    put_over(chain.store, keys.pack(INSTANCE, first), data)
    report, added, struck = repair(chain.services, INSTANCE, Wanted())
    assert (added, struck) == ([], [first])
    assert chain.catalog().damaged_packs == ()
    assert all(backup.restorable for backup in report.backups)


def test_what_is_noted_stays_while_a_manifest_cannot_be_read(chain: Chain) -> None:
    first, *_, last = packs(chain)
    ref, _ = the_manifest(chain.store)
    chain.store.delete([keys.pack(INSTANCE, last)])
    repair(chain.services, INSTANCE, Wanted())
    put_over(chain.store, ref.key, b"x" * ref.size)
    report, added, struck = repair(chain.services, INSTANCE, ALL)
    assert (added, struck) == ([], [])
    assert report.damaged_packs == chain.catalog().damaged_packs == (last,)
    assert first != last


def test_the_next_backup_stores_anew_what_a_damaged_pack_held(chain: Chain) -> None:
    for name in packs(chain):
        chain.store.delete([keys.pack(INSTANCE, name)])
    noted = repair(chain.services, INSTANCE, Wanted())[1]
    chain.backup("changed again")
    assert not set(noted) & set(packs(chain))
    report, _, struck = repair(chain.services, INSTANCE, ALL)
    assert [backup.restorable for backup in report.backups] == [False, False, False, True]
    assert struck == [], "older backups still need them"


def test_repair_keeps_away_from_a_run_and_from_a_lost_catalog(chain: Chain) -> None:
    with pytest.raises(ConfigurationError, match="no backup needs"):
        repair(chain.services, INSTANCE, Wanted(packs=("x/0-0-0",)))
    assert chain.catalog().lease is None
    acquire_lock(chain.services, "run-9", {})
    with pytest.raises(BackupInProgressError):
        repair(chain.services, INSTANCE, ALL)
    chain.store.delete([keys.catalog(INSTANCE)])
    with pytest.raises(DamagedBackupError, match="is missing from"):
        repair(chain.services, INSTANCE, ALL)
    assert keys.catalog(INSTANCE) not in chain.stored()
