"""What only a real server and a real network can show about `PgwireDatabase`."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from questdb_backup.clock import add_seconds, format_timestamp
from questdb_backup.errors import DatabaseRejectedError, DatabaseUnavailableError, PreflightError
from questdb_backup.questdb.base import CreateOutcome, Fence
from questdb_backup.questdb.pgwire import PgwireDatabase
from questdb_backup.source.fresh import refuse_other_root
from tests.integration.conftest import NewServer
from tests.support.questdb_server import QuestDBServer, free_port
from tests.support.tcp_proxy import Rule, TcpProxy, Trouble

pytestmark = pytest.mark.integration

CREATE = b"CHECKPOINT CREATE"
RELEASE = b"CHECKPOINT RELEASE"


@pytest.fixture
def proxy(questdb: QuestDBServer) -> Iterator[TcpProxy]:
    with TcpProxy(questdb.port) as proxy:
        yield proxy


@pytest.fixture
def database(questdb: QuestDBServer, proxy: TcpProxy) -> PgwireDatabase:
    return PgwireDatabase(questdb.dsn.replace(f"port={questdb.port}", f"port={proxy.port}"))


def intent(database: PgwireDatabase, window_seconds: float = 20.0) -> Fence:
    return Fence(db_now=database.read().now, window_seconds=window_seconds)


def known(fence: Fence, created: CreateOutcome) -> Fence:
    return Fence(db_now=fence.db_now, window_seconds=fence.window_seconds, started_at=created.started_at)


def status(server: QuestDBServer) -> tuple[object, ...]:
    return server.execute("select in_progress, started_at from checkpoint_status()")[0]


@pytest.mark.parametrize("version", ["8.1.4", "9.1.0"])
def test_older_servers_answer_every_call(new_server: NewServer, version: str) -> None:
    server = new_server(version)
    database = PgwireDatabase(server.dsn)
    state = database.read()
    assert (state.version, state.root, state.data_id) == (version, str(server.root), None)
    refuse_other_root(server.root, state.root)
    with pytest.raises(PreflightError, match=f"it serves {server.root}"):
        refuse_other_root(server.root.parent, state.root)
    fence = intent(database)
    created = database.create_checkpoint(fence)
    assert created.outcome == "created"
    assert database.create_checkpoint(fence).outcome == "held"
    assert database.release_checkpoint(known(fence, created), timeout_seconds=10).outcome == "released"
    assert not database.read().checkpoint.in_progress


def test_a_server_without_checkpoint_status_still_gives_its_version(
    database: PgwireDatabase, proxy: TcpProxy
) -> None:
    proxy.add(Rule(b"checkpoint_status()", Trouble.REPLACE, replacement=b"checkpoint_statuz()"))
    state = database.read()
    assert (state.version, state.checkpoint.in_progress) == ("9.3.4", False)


def test_a_server_that_does_not_tell_which_it_is_is_read_all_the_same(
    database: PgwireDatabase, proxy: TcpProxy
) -> None:
    proxy.add(Rule(b"current_data_id()", Trouble.REPLACE, replacement=b"currant_data_id()"))
    proxy.add(Rule(b"(show parameters)", Trouble.REPLACE, replacement=b"(shaw parameters)"))
    state = database.read()
    assert (state.version, state.data_id, state.root) == ("9.3.4", None, None)


def test_the_root_is_beside_an_absolute_folder_of_the_tables(new_server: NewServer, tmp_path: Path) -> None:
    away = tmp_path / "away" / "db"
    server = new_server("9.3.4", env={"QDB_CAIRO_ROOT": str(away)})
    assert PgwireDatabase(server.dsn).read().root == str(away.parent)


def test_a_server_that_is_not_questdb_is_rejected(database: PgwireDatabase, proxy: TcpProxy) -> None:
    proxy.add(Rule(b"build()", Trouble.REPLACE, replacement=b"'x' x  "))
    with pytest.raises(DatabaseRejectedError, match="names no version of QuestDB OSS"):
        database.read()


def test_a_statement_that_the_server_refuses_is_rejected(database: PgwireDatabase, proxy: TcpProxy) -> None:
    proxy.add(Rule(b"build()", Trouble.REPLACE, replacement=b"bulid()"))
    with pytest.raises(DatabaseRejectedError, match="unknown function name"):
        database.read()


def test_a_create_that_the_network_held_past_its_window_is_released_at_once(
    questdb: QuestDBServer, database: PgwireDatabase, proxy: TcpProxy
) -> None:
    fence = intent(database, 1.0)
    delayed = proxy.add(Rule(CREATE, Trouble.DELAY, seconds=1.3))
    outcome = database.create_checkpoint(fence)
    assert delayed.happened.is_set()
    assert outcome.outcome == "unknown"
    assert "not in its window" in str(outcome.error)
    assert status(questdb) == (False, None)


def test_a_create_whose_status_cannot_be_read_is_unknown_and_released_by_the_window(
    questdb: QuestDBServer, database: PgwireDatabase, proxy: TcpProxy
) -> None:
    fence = intent(database, 2.0)
    proxy.add(Rule(b"checkpoint_status", Trouble.CUT_BEFORE))
    assert database.create_checkpoint(fence).outcome == "unknown"
    assert status(questdb)[0] is True
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "released"
    assert status(questdb) == (False, None)


@pytest.mark.parametrize("trouble", [Trouble.CUT_BEFORE, Trouble.CUT_AFTER_ANSWER])
def test_a_release_whose_connection_is_lost_is_settled_on_another(
    questdb: QuestDBServer, database: PgwireDatabase, proxy: TcpProxy, trouble: Trouble
) -> None:
    fence = intent(database)
    created = database.create_checkpoint(fence)
    lost = proxy.add(Rule(RELEASE, trouble))
    released = database.release_checkpoint(known(fence, created), timeout_seconds=20)
    assert lost.happened.is_set()
    assert (released.outcome, released.started_at) == ("released", created.started_at)
    assert status(questdb) == (False, None)


def test_a_foreign_checkpoint_is_the_same_before_and_after_every_release(
    questdb: QuestDBServer, database: PgwireDatabase
) -> None:
    questdb.execute("checkpoint create")
    before = status(questdb)
    now = database.read().now
    fences = [
        Fence(db_now=now, window_seconds=0.4),
        Fence(db_now=add_seconds(now, -3600), window_seconds=30.0),
        Fence(db_now=add_seconds(now, -60), window_seconds=600.0, started_at=now),
    ]
    for fence in fences:
        outcome = database.release_checkpoint(fence, timeout_seconds=10)
        assert outcome.outcome == "foreign"
        assert outcome.started_at == format_timestamp(before[1])  # type: ignore[arg-type]
    assert status(questdb) == before
    questdb.execute("checkpoint release")


def test_a_server_that_is_killed_while_create_runs_leaves_an_unknown_outcome_and_no_checkpoint(
    new_server: NewServer,
) -> None:
    server = new_server()
    for number in range(300):
        server.execute(f"create table t{number} (x int)")
    database = PgwireDatabase(server.dsn)
    fence = intent(database, 3.0)
    outcomes: list[CreateOutcome] = []
    create = threading.Thread(target=lambda: outcomes.append(database.create_checkpoint(fence)))
    create.start()
    while not database.read().checkpoint.in_progress:
        assert create.is_alive()
    server.kill()
    create.join()
    assert outcomes[0].outcome == "unknown"
    server.start()
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "free"


def test_a_server_that_hangs_is_cut_off_when_the_statement_timeout_has_passed(new_server: NewServer) -> None:
    server = new_server()
    with TcpProxy(server.port) as proxy:
        dsn = server.dsn.replace(f"port={server.port}", f"port={proxy.port}")
        database = PgwireDatabase(dsn, statement_timeout_seconds=0.5)
        fence = intent(database, 3.0)
        proxy.add(Rule(CREATE, Trouble.DELAY, seconds=1.5))
        assert database.create_checkpoint(fence).outcome == "unknown"
        assert database.release_checkpoint(fence, timeout_seconds=20).outcome in ("released", "free")
        assert status(server) == (False, None)


def test_a_frozen_server_does_not_hold_a_release_beyond_its_timeout(new_server: NewServer) -> None:
    server = new_server()
    database = PgwireDatabase(server.dsn, connect_timeout_seconds=2)
    fence = Fence(db_now=database.read().now, window_seconds=1.0)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DatabaseUnavailableError):
            database.release_checkpoint(fence, timeout_seconds=1.0)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "free"


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ("password=wrong", DatabaseRejectedError),
        ("user=nobody", DatabaseRejectedError),
        ("sslmode=require", DatabaseRejectedError),
        ("sslmode=nonsense", DatabaseRejectedError),
        ("connect_timeout=soon", DatabaseRejectedError),
        pytest.param(f"port={free_port()}", DatabaseUnavailableError, id="no-server"),
        ("host=no.such.host.invalid", DatabaseUnavailableError),
    ],
)
def test_a_connection_that_fails_is_told_apart_and_shows_no_password(
    questdb: QuestDBServer, extra: str, error: type[Exception]
) -> None:
    dsn = questdb.dsn.replace("password=quest", "password=s3cret") + " " + extra
    if "password" not in extra and error is DatabaseRejectedError:
        dsn = questdb.dsn + " " + extra
    with pytest.raises(error) as caught:
        PgwireDatabase(dsn).read()
    assert "s3cret" not in str(caught.value)
    assert "password=" not in str(caught.value)
    assert "Hint:" in str(caught.value)


def test_the_connection_string_is_asked_for_anew_by_every_call(questdb: QuestDBServer) -> None:
    given: list[str] = []

    def conninfo() -> str:
        given.append(questdb.dsn)
        return questdb.dsn

    database = PgwireDatabase(conninfo)
    database.read()
    database.read()
    assert len(given) == 2
