"""What the durable status stores make of a damaged, locked, missing, forbidden or silent store."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from questdb_backup.errors import BackupToolError, ConfigurationError, LeaseLostError, StatusUnavailableError
from questdb_backup.questdb.base import Fence
from questdb_backup.status import dynamodb
from questdb_backup.status.base import LiveRun, StatusStore
from questdb_backup.status.dynamodb import DynamoStatusStore
from questdb_backup.status.sqlite import SCHEMA_VERSION, SqliteStatusStore
from tests.support.dynamodb_local import DynamoDBLocal

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RUN = "2024-08-24T12:34:56.789123Z"
NOW = "2024-08-24T12:40:00.000000Z"
LIVE = LiveRun(run=RUN, token=7, holder="host-a:123", expires_at="2024-08-24T12:45:00.000000Z")

EVERY_METHOD: dict[str, Callable[[StatusStore], object]] = {
    "begin": lambda store: store.begin("i", LIVE, NOW),
    "refuse_if_running": lambda store: store.refuse_if_running("i", "h", NOW),
    "read": lambda store: store.read("i"),
    "renew": lambda store: store.renew("i", RUN, 7, NOW),
    "record_fence": lambda store: store.record_fence("i", RUN, 7, Fence()),
    "set_total": lambda store: store.set_total("i", RUN, 7, 1),
    "add_done": lambda store: store.add_done("i", RUN, 7, 0, 1),
    "request_abort": lambda store: store.request_abort("i", "asked"),
    "finish": lambda store: store.finish("i", RUN, 7),
}
every_method = pytest.mark.parametrize("call", EVERY_METHOD.values(), ids=EVERY_METHOD)


# SQLite


def test_only_begin_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "backup" / "state" / "status.db"
    store = SqliteStatusStore(path)
    for name, call in EVERY_METHOD.items():
        if name != "begin":
            try:
                call(store)
            except LeaseLostError:
                continue
    assert list(tmp_path.iterdir()) == []

    store.begin("i", LIVE, NOW)
    assert [file.name for file in path.parent.iterdir()] == ["status.db"]


def test_an_odd_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%41" / "s%.db"
    SqliteStatusStore(path).begin("i", LIVE, NOW)
    assert path.is_file()
    assert SqliteStatusStore(path).read("i") == LIVE


@every_method
def test_a_file_that_is_no_database_is_a_configuration_error_with_a_way_out(
    tmp_path: Path, call: Callable[[StatusStore], object]
) -> None:
    path = tmp_path / "status.db"
    path.write_bytes(b"this is no database, whatever its name may say" * 100)
    with pytest.raises(ConfigurationError, match=r"status\.db.*--state DIR"):
        call(SqliteStatusStore(path))


def test_a_file_that_was_cut_off_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "status.db"
    SqliteStatusStore(path).begin("i", LIVE, NOW)
    path.write_bytes(path.read_bytes()[:4096])
    with pytest.raises(ConfigurationError, match=r"damaged.*--state DIR"):
        SqliteStatusStore(path).read("i")


def test_an_empty_file_is_a_status_without_a_run(tmp_path: Path) -> None:
    path = tmp_path / "status.db"
    path.touch()
    store = SqliteStatusStore(path)
    assert store.read("i") is None
    with pytest.raises(LeaseLostError):
        store.renew("i", RUN, 7, NOW)
    store.begin("i", LIVE, NOW)
    assert store.read("i") == LIVE


@every_method
def test_a_file_of_a_newer_schema_is_left_alone(
    tmp_path: Path, call: Callable[[StatusStore], object]
) -> None:
    path = tmp_path / "status.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=f"version {SCHEMA_VERSION + 1}.*--state DIR"):
        call(SqliteStatusStore(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["file/status.db", "folder"])
def test_a_path_that_cannot_be_a_file_is_a_configuration_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="--state DIR"):
        SqliteStatusStore(tmp_path / place).begin("i", LIVE, NOW)


def test_a_folder_that_cannot_be_written_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="--state DIR"):
        SqliteStatusStore(Path("/proc/backup/status.db")).begin("i", LIVE, NOW)


def test_a_file_that_stays_locked_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "status.db"
    store = SqliteStatusStore(path, busy_timeout_seconds=0.01)
    store.begin("i", LIVE, NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StatusUnavailableError, match="locked"):
            store.add_done("i", RUN, 7, 0, 1)
        with pytest.raises(StatusUnavailableError, match="locked"):
            store.read("i")
    assert store.read("i") == LIVE


# DynamoDB


@every_method
def test_a_missing_table_is_a_configuration_error_with_a_way_out(
    dynamodb_local: DynamoDBLocal, call: Callable[[StatusStore], object]
) -> None:
    store = DynamoStatusStore("nowhere", dynamodb_local.client())
    with pytest.raises(ConfigurationError, match=r"nowhere does not exist.*deploy the stack"):
        call(store)


def test_a_table_of_other_keys_is_a_configuration_error(dynamodb_local: DynamoDBLocal) -> None:
    dynamodb_local.client().create_table(
        TableName="foreign",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(ConfigurationError, match="`pk` and `sk`"):
        DynamoStatusStore("foreign", dynamodb_local.client()).read("i")


def test_unit_marks_expire_by_the_tables_ttl_and_the_run_does_not(dynamodb_local: DynamoDBLocal) -> None:
    table, client = dynamodb_local.create_table(), dynamodb_local.client()
    store = DynamoStatusStore(table, client)
    store.begin("i", LIVE, NOW)
    store.add_done("i", RUN, 7, 3, 1)

    items = {item["sk"]["S"]: item for item in client.scan(TableName=table)["Items"]}

    assert set(items) == {"RUN", f"UNIT#{RUN}#3"}
    assert {item["pk"]["S"] for item in items.values()} == {"INST#i"}
    assert "ttl" not in items["RUN"]
    ttl = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert ttl.get("AttributeName") == "ttl"
    assert int(items[f"UNIT#{RUN}#3"]["ttl"]["N"]) > 1_700_000_000 + dynamodb.UNIT_MARK_SECONDS


def answer(code: str, status: int = 400, **more: Any) -> tuple[int, dict[str, Any]]:
    return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "told so", **more}


def cancelled(*codes: str) -> tuple[int, dict[str, Any]]:
    return answer("TransactionCanceledException", CancellationReasons=[{"Code": code} for code in codes])


Answers = list[tuple[int, dict[str, Any]]]


@contextmanager
def told(answers: Answers) -> Iterator[tuple["DynamoDBClient", list[str]]]:
    """A client of a server that gives these answers in turn, the last for ever, and the operations asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.headers["X-Amz-Target"].partition(".")[2])
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = make_client(f"http://127.0.0.1:{server.server_port}")
        try:
            yield client, asked
        finally:
            client.close()
            server.shutdown()
            thread.join()


