"""What every object store promises, shown on each of them: memory, a folder, S3 over HTTP."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from questdb_backup.errors import (
    DamagedBackupError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreAccessDeniedError,
)
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.counting import CountingStore
from questdb_backup.stores.fs import FsObjectStore
from questdb_backup.stores.memory import MemoryObjectStore
from questdb_backup.stores.open import open_store
from questdb_backup.stores.s3 import S3ObjectStore
from tests.support.s3_server import SECRET_KEY, S3Server, VersityServer, find_versitygw

THREADS = 16
ROUNDS = 5
INCREMENTS = 200

# What another process can open, and what cannot; versitygw where its binary is.
REMOTE = ["fs", "moto", *(["versitygw"] if find_versitygw() else [])]
KINDS = ["memory", "counting", *REMOTE]


@dataclass
class Shop:
    """Makes stores of one kind; ``text`` is the connection string of one, for another process."""

    new: Callable[[], ObjectStore]
    text: Callable[[], str] | None = None


@pytest.fixture(scope="module", params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    kind = request.param
    if kind == "memory":
        yield Shop(MemoryObjectStore)
    elif kind == "counting":
        yield Shop(lambda: CountingStore(MemoryObjectStore()))
    elif kind == "fs":

        def text() -> str:
            root = tmp_path_factory.mktemp("store")
            return f"fs::root={root};atomic_write_dir={root}/atomic;"

        yield Shop(lambda: open_store(text(), max_connections=1), text)
    else:
        with S3Server() if kind == "moto" else VersityServer() as server:

            def text() -> str:
                return server.connection_string(server.create_bucket(f"b{uuid4().hex[:12]}"), "some/root")

            yield Shop(lambda: open_store(text(), max_connections=THREADS), text)


@pytest.fixture
def store(shop: Shop) -> Iterator[ObjectStore]:
    made = shop.new()
    yield made
    if isinstance(made, S3ObjectStore):
        made.close()


def keys_of(store: ObjectStore, prefix: str = "") -> set[str]:
    return {item.key for item in store.list(prefix)}


def in_threads(count: int, act: Callable[[int], object]) -> list[object]:
    """What ``act(0..count-1)`` gave or raised, begun together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> object:
        barrier.wait()
        try:
            return act(number)
        except (ObjectExistsError, PreconditionFailedError) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


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


def test_a_swap_gives_the_version_that_the_next_swap_expects(store: ObjectStore) -> None:
    first = store.replace("catalog.json", b"one", None)
    found = store.read("catalog.json")
    assert found is not None
    assert (found.data, found.version) == (b"one", first)
    second = store.replace("catalog.json", b"two", first)
    found = store.read("catalog.json")
    assert found is not None
    assert (found.data, found.version) == (b"two", second)
    assert first != second


def test_a_swap_from_a_stale_version_is_refused_and_changes_nothing(store: ObjectStore) -> None:
    stale = store.replace("c", b"one", None)
    store.replace("c", b"two", stale)
    with pytest.raises(PreconditionFailedError, match="'c'"):
        store.replace("c", b"three", stale)
    assert store.get("c") == b"two"


def test_a_swap_that_expects_nothing_is_refused_where_something_is(store: ObjectStore) -> None:
    store.create("c", b"one")
    with pytest.raises(PreconditionFailedError):
        store.replace("c", b"two", None)
    with pytest.raises(PreconditionFailedError):
        store.replace("c", b"one", None)
    assert store.get("c") == b"one"


def test_a_swap_that_expects_a_version_is_refused_where_nothing_is(store: ObjectStore) -> None:
    version = store.replace("c", b"one", None)
    store.delete(["c"])
    with pytest.raises(PreconditionFailedError):
        store.replace("c", b"two", version)
    assert store.read("c") is None


def test_a_created_object_can_be_swapped(store: ObjectStore) -> None:
    store.create("c", b"one")
    found = store.read("c")
    assert found is not None
    store.replace("c", b"two", found.version)
    assert store.get("c") == b"two"


def test_of_concurrent_creates_of_different_bytes_exactly_one_wins(store: ObjectStore) -> None:
    for turn in range(ROUNDS):
        key = f"race/{turn}"
        results = in_threads(THREADS, lambda number, key=key: store.create(key, b"%d" % number))  # type: ignore[misc]
        winners = [number for number, result in enumerate(results) if result is None]
        assert len(winners) == 1
        assert store.get(key) == b"%d" % winners[0]


