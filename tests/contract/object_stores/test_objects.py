"""One suite for every `ObjectStore`: objects, keys, listings."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from questdb_backup.errors import DamagedBackupError, ObjectExistsError, ObjectNotFoundError
from questdb_backup.stores.base import ObjectStore
from tests.contract.object_stores.conftest import keys_of


def test_a_created_object_is_read_back_whole(store: ObjectStore) -> None:
    store.create("_backup/a/packs/1", b"some bytes")
    assert store.get("_backup/a/packs/1") == b"some bytes"
    assert keys_of(store) == {"_backup/a/packs/1"}


def test_an_object_without_bytes_is_an_object(store: ObjectStore) -> None:
    store.create("empty", b"")
    assert store.get("empty") == b""
    assert store.get_range("empty", 0, 10) == b""
    assert [(item.key, item.size) for item in store.list("")] == [("empty", 0)]


def test_a_megabyte_of_every_byte_value_survives(store: ObjectStore) -> None:
    data = bytes(range(256)) * 4096
    store.create("large", data)
    assert store.get("large") == data
    assert [item.size for item in store.list("large")] == [len(data)]


def test_creating_other_bytes_under_a_taken_key_is_refused_and_changes_nothing(store: ObjectStore) -> None:
    store.create("k", b"first")
    with pytest.raises(ObjectExistsError, match="'k'"):
        store.create("k", b"second")
    assert store.get("k") == b"first"


def test_creating_the_equal_bytes_again_succeeds(store: ObjectStore) -> None:
    store.create("k", b"same")
    store.create("k", b"same")
    assert store.get("k") == b"same"


def test_a_missing_key_is_named_by_every_read(store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFoundError, match="not/there"):
        store.get("not/there")
    with pytest.raises(ObjectNotFoundError, match="not/there"):
        store.get_range("not/there", 0, 1)
    with pytest.raises(ObjectNotFoundError, match="not/there"):
        store.get_range("not/there", 0, 0)
    assert store.read("not/there") is None


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 10, b"0123456789"),
        (0, 1, b"0"),
        (9, 1, b"9"),
        (3, 4, b"3456"),
        (8, 5, b"89"),
        (0, 10**12, b"0123456789"),
        (10, 1, b""),
        (1000, 5, b""),
        (4, 0, b""),
    ],
)
def test_a_range_is_exact_and_ends_where_the_object_ends(
    store: ObjectStore, offset: int, length: int, expected: bytes
) -> None:
    store.create("digits", b"0123456789")
    assert store.get_range("digits", offset, length) == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, -1)])
def test_a_negative_range_is_refused(store: ObjectStore, offset: int, length: int) -> None:
    store.create("digits", b"0123456789")
    with pytest.raises(DamagedBackupError, match="digits"):
        store.get_range("digits", offset, length)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "a/../../b",
        "..",
        "a//b",
        "a/",
        "./a",
        "a/./b",
        "a\0b",
        "a\nb",
        "\ud800",
        "x" * 1025,
    ],
)
def test_a_key_that_could_lead_elsewhere_is_refused_by_every_method(store: ObjectStore, key: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: store.get(key),
        lambda: store.get_range(key, 0, 1),
        lambda: store.read(key),
        lambda: store.create(key, b""),
        lambda: store.replace(key, b"", None),
        lambda: store.delete([key]),
    ]
    for attempt in attempts:
        with pytest.raises(DamagedBackupError):
            attempt()


def test_keys_with_spaces_and_other_alphabets_are_kept_apart(store: ObjectStore) -> None:
    keys = ["t/ä b+c%20", "t/ä b+c 20", "t/价格~5", "t/a=b&c", "t/😀", "t/#?", "t/20240824T123456.789123Z"]
    for key in keys:
        store.create(key, key.encode())
    assert keys_of(store, "t/") == set(keys)
    assert [store.get(key) for key in keys] == [key.encode() for key in keys]
    store.delete(keys[:3])
    assert keys_of(store) == set(keys[3:])


def test_a_listing_takes_a_prefix_that_ends_anywhere(store: ObjectStore) -> None:
    for key in ["a/b/1", "a/b/2", "a/bc/3", "a/d", "ab", "z"]:
        store.create(key, key.encode())
    assert keys_of(store, "a/b/") == {"a/b/1", "a/b/2"}
    assert keys_of(store, "a/b") == {"a/b/1", "a/b/2", "a/bc/3"}
    assert keys_of(store, "a") == {"a/b/1", "a/b/2", "a/bc/3", "a/d", "ab"}
    assert keys_of(store, "none/") == set()
    assert {(item.key, item.size) for item in store.list("a/d")} == {("a/d", 3)}


def test_deleting_twice_and_deleting_what_never_was_succeeds(store: ObjectStore) -> None:
    store.create("a/1", b"x")
    store.create("a/2", b"x")
    store.delete(["a/1", "never"])
    store.delete(iter(["a/1"]))
    store.delete([])
    assert keys_of(store) == {"a/2"}


def test_a_deleted_key_can_be_created_again(store: ObjectStore) -> None:
    store.create("a", b"one")
    store.delete(["a"])
    store.create("a", b"two")
    assert store.get("a") == b"two"


def test_more_than_a_thousand_objects_are_listed_and_deleted(store: ObjectStore) -> None:
    keys = {f"many/{number:05}" for number in range(1003)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.create(key, b"x"), keys))
    store.create("other", b"x")
    assert keys_of(store, "many/") == keys
    store.delete(sorted(keys))
    assert keys_of(store) == {"other"}