def make_client(endpoint: str) -> "DynamoDBClient":
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}, proxies={}, connect_timeout=1, read_timeout=1),
    )


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer("ThrottlingException"), StatusUnavailableError),
        (answer("ProvisionedThroughputExceededException"), StatusUnavailableError),
        (answer("RequestLimitExceeded"), StatusUnavailableError),
        (answer("InternalServerError", 500), StatusUnavailableError),
        (answer("SomethingNew", 503), StatusUnavailableError),
        (answer("AccessDeniedException"), ConfigurationError),
        (answer("ExpiredTokenException"), ConfigurationError),
        (answer("UnrecognizedClientException"), ConfigurationError),
        (answer("ResourceNotFoundException"), ConfigurationError),
        (answer("ValidationException"), ConfigurationError),
    ],
    ids=lambda value: value[1]["__type"].partition("#")[2] if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("name", ["begin", "read", "add_done", "finish"])
def test_the_servers_errors_become_ours_with_its_words(
    reply: tuple[int, dict[str, Any]], expected: type[BackupToolError], name: str
) -> None:
    with told([reply]) as (client, _), pytest.raises(expected, match="told so") as caught:
        EVERY_METHOD[name](DynamoStatusStore("status", client))
    assert "status" in caught.value.fact
    assert caught.value.hint


