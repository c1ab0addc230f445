"""The counts that the request budget and the proof of "no listing" are built on."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from questdb_backup.errors import ObjectExistsError, ObjectNotFoundError
from questdb_backup.stores.counting import CountingStore, RequestCounts
from questdb_backup.stores.memory import MemoryObjectStore


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(MemoryObjectStore())


def test_each_method_counts_as_the_request_that_it_is(store: CountingStore) -> None:
    store.create("a", b"12345")
    store.replace("b", b"123", None)
    store.get("a")
    store.get_range("a", 0, 2)
    store.read("b")
    store.read("none")
    store.delete(["a", "b"])
    list(store.list(""))
    counted = RequestCounts(get=4, put=2, list=1, delete=1, bytes_read=5 + 2 + 3, bytes_written=5 + 3)
    assert store.counts == counted
    assert counted.requests == 8


def test_a_refused_request_counts_too(store: CountingStore) -> None:
    store.create("a", b"1")
    with pytest.raises(ObjectExistsError):
        store.create("a", b"2")
    with pytest.raises(ObjectNotFoundError):
        store.get("b")
    assert (store.counts.put, store.counts.get) == (2, 1)


def test_a_listing_counts_when_it_is_asked_for_even_if_nobody_reads_it(store: CountingStore) -> None:
    store.list("")
    assert store.counts.list == 1


def test_listing_and_deleting_count_a_request_for_each_thousand_keys(store: CountingStore) -> None:
    keys = [f"k{number}" for number in range(2001)]
    for key in keys:
        store.create(key, b"")
    before = store.counts
    store.delete(item.key for item in store.list(""))
    assert store.counts - before == RequestCounts(list=3, delete=3)
    store.delete([])
    assert (store.counts - before).delete == 3


def test_threads_lose_no_count(store: CountingStore) -> None:
    store.create("a", b"1")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.get("a"), range(2000)))
    assert (store.counts.get, store.counts.bytes_read) == (2000, 2000)
