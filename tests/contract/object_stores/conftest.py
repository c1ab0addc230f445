"""Every `ObjectStore`: the twins, folders, and servers that speak S3."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.counting import CountingStore
from questdb_backup.stores.memory import MemoryObjectStore
from questdb_backup.stores.open import open_store
from questdb_backup.stores.s3 import S3ObjectStore
from tests.support.s3_server import S3Server, VersityServer, find_versitygw

THREADS = 16


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
