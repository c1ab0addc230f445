"""One suite for every `ObjectStore`: compare-and-swap, and many writers at once."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from questdb_backup.errors import ObjectExistsError, PreconditionFailedError, StoreAccessDeniedError
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.fs import FsObjectStore
from questdb_backup.stores.open import open_store
from questdb_backup.stores.s3 import S3ObjectStore
from tests.contract.object_stores.conftest import KINDS, REMOTE, THREADS, Shop, keys_of
from tests.support.s3_server import SECRET_KEY, S3Server, VersityServer

ROUNDS = 5
INCREMENTS = 200


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
from tests.contract.object_stores.test_swaps import increment
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
