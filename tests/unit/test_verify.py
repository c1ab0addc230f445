"""Verify names every object that is wrong, and the files that need it, and writes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.backups import INSTANCE, back_up, forge, make_root, make_services, put_over, the_manifest

from questdb_backup import keys
from questdb_backup.errors import ConfigurationError, NoRestorePointError
from questdb_backup.packs import PackInfo
from questdb_backup.services import Services
from questdb_backup.stores.counting import CountingStore
from questdb_backup.verify import parse_read_data, verify

ALL = (1, 1)


@pytest.fixture
def stored(tmp_path: Path) -> Services:
    origin = make_root(tmp_path / "origin")
    services = make_services(origin)
    back_up(services)
    (origin / "db/trades~1/sym.c").write_bytes(b"changed")
    back_up(services, "run-2")
    return services


def newest_pack(services: Services) -> str:
    _, manifest = the_manifest(services.store)
    return keys.pack(INSTANCE, sorted(manifest.packs)[-1])


def oldest_pack(services: Services) -> str:
    _, manifest = the_manifest(services.store)
    return keys.pack(INSTANCE, sorted(manifest.packs)[0])


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("read_data", [None, ALL])
def test_sound_backups_have_no_problem(stored: Services, read_data: tuple[int, int] | None) -> None:
    counting = CountingStore(stored.store)
    report = verify(make_services(None, counting), INSTANCE, None, read_data)
    assert report.to_json()["ok"] is True
    assert report.problems == []
    assert report.backups == 2
    assert counting.counts.list == counting.counts.put == counting.counts.delete == 0
    _, manifest = the_manifest(stored.store)
    stored_bytes = sum(info.size for info in manifest.packs.values())
    assert (report.bytes > stored_bytes) == (read_data is not None)


def test_what_backups_share_is_read_once(stored: Services) -> None:
    counting = CountingStore(stored.store)
    verify(make_services(None, counting), INSTANCE, None, ALL)
    both = counting.counts.get
    _, manifest = the_manifest(stored.store)
    assert both < 10 + 2 * len(manifest.packs) + sum(2 * len(table.shards) for table in manifest.tables)


@pytest.mark.parametrize("key_of", [newest_pack, oldest_pack])
def test_a_flipped_bit_in_a_pack_is_found_by_reading_it_and_the_file_is_named(
    stored: Services, key_of: Callable[[Services], str]
) -> None:
    key = key_of(stored)
    put_over(stored.store, key, flip(stored.store.get(key), 2))
    assert verify(stored, INSTANCE).ok
    report = verify(stored, INSTANCE, None, ALL)
    assert len(report.problems) == 1
    assert f"{key} is damaged; needed by '" in report.problems[0]


def test_a_flipped_bit_that_no_file_needs_is_told_too(stored: Services) -> None:
    key = newest_pack(stored)
    put_over(stored.store, key, flip(stored.store.get(key), len(stored.store.get(key)) - 15))
    report = verify(stored, INSTANCE, None, ALL)
    assert f"{key} is damaged; no file needs those bytes" in report.problems[0]


@pytest.mark.parametrize("read_data", [None, ALL])
def test_a_missing_and_a_truncated_pack_are_found_without_reading_them(
    stored: Services, read_data: tuple[int, int] | None
) -> None:
    old, new = oldest_pack(stored), newest_pack(stored)
    put_over(stored.store, old, stored.store.get(old)[:-1])
    stored.store.delete([new])
    report = verify(stored, INSTANCE, None, read_data)
    assert not report.ok
    assert len(report.problems) == 2
    assert any(f"{new} is missing" in problem for problem in report.problems)
    assert any(old in problem and "bytes" in problem for problem in report.problems)


def test_a_longer_pack_is_found(stored: Services) -> None:
    key = newest_pack(stored)
    put_over(stored.store, key, stored.store.get(key) + b"x")
    assert "has not the" in verify(stored, INSTANCE).problems[0]


def test_every_damaged_object_is_listed_and_the_rest_is_still_looked_at(stored: Services) -> None:
    ref, manifest = the_manifest(stored.store)
    shard = manifest.tables[-1].shards[0].key
    put_over(stored.store, shard, b"nonsense")
    stored.store.delete([newest_pack(stored)])
    report = verify(stored, INSTANCE)
    assert len(report.problems) == 2
    assert shard in " ".join(report.problems)
    put_over(stored.store, ref.key, b"nonsense")
    assert any(ref.key in problem for problem in verify(stored, INSTANCE).problems)


def test_a_damaged_catalog_is_a_problem_not_a_crash(stored: Services) -> None:
    put_over(stored.store, keys.catalog(INSTANCE), b"{")
    report = verify(stored, INSTANCE)
    assert not report.ok
    assert keys.catalog(INSTANCE) in report.problems[0]


def test_a_chunk_beyond_the_end_of_its_pack_and_one_in_no_pack_are_told(stored: Services) -> None:
    _, manifest = the_manifest(stored.store)
    first, last = sorted(manifest.packs)
    forge(stored.store, replace(manifest, packs={first: PackInfo(10, manifest.packs[first].digest)}))
    told = " ".join(verify(stored, INSTANCE).problems)
    assert f"beyond the end of {keys.pack(INSTANCE, first)}" in told
    assert f"needs pack {last}, which is not in its manifest" in told


def test_one_timestamp_verifies_one_backup(stored: Services) -> None:
    assert verify(stored, INSTANCE, stored.now()).backups == 1
    with pytest.raises(NoRestorePointError):
        verify(stored, INSTANCE, "2020-01-01")


def test_parts_of_the_data_together_are_all_of_it(stored: Services) -> None:
    keys_of = [newest_pack(stored), oldest_pack(stored)]
    for key in keys_of:
        put_over(stored.store, key, flip(stored.store.get(key), 2))
    found = [verify(stored, INSTANCE, None, (part, 2)).problems for part in (1, 2)]
    assert [len(problems) for problems in found] == [1, 1]
    assert found[0] != found[1]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3", "-1/2", "/"])
def test_a_part_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no part"):
        parse_read_data(text)


def test_parts_are_read_as_they_are_written() -> None:
    assert parse_read_data(None) == parse_read_data("") == ALL
    assert parse_read_data("2/7") == (2, 7)
