"""One suite for both kinds of `Database`: the server over pgwire, and its twin in memory."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from questdb_backup.clock import add_seconds, format_timestamp
from questdb_backup.errors import CheckpointBusyError, DatabaseRejectedError, DatabaseUnavailableError
from questdb_backup.instances import read_data_id
from questdb_backup.questdb.base import Checkpoint, CreateOutcome, Database, Fence
from questdb_backup.questdb.memory import ConnectionLost, InMemoryQuestDB
from questdb_backup.questdb.pgwire import PgwireDatabase
from tests.support.questdb_server import QuestDBServer
from tests.support.tcp_proxy import Rule, TcpProxy, Trouble

CREATE = b"CHECKPOINT CREATE"
MANY_TABLES = 400


class Server(Protocol):
    """The same troubles for both kinds; what these methods do passes the client by."""

    database: Database
    root: Path

    def hold_foreign(self) -> str: ...
    def release_foreign(self) -> None: ...
    def lose_create(self, *, after_effect: bool) -> None: ...
    def create_later(self, fence: Fence, seconds: float) -> CreateOutcome: ...
    def slow_create(self) -> AbstractContextManager[None]: ...
    def restart(self) -> None: ...
    def down(self) -> AbstractContextManager[None]: ...
    def with_wrong_password(self) -> Database: ...


class RealServer:
    def __init__(self, server: QuestDBServer, proxy: TcpProxy) -> None:
        self._server = server
        self._proxy = proxy
        dsn = server.dsn.replace(f"port={server.port}", f"port={proxy.port}")
        self.database: Database = PgwireDatabase(dsn)
        self._dsn = dsn
        self.root = server.root

    def hold_foreign(self) -> str:
        self._server.execute("checkpoint create")
        return format_timestamp(self._server.execute("select started_at from checkpoint_status()")[0][0])

    def release_foreign(self) -> None:
        self._server.execute("checkpoint release")

    def lose_create(self, *, after_effect: bool) -> None:
        self._proxy.add(Rule(CREATE, Trouble.CUT_AFTER_ANSWER if after_effect else Trouble.CUT_BEFORE))

    def create_later(self, fence: Fence, seconds: float) -> CreateOutcome:
        self._proxy.add(Rule(CREATE, Trouble.FORWARD_LATER, seconds))
        return self.database.create_checkpoint(fence)

    @contextmanager
    def slow_create(self) -> Iterator[None]:
        """A checkpoint of many tables takes about half a second."""
        for number in range(MANY_TABLES):
            self._server.execute(f"create table if not exists slow_{number} (x int)")
        yield

    def restart(self) -> None:
        self._server.kill()
        self._server.start()

    @contextmanager
    def down(self) -> Iterator[None]:
        self._server.kill()
        try:
            yield
        finally:
            self._server.start()

    def with_wrong_password(self) -> Database:
        return PgwireDatabase(self._dsn.replace("password=quest", "password=wrong"))


class MemoryServer:
    def __init__(self, root: Path) -> None:
        self._twin = InMemoryQuestDB()
        self.database: Database = self._twin
        self.root = root
        (root / "db").mkdir()
        (root / "db" / ".data_id").write_bytes(bytes(range(16)))
        self._twin.root, self._twin.data_id = str(root), bytes(range(16)).hex()

    def hold_foreign(self) -> str:
        return self._twin.hold_foreign()

    def release_foreign(self) -> None:
        self._twin.release_foreign()

    def lose_create(self, *, after_effect: bool) -> None:
        def lose() -> None:
            self._twin.before_create = self._twin.during_create = lambda: None
            raise ConnectionLost

        if after_effect:
            self._twin.during_create = lose
        else:
            self._twin.before_create = lose

    def create_later(self, fence: Fence, seconds: float) -> CreateOutcome:
        self.lose_create(after_effect=False)
        outcome = self.database.create_checkpoint(fence)
        self._twin.create_later(seconds)
        return outcome

    @contextmanager
    def slow_create(self) -> Iterator[None]:
        self._twin.during_create = lambda: time.sleep(0.5)
        yield
        self._twin.during_create = lambda: None

    def restart(self) -> None:
        self._twin.restart()

    @contextmanager
    def down(self) -> Iterator[None]:
        self._twin.restart()
        self._twin.is_down = True
        yield
        self._twin.is_down = False

    def with_wrong_password(self) -> Database:
        twin = InMemoryQuestDB()
        twin.refuse_login = True
        return twin


@pytest.fixture(scope="module", params=["memory", pytest.param("questdb", marks=pytest.mark.integration)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "memory":
        yield MemoryServer(tmp_path_factory.mktemp("memory"))
        return
    with ExitStack() as stack:
        server = stack.enter_context(QuestDBServer(tmp_path_factory.mktemp("contract") / "root"))
        yield RealServer(server, stack.enter_context(TcpProxy(server.port)))


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    yield shared
    if shared.database.read().checkpoint.in_progress:
        shared.release_foreign()
        pytest.fail("the test left a checkpoint")


@pytest.fixture
def database(server: Server) -> Database:
    return server.database


def intent(database: Database, window_seconds: float = 20.0, *, ago: float = 0.0) -> Fence:
    return Fence(db_now=add_seconds(database.read().now, -ago), window_seconds=window_seconds)


def known(fence: Fence, started_at: str | None) -> Fence:
    return Fence(db_now=fence.db_now, window_seconds=fence.window_seconds, started_at=started_at)


def held(database: Database) -> str | None:
    checkpoint = database.read().checkpoint
    assert checkpoint.in_progress is (checkpoint.started_at is not None)
    return checkpoint.started_at


def test_a_free_server_has_a_clock_a_version_and_no_checkpoint(database: Database) -> None:
    state = database.read()
    assert state.version == "9.3.4"
    assert state.checkpoint == Checkpoint(in_progress=False, started_at=None)
    assert len(state.now) == len("2024-08-24T12:34:56.789123Z")
    assert state.now.endswith("Z")


def test_a_server_tells_its_root_and_its_data_id(server: Server) -> None:
    state = server.database.read()
    assert state.root == str(server.root)
    assert state.data_id == read_data_id(server.root)
    assert len(str(state.data_id)) == 32


def test_a_checkpoint_is_created_in_the_window_and_released_by_its_start(database: Database) -> None:
    fence = intent(database)
    created = database.create_checkpoint(fence)
    assert created.outcome == "created"
    assert held(database) == created.started_at
    assert fence.owns(created.started_at)
    released = database.release_checkpoint(known(fence, created.started_at), timeout_seconds=10)
    assert (released.outcome, released.started_at) == ("released", created.started_at)
    assert released.held_seconds is not None
    assert 0 <= released.held_seconds < 60
    assert held(database) is None


def test_a_second_release_finds_the_server_free(database: Database) -> None:
    fence = intent(database)
    fence = known(fence, database.create_checkpoint(fence).started_at)
    database.release_checkpoint(fence, timeout_seconds=10)
    assert database.release_checkpoint(fence, timeout_seconds=10).outcome == "free"


@pytest.mark.parametrize("ago", [14.0, 60.0, -10.0])
def test_create_is_not_sent_in_the_last_third_of_the_window_nor_before_its_intent(
    database: Database, ago: float
) -> None:
    assert database.create_checkpoint(intent(database, 20.0, ago=ago)).outcome == "late"
    assert held(database) is None


def test_create_without_an_intent_is_a_mistake_of_the_caller(database: Database) -> None:
    with pytest.raises(ValueError, match="intent"):
        database.create_checkpoint(Fence())


def test_a_foreign_checkpoint_refuses_create_and_is_left_alone(server: Server, database: Database) -> None:
    foreign = server.hold_foreign()
    fence = intent(database, 0.5)
    outcome = database.create_checkpoint(fence)
    assert (outcome.outcome, outcome.started_at) == ("held", None)
    assert "Waiting for CHECKPOINT RELEASE to be called" in str(outcome.error)
    released = database.release_checkpoint(fence, timeout_seconds=10)
    assert (released.outcome, released.started_at) == ("foreign", foreign)
    assert held(database) == foreign
    server.release_foreign()


def test_a_checkpoint_with_another_start_than_ours_is_foreign_at_once(
    server: Server, database: Database
) -> None:
    fence = intent(database)
    created = database.create_checkpoint(fence).started_at
    server.release_foreign()
    foreign = server.hold_foreign()
    assert foreign != created
    assert database.release_checkpoint(known(fence, created), timeout_seconds=0).outcome == "foreign"
    assert held(database) == foreign
    server.release_foreign()


def test_a_foreign_release_leaves_ours_free(server: Server, database: Database) -> None:
    fence = intent(database)
    fence = known(fence, database.create_checkpoint(fence).started_at)
    server.release_foreign()
    assert database.release_checkpoint(fence, timeout_seconds=0).outcome == "free"


def test_without_an_intent_nothing_is_ours_and_the_server_is_not_asked(server: Server) -> None:
    stranger = server.with_wrong_password()
    assert stranger.release_checkpoint(Fence(), timeout_seconds=0).outcome == "free"


def test_an_open_window_is_waited_for_before_the_server_is_called_free(database: Database) -> None:
    fence = intent(database, 0.8)
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "free"
    assert database.read().now > str(fence.window_end)


def test_a_window_that_outlasts_the_timeout_is_busy(database: Database) -> None:
    with pytest.raises(CheckpointBusyError, match="no checkpoint"):
        database.release_checkpoint(intent(database, 60.0), timeout_seconds=0.3)


def test_a_create_whose_answer_was_lost_is_released_by_the_window(server: Server, database: Database) -> None:
    fence = intent(database, 2.0)
    server.lose_create(after_effect=True)
    outcome = database.create_checkpoint(fence)
    assert (outcome.outcome, outcome.started_at) == ("unknown", None)
    ours = held(database)
    assert fence.owns(ours)
    released = database.release_checkpoint(fence, timeout_seconds=20)
    assert (released.outcome, released.started_at) == ("released", ours)
    assert held(database) is None


def test_a_create_that_never_arrived_leaves_the_server_free(server: Server, database: Database) -> None:
    fence = intent(database, 1.0)
    server.lose_create(after_effect=False)
    assert database.create_checkpoint(fence).outcome == "unknown"
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "free"
    assert held(database) is None


def test_a_create_that_arrives_after_its_connection_was_lost_is_awaited_and_released(
    server: Server, database: Database
) -> None:
    fence = intent(database, 5.0)
    assert server.create_later(fence, 2.0).outcome == "unknown"
    assert held(database) is None
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "released"
    assert held(database) is None


def test_a_foreign_checkpoint_that_leaves_in_time_still_lets_ours_through(
    server: Server, database: Database
) -> None:
    server.hold_foreign()
    fence = intent(database, 5.0)
    releases = threading.Timer(0.5, server.release_foreign)
    releases.start()
    assert server.create_later(fence, 2.5).outcome == "unknown"
    assert database.release_checkpoint(fence, timeout_seconds=20).outcome == "released"
    releases.join()
    assert held(database) is None


def test_release_is_tried_again_while_create_runs(server: Server, database: Database) -> None:
    with server.slow_create():
        fence = intent(database, 4.0)
        outcomes: list[CreateOutcome] = []
        create = threading.Thread(target=lambda: outcomes.append(database.create_checkpoint(fence)))
        create.start()
        wait_until(lambda: held(database) is not None)
        assert create.is_alive()  # CREATE runs, so RELEASE is answered as busy
        assert database.release_checkpoint(fence, timeout_seconds=30).outcome == "released"
        create.join()
    assert outcomes[0].outcome in ("created", "unknown")
    assert held(database) is None


def test_a_create_during_another_create_is_refused(server: Server, database: Database) -> None:
    with server.slow_create():
        fence = intent(database)
        foreign = threading.Thread(target=server.hold_foreign)
        foreign.start()
        wait_until(lambda: held(database) is not None)
        outcome = database.create_checkpoint(fence)
        foreign.join()
    assert (outcome.outcome, outcome.error) == ("refused", "Another checkpoint command is in progress")
    server.release_foreign()


def test_a_restart_drops_the_checkpoint(server: Server, database: Database) -> None:
    fence = intent(database)
    fence = known(fence, database.create_checkpoint(fence).started_at)
    server.restart()
    assert held(database) is None
    assert database.release_checkpoint(fence, timeout_seconds=10).outcome == "free"


def test_a_server_that_is_down_is_unavailable_to_every_call(server: Server, database: Database) -> None:
    fence = intent(database)
    with server.down():
        calls: list[Callable[[], object]] = [
            database.read,
            lambda: database.create_checkpoint(fence),
            lambda: database.release_checkpoint(fence, timeout_seconds=0.3),
        ]
        for call in calls:
            with pytest.raises(DatabaseUnavailableError):
                call()


def test_a_release_waits_for_a_server_that_comes_back(server: Server, database: Database) -> None:
    fence = intent(database, 1.0)
    fence = known(fence, database.create_checkpoint(fence).started_at)
    results: list[str] = []
    release = threading.Thread(
        target=lambda: results.append(database.release_checkpoint(fence, timeout_seconds=60).outcome)
    )
    with server.down():
        release.start()
    release.join()
    assert results == ["free"]


def test_a_wrong_password_is_rejected_by_every_call(server: Server, database: Database) -> None:
    stranger, fence = server.with_wrong_password(), intent(database)
    calls: list[Callable[[], object]] = [
        stranger.read,
        lambda: stranger.create_checkpoint(fence),
        lambda: stranger.release_checkpoint(fence, timeout_seconds=10),
    ]
    for call in calls:
        with pytest.raises(DatabaseRejectedError, match="invalid username/password"):
            call()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it never came to be")