def test_of_concurrent_swaps_from_one_version_exactly_one_wins(store: ObjectStore) -> None:
    version: str | None = None
    for turn in range(ROUNDS):

        def swap(number: int, turn: int = turn, expected: str | None = version) -> str:
            return store.replace("race", b"%d-%d" % (turn, number), expected)

        results = in_threads(THREADS, swap)
        winners = [number for number, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1
        assert store.get("race") == b"%d-%d" % (turn, winners[0])
        version = str(results[winners[0]])


def test_of_concurrent_swaps_to_equal_bytes_exactly_one_wins(store: ObjectStore) -> None:
    version = store.replace("race", b"before", None)
    results = in_threads(THREADS, lambda number: store.replace("race", b"after", version))
    assert sum(isinstance(result, str) for result in results) == 1


def increment(store: ObjectStore, key: str, times: int) -> None:
    done = 0
    while done < times:
        found = store.read(key)
        value = int(found.data) if found else 0
        try:
            store.replace(key, b"%d" % (value + 1), found.version if found else None)
        except PreconditionFailedError:
            continue
        done += 1


def test_no_increment_is_lost_between_threads(store: ObjectStore) -> None:
    in_threads(4, lambda number: increment(store, "counter", INCREMENTS // 4))
    assert store.get("counter") == b"%d" % INCREMENTS


_WORKER = """
import sys
from questdb_backup.errors import ObjectExistsError, PreconditionFailedError
from questdb_backup.stores.open import open_store
from tests.contract.test_object_stores import increment
store = open_store(sys.argv[1], max_connections=2)
won = []
for turn in range(20):
    try:
        store.create(f"race/{turn}", sys.argv[2].encode())
        won.append(turn)
    except ObjectExistsError:
        pass
increment(store, "counter", 50)
print(won)
"""


@pytest.mark.parametrize("shop", REMOTE, indirect=True)
def test_between_processes_no_increment_is_lost_and_each_create_has_one_winner(shop: Shop) -> None:
    assert shop.text is not None
    text = shop.text()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, text, str(number)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        for number in range(4)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    won = [turn for output in outputs for turn in json.loads(output)]
    assert sorted(won) == list(range(20))
    store = open_store(text, max_connections=1)
    assert store.get("counter") == b"200"
    if isinstance(store, S3ObjectStore):
        store.close()


def test_a_message_shows_the_location_and_no_secret(shop: Shop, store: ObjectStore) -> None:
    assert "://" in store.location
    assert "secret" not in store.location + repr(store)


def test_a_server_that_checks_signatures_keeps_the_contract_too() -> None:
    if "versitygw" not in KINDS:
        pytest.skip("NO versitygw ON PATH OR IN .cache/bin: THE S3 CONTRACT WAS SHOWN ON moto ALONE")
    with VersityServer() as server:
        text = server.connection_string(server.create_bucket("bucket"))
        store = open_store(text.replace(SECRET_KEY, "wrong"), max_connections=1)
        assert isinstance(store, S3ObjectStore)
        with closing(store), pytest.raises(StoreAccessDeniedError, match="check secret_access_key"):
            store.get("k")


def test_two_stores_over_one_folder_see_each_other(tmp_path: Path) -> None:
    one, two = (FsObjectStore(tmp_path / "r", tmp_path / "r" / "atomic") for _ in range(2))
    one.create("a", b"x")
    assert two.get("a") == b"x"


def test_two_roots_of_one_bucket_do_not_see_each_other() -> None:
    with S3Server() as server:
        bucket = server.create_bucket("shared")
        texts = [server.connection_string(bucket, root) for root in ("one", "one/two", "")]
        one, two, whole = (open_store(text, max_connections=1) for text in texts)
        one.create("a", b"1")
        two.create("a", b"2")
        assert (one.get("a"), two.get("a")) == (b"1", b"2")
        assert keys_of(two) == {"a"}
        assert keys_of(whole) == {"one/a", "one/two/a"}
        for store in (one, two, whole):
            assert isinstance(store, S3ObjectStore)
            with closing(store):
                pass