def test_refused_credentials_are_told_which_actions_to_allow() -> None:
    words = "allow GetItem, PutItem, UpdateItem and DeleteItem"
    with (
        told([answer("AccessDeniedException")]) as (client, _),
        pytest.raises(ConfigurationError, match=words),
    ):
        DynamoStatusStore("status", client).read("i")


@every_method
def test_a_server_that_is_not_there_is_unavailable(call: Callable[[StatusStore], object]) -> None:
    with told([(200, {})]) as (gone, _):
        endpoint = gone.meta.endpoint_url
    client = make_client(endpoint)
    with pytest.raises(StatusUnavailableError, match="did not answer"):
        call(DynamoStatusStore("status", client))
    client.close()


STORED = {**dynamodb._run_key("i"), **dynamodb._to_item(LIVE), "generation": {"S": "g"}}


def test_a_write_that_meets_a_transaction_is_sent_again() -> None:
    with told([answer("TransactionConflictException"), (200, {})]) as (client, asked):
        DynamoStatusStore("status", client).renew("i", RUN, 7, NOW)
    assert asked == ["UpdateItem"] * 2


@pytest.mark.parametrize(
    "codes",
    [
        ("None", "TransactionConflict"),
        ("ConditionalCheckFailed", "None"),
        ("ThrottlingError", "ConditionalCheckFailed"),
    ],
)
def test_progress_that_was_overtaken_is_read_and_written_again(codes: tuple[str, str]) -> None:
    read: Answers = [(200, {"Item": STORED}), (200, {})]
    with told([*read, cancelled(*codes), *read, (200, {})]) as (client, asked):
        DynamoStatusStore("status", client).add_done("i", RUN, 7, 0, 5)
    assert asked == ["GetItem", "GetItem", "TransactWriteItems"] * 2


def test_progress_that_is_refused_for_another_reason_is_not_sent_again() -> None:
    read: Answers = [(200, {"Item": STORED}), (200, {})]
    with told([*read, cancelled("ValidationError", "None")]) as (client, asked):
        store = DynamoStatusStore("status", client)
        with pytest.raises(ConfigurationError, match="told so"):
            store.add_done("i", RUN, 7, 0, 5)
    assert asked == ["GetItem", "GetItem", "TransactWriteItems"]


def test_a_unit_that_is_told_the_same_again_is_not_written_again() -> None:
    mark = {"generation": {"S": "g"}, "done_bytes": {"N": "5"}}
    with told([(200, {"Item": STORED}), (200, {"Item": mark})]) as (client, asked):
        DynamoStatusStore("status", client).add_done("i", RUN, 7, 0, 5)
    assert asked == ["GetItem"] * 2


def test_a_write_that_never_gets_through_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb, "_LONGEST_WAIT_SECONDS", 0.0)
    with told([answer("TransactionConflictException")]) as (client, asked):
        store = DynamoStatusStore("status", client)
        with pytest.raises(StatusUnavailableError, match="other writers"):
            store.finish("i", RUN, 7)
    assert len(asked) > 10


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL_DYNAMODB", "no url"), ("AWS_PROFILE", "nobody")]
)
def test_settings_that_boto3_cannot_use_are_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(name, value)
    store = DynamoStatusStore("status")  # no client and nothing read before the first call
    with pytest.raises(ConfigurationError, match="status"):
        store.read("i")


def test_the_client_is_made_at_the_first_call_from_the_usual_settings(
    dynamodb_local: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DynamoStatusStore(dynamodb_local.create_table())
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    store.begin("i", LIVE, NOW)

    assert store.read("i") == LIVE
    assert store._known_client is not None
    store._known_client.close()
