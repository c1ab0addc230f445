"""Verify names every object that is wrong, and the files that need it, and writes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from questdb_backup import keys, verify_packs
from questdb_backup.codec import Codec, Encoded, digest_of
from questdb_backup.errors import NoRestorePointError
from questdb_backup.manifest import Entry, Group
from questdb_backup.packs import PackInfo, PackWriter, read_index
from questdb_backup.services import Services
from questdb_backup.stores.counting import CountingStore
from questdb_backup.verify import verify
from tests.support.backups import (
    INSTANCE,
    back_up,
    forge,
    forge_groups,
    make_root,
    make_services,
    put_over,
    the_manifest,
)

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
    assert counting.counts.list == counting.counts.delete == 0
    assert counting.counts.put == (1 if read_data else 0)  # the catalog knows what was read
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
    keys_of = {newest_pack(stored), oldest_pack(stored)}
    for key in keys_of:
        put_over(stored.store, key, flip(stored.store.get(key), 2))
    found = [problem for part in (1, 2, 3) for problem in verify(stored, INSTANCE, None, (part, 3)).problems]
    assert {problem.partition(" ")[0] for problem in found} == keys_of
    assert len(found) == 2


def test_a_pack_that_was_swapped_with_another_is_found_without_reading_it(stored: Services) -> None:
    old, new = oldest_pack(stored), newest_pack(stored)
    data = stored.store.get(old)
    put_over(stored.store, old, stored.store.get(new))
    put_over(stored.store, new, data)
    told = verify(stored, INSTANCE).problems
    assert all(any(key in problem for problem in told) for key in (old, new))


def test_an_older_pack_of_the_same_size_is_found_by_its_index(stored: Services, tmp_path: Path) -> None:
    """As if the store had been set back: everything fits, but the bytes are of another day."""
    other = make_services(make_root(tmp_path / "other"))
    (tmp_path / "other/db/quotes~2/sym.c").write_bytes(b"SYMBOLS of quotes~2")
    back_up(other)
    old = oldest_pack(stored)
    _, theirs = the_manifest(other.store)
    replayed = other.store.get(keys.pack(INSTANCE, next(iter(theirs.packs))))
    size = len(stored.store.get(old))
    assert abs(len(replayed) - size) < 100
    _, manifest = the_manifest(stored.store)
    name = sorted(manifest.packs)[0]
    put_over(stored.store, old, replayed)
    info = PackInfo(len(replayed), digest_of(replayed))
    forge(stored.store, replace(manifest, packs={**manifest.packs, name: info}))
    told = verify(stored, INSTANCE, stored.now()).problems
    assert any(f"has a chunk that is not in the index of {old}" in problem for problem in told)


def test_a_reference_to_a_wrong_place_is_found_without_reading_the_data(stored: Services) -> None:
    _, manifest = the_manifest(stored.store)
    name = sorted(manifest.packs)[0]
    row = max(read_index(stored.store.get(keys.pack(INSTANCE, name)), name), key=lambda chunk: chunk.stored)
    wrong = row._replace(offset=row.offset + 1)
    entry = Entry(path="db/evil~9/x", kind="f", mode=0o644, size=wrong.plain, chunks=(wrong,))
    forge_groups(stored.store, Group(table="evil~9", partition="", signature=None, entries=(entry,)))
    problems = verify(stored, INSTANCE, stored.now()).problems
    assert len(problems) == 1
    assert "'db/evil~9/x' has a chunk that is not in the index of" in problems[0]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"groups": 7}, "other groups"),
        ({"signatures": "0"}, "other signatures"),
        ({"first": "00000000000000000009"}, "other partitions"),
        ({"packs": {}}, "which the manifest does not name for the shard"),
        ({"packs": "all"}, "other packs"),
    ],
)
def test_what_the_manifest_says_of_a_shard_is_compared(
    stored: Services, lie: dict[str, Any], words: str
) -> None:
    _, manifest = the_manifest(stored.store)
    table = next(it for it in manifest.tables if it.table == "trades~1")
    place = next(n for n, shard in enumerate(table.shards) if len(shard.packs) == 1)
    if lie.get("packs") == "all":
        lie = {"packs": dict.fromkeys(manifest.packs, 5)}
    shard = table.shards[place]
    shards = (*table.shards[:place], replace(shard, **lie), *table.shards[place + 1 :])
    lying = (replace(it, shards=shards) if it is table else it for it in manifest.tables)
    forge(stored.store, replace(manifest, tables=tuple(lying)))
    problems = verify(stored, INSTANCE).problems
    assert any(words in problem and shard.key in problem for problem in problems)


def test_an_index_that_is_longer_than_the_first_look_is_read_whole(
    stored: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_packs, "_TAIL_BYTES", 16)
    assert verify(stored, INSTANCE).problems == []


def test_indexes_that_do_not_fit_the_memory_are_read_again(
    stored: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_packs, "_ROWS_KEPT", 1)
    assert verify(stored, INSTANCE, None, ALL).problems == []


def test_a_chunk_that_no_decoder_reads_is_found_though_the_digest_is_right(stored: Services) -> None:
    """Written by a broken library: the pack is as it was stored, and nobody can restore from it."""
    name = "20260101T000000.000000Z/0-0-0"
    made: dict[str, bytes] = {}
    writer = PackWriter(lambda _number: name, lambda pack, data: made.update({pack: bytes(data)}))
    chunk = writer.add(Encoded(digest_of(b"plain"), Codec.RAW, b"other", 5))
    writer.flush()
    stored.store.create(keys.pack(INSTANCE, name), made[name])
    entry = Entry(path="db/evil~9/x", kind="f", mode=0o644, size=5, chunks=(chunk,))
    group = Group(table="evil~9", partition="", signature=None, entries=(entry,))
    forge_groups(stored.store, group, packs=writer.packs)
    assert verify(stored, INSTANCE, stored.now()).ok
    problems = verify(stored, INSTANCE, stored.now(), ALL).problems
    assert problems == [f"{keys.pack(INSTANCE, name)} is damaged; needed by 'db/evil~9/x'"]


def test_each_pack_is_read_once_and_nothing_else_of_it(stored: Services) -> None:
    counting = CountingStore(stored.store)
    verify(make_services(None, counting), INSTANCE, None, ALL)
    _, manifest = the_manifest(stored.store)
    shards = {shard.key for table in manifest.tables for shard in table.shards}
    assert counting.counts.get <= len(manifest.packs) + 2 * len(shards) + 2 * 2 + 4
