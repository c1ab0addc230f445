"""The S3 store where the server refuses, is busy, tears, or does what it never answers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from questdb_backup.errors import (
    ConfigurationError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageFullError,
    StoreAccessDeniedError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from questdb_backup.stores import s3
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.connection_string import S3Location, parse_connection_string
from questdb_backup.stores.open import open_store
from questdb_backup.stores.s3 import S3ObjectStore
from questdb_backup.stores.s3_errors import translate_answer
from tests.support.s3_server import SECRET_KEY, FaultyProxy, S3Server, connection_string, free_port


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture(scope="module")
def shared_proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.endpoint) as running:
        yield running


@pytest.fixture
def proxy(shared_proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    shared_proxy.heal()
    shared_proxy.requests.clear()
    yield shared_proxy
    shared_proxy.heal()


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.create_bucket(f"b{uuid4().hex[:12]}")


@contextmanager
def opened(text: str, attempts: int = 2) -> Iterator[S3ObjectStore]:
    """A store that gives up soon, so that the tests do not wait."""
    location = parse_connection_string(text)
    assert isinstance(location, S3Location)
    with closing(S3ObjectStore(location, max_connections=4, attempts=attempts)) as store:
        yield store


@pytest.fixture
def store(proxy: FaultyProxy, bucket: str) -> Iterator[S3ObjectStore]:
    """A store behind the faulty proxy."""
    with opened(connection_string(proxy.endpoint, bucket, "root")) as made:
        yield made


@pytest.fixture
def behind(server: S3Server, bucket: str) -> Iterator[S3ObjectStore]:
    """The same store without the proxy: another writer, and the truth."""
    with opened(server.connection_string(bucket, "root")) as made:
        yield made


def every_method(store: ObjectStore) -> dict[str, Callable[[], object]]:
    return {
        "get": lambda: store.get("k"),
        "get_range": lambda: store.get_range("k", 0, 1),
        "read": lambda: store.read("k"),
        "create": lambda: store.create("k", b"x"),
        "replace": lambda: store.replace("k", b"x", None),
        "replace a version": lambda: store.replace("k", b"x", '"0"'),
        "delete": lambda: store.delete(["k"]),
        "list": lambda: list(store.list("")),
    }


METHODS = ["get", "get_range", "read", "create", "replace", "replace a version", "delete", "list"]


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_bucket_is_told_by_every_method(server: S3Server, method: str) -> None:
    with (
        opened(server.connection_string("no-such-bucket", "root")) as store,
        pytest.raises(StoreNotFoundError, match="s3://no-such-bucket/root"),
    ):
        every_method(store)[method]()


@pytest.mark.parametrize("method", METHODS)
def test_refused_access_is_told_by_every_method_with_what_to_allow(
    store: S3ObjectStore, proxy: FaultyProxy, method: str
) -> None:
    proxy.deny()
    with pytest.raises(StoreAccessDeniedError, match="s3:ListBucket"):
        every_method(store)[method]()
    assert len(proxy.requests) == 1


def test_refused_writes_leave_the_reads_alone(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    behind.create("packs/1", b"x")
    proxy.deny(methods=["PUT"], key="/packs/")
    with pytest.raises(StoreAccessDeniedError, match="writing 'packs/2'"):
        store.create("packs/2", b"x")
    assert store.get("packs/1") == b"x"
    store.create("manifests/1", b"x")


def test_a_closed_port_is_told_with_the_endpoint(bucket: str) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = open_store(connection_string(endpoint, bucket), max_connections=1)
    assert isinstance(store, S3ObjectStore)
    with (
        closing(store),
        pytest.raises(StoreUnavailableError, match="check the network and endpoint") as caught,
    ):
        store.get("k")
    assert endpoint in str(caught.value)
    assert SECRET_KEY not in str(caught.value)


def test_a_server_that_does_not_answer_in_time_is_unavailable(
    proxy: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_SECONDS", 0.2)
    proxy.delay(2.0)
    with (
        opened(connection_string(proxy.endpoint, bucket), attempts=1) as store,
        pytest.raises(StoreUnavailableError, match="timeout"),
    ):
        store.get("k")


def test_a_busy_store_is_asked_again(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.slow_down(times=1)
    store.create("k", b"x")
    proxy.slow_down(times=1)
    assert store.get("k") == b"x"
    assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "GET", "GET"]


@pytest.mark.parametrize("method", METHODS)
def test_a_store_that_stays_busy_is_unavailable(proxy: FaultyProxy, bucket: str, method: str) -> None:
    proxy.slow_down(times=None)
    with (
        opened(connection_string(proxy.endpoint, bucket), attempts=1) as store,
        pytest.raises(StoreUnavailableError, match="503 SlowDown"),
    ):
        every_method(store)[method]()


def test_a_create_whose_answer_is_lost_succeeds(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    proxy.lose_response(methods=["PUT"])
    store.create("k", b"ours")
    assert behind.get("k") == b"ours"
    assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "GET"]


def test_a_create_is_not_fooled_by_the_bytes_of_another(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    behind.create("k", b"theirs")
    proxy.lose_response(methods=["PUT"])
    with pytest.raises(ObjectExistsError):
        store.create("k", b"ours")
    assert behind.get("k") == b"theirs"


@pytest.mark.parametrize("there", [True, False])
def test_a_swap_whose_answer_is_lost_succeeds_and_gives_its_version(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy, there: bool
) -> None:
    expected = behind.replace("k", b"old", None) if there else None
    proxy.lose_response(methods=["PUT"])
    version = store.replace("k", b"ours", expected)
    found = behind.read("k")
    assert found is not None
    assert (found.data, found.version) == (b"ours", version)
    store.replace("k", b"next", version)


def test_a_refused_swap_does_not_take_equal_bytes_of_another_for_its_own(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    stale = behind.replace("k", b"4", None)
    behind.replace("k", b"5", stale)
    proxy.slow_down(methods=["PUT"])
    with pytest.raises(PreconditionFailedError):
        store.replace("k", b"5", stale)


def test_a_swap_whose_answers_are_all_lost_is_of_unknown_outcome(
    proxy: FaultyProxy, bucket: str, behind: S3ObjectStore
) -> None:
    proxy.lose_response(methods=["PUT"], times=None)
    with (
        opened(connection_string(proxy.endpoint, bucket, "root"), attempts=1) as store,
        pytest.raises(StoreUnavailableError),
    ):
        store.replace("k", b"ours", None)
    assert behind.get("k") == b"ours"


@pytest.mark.parametrize("method", ["create", "replace"])
def test_a_conflict_of_two_writers_is_tried_again(
    store: S3ObjectStore, proxy: FaultyProxy, method: str
) -> None:
    proxy.conflict(times=2)
    every_method(store)[method]()
    assert [method for method, _ in proxy.requests] == ["PUT"] * 3


def test_a_conflict_that_does_not_end_is_transient(
    store: S3ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_CONFLICT_ATTEMPTS", 2)
    proxy.conflict(times=None)
    with pytest.raises(StoreUnavailableError, match="409 ConditionalRequestConflict"):
        store.create("k", b"x")


def test_a_torn_body_is_fetched_again(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    behind.create("k", bytes(range(100)))
    proxy.tear_body(times=2)
    assert store.get("k") == bytes(range(100))
    proxy.tear_body(times=1)
    assert store.get_range("k", 10, 20) == bytes(range(10, 30))


def test_a_body_that_is_always_torn_is_unavailable_and_never_short(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    behind.create("k", bytes(range(100)))
    proxy.tear_body(times=None)
    with pytest.raises(StoreUnavailableError, match="reading 'k'"):
        store.get("k")
    with pytest.raises(StoreUnavailableError, match="reading 'k'"):
        store.get_range("k", 10, 20)


def test_where_batches_of_deletes_are_unknown_each_object_is_deleted(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    for key in ("a", "b", "c"):
        behind.create(key, b"x")
    proxy.not_implemented(methods=["POST"])
    store.delete(["a", "never"])
    store.delete(["b"])
    assert [item.key for item in behind.list("")] == ["c"]
    assert [method for method, _ in proxy.requests] == ["POST", "DELETE", "DELETE", "DELETE"]


def test_a_store_without_conditional_writes_is_refused(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.not_implemented(methods=["PUT"])
    with pytest.raises(ConfigurationError, match="conditional writes"):
        store.create("k", b"x")


def test_the_folder_markers_of_a_console_are_not_objects(
    server: S3Server, bucket: str, behind: S3ObjectStore
) -> None:
    behind.create("a", b"x")
    with closing(server.client()) as client:
        client.put_object(Bucket=bucket, Key="root/")
        client.put_object(Bucket=bucket, Key="root/folder/")
    assert [item.key for item in behind.list("")] == ["a"]


def no_aws_settings(monkeypatch: pytest.MonkeyPatch, nowhere: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_without_credentials_the_error_says_where_they_can_stand(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_aws_settings(monkeypatch, tmp_path)
    with (
        opened(f"s3::bucket={bucket};endpoint={server.endpoint};") as store,
        pytest.raises(StoreAccessDeniedError, match="an instance role"),
    ):
        store.get("k")


def test_credentials_of_the_environment_are_used(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_aws_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with opened(f"s3::bucket={bucket};endpoint={server.endpoint};") as store:
        store.create("k", b"x")
        assert store.get("k") == b"x"


def test_a_profile_that_does_not_exist_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_aws_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        open_store("s3::bucket=b;", max_connections=1)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchBucket", StoreNotFoundError),
        (404, "NoSuchKey", ObjectNotFoundError),
        (404, "404", ObjectNotFoundError),
        (412, "PreconditionFailed", PreconditionFailedError),
        (403, "AccessDenied", StoreAccessDeniedError),
        (403, "InvalidAccessKeyId", StoreAccessDeniedError),
        (403, "SignatureDoesNotMatch", StoreAccessDeniedError),
        (403, "403", StoreAccessDeniedError),
        (400, "ExpiredToken", StoreAccessDeniedError),
        (400, "InvalidRequest", StoreAccessDeniedError),
        (400, "AuthorizationHeaderMalformed", ConfigurationError),
        (301, "PermanentRedirect", ConfigurationError),
        (501, "NotImplemented", ConfigurationError),
        (400, "RequestTimeout", StoreUnavailableError),
        (409, "OperationAborted", StoreUnavailableError),
        (429, "", StoreUnavailableError),
        (500, "InternalError", StoreUnavailableError),
        (502, "", StoreUnavailableError),
        (503, "SlowDown", StoreUnavailableError),
        (0, "InternalError", StoreUnavailableError),
        (0, "AccessDenied", StoreAccessDeniedError),
        (507, "XMinioStorageFull", StorageFullError),
        (403, "QuotaExceeded", StorageFullError),
    ],
)
def test_each_answer_of_a_server_has_its_error(status: int, code: str, expected: type[Exception]) -> None:
    error = translate_answer(status, code, "said so", "reading 'k' in s3://b")
    assert type(error) is expected
    assert "reading 'k' in s3://b" in str(error)


def test_a_listing_that_is_slowed_down_between_its_pages_is_whole_or_an_error(
    store: S3ObjectStore, behind: S3ObjectStore, proxy: FaultyProxy
) -> None:
    keys = {f"many/{number:05}" for number in range(1003)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: behind.create(key, b""), keys))
    proxy.slow_down(key="continuation-token", times=1)
    assert {item.key for item in store.list("many/")} == keys
    assert len([path for _, path in proxy.requests if "list-type" in path]) == 3
    proxy.slow_down(key="continuation-token", times=None)
    with pytest.raises(StoreUnavailableError, match="listing 'many/'"):
        list(store.list("many/"))
