"""The loop of the schedule, under a clock that only its own sleep moves."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from questdb_backup.errors import StoreUnavailableError
from questdb_backup.local.serve import GUARD_SECONDS, Server
from questdb_backup.schedule import Schedule

START = datetime(2024, 8, 24, 23, 58, tzinfo=UTC)
MIDNIGHT = "2024-08-25T00:00:00.000000Z"


class World:
    """A machine: its time, what was started on it and when. It is stopped after a while."""

    def __init__(self) -> None:
        self.now = START
        self.stop = threading.Event()
        self.until = START
        self.started: list[tuple[datetime, dict[str, Any]]] = []
        self.guarded: list[datetime] = []
        self.jumps: dict[datetime, timedelta] = {}
        self.backup: Callable[[], None] = lambda: None
        self.guard: Callable[[], None] = lambda: None

    def back_up(self, request: dict[str, Any]) -> dict[str, Any]:
        self.started.append((self.now, request))
        self.backup()
        return {"backup_timestamp": request["scheduled_time"]}

    def look_after(self) -> None:
        self.guarded.append(self.now)
        self.guard()

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds) + self.jumps.pop(self.now, timedelta(0))
        if self.now >= self.until:
            self.stop.set()

    def serve(
        self, minutes: float, cron: str = "0 0 * * *", *, tz: str = "UTC", enabled: bool = True
    ) -> None:
        self.until = self.now + timedelta(minutes=minutes)
        Server(
            Schedule(cron=cron, tz=tz),
            enabled=enabled,
            back_up=self.back_up,
            guard=self.look_after,
            stop=self.stop,
            clock=lambda: self.now,
            monotonic=lambda: (self.now - START).total_seconds(),
            sleep=self.sleep,
        ).run()

    @property
    def due(self) -> list[str]:
        return [request["scheduled_time"] for _, request in self.started]


@pytest.fixture
def world() -> World:
    return World()


def test_a_due_time_starts_one_backup_as_a_scheduled_one(world: World) -> None:
    world.serve(minutes=30)

    ((when, request),) = world.started
    assert when == START + timedelta(minutes=2)
    assert request == {"trigger": "schedule", "scheduled_time": MIDNIGHT}


def test_the_schedule_keeps_its_time_zone(world: World) -> None:
    world.serve(minutes=30, cron="0 2 * * *", tz="Europe/Berlin")

    assert world.due == [MIDNIGHT]


def test_every_due_time_starts_a_backup(world: World) -> None:
    world.serve(minutes=10, cron="*/2 * * * *")

    assert len(world.started) == 4
    assert len(set(world.due)) == 4


@pytest.mark.parametrize("error", [StoreUnavailableError("the disk is gone"), OSError("not foreseen")])
def test_a_failure_is_told_and_does_not_end_it(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> None:
        raise error

    world.backup = world.guard = fail
    world.serve(minutes=11, cron="*/5 * * * *")

    assert len(world.started) == 2
    assert len(world.guarded) == 3
    assert str(error) in caplog.text


def test_an_interrupt_ends_it(world: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    world.backup = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.serve(minutes=30)


def test_a_stop_during_a_backup_ends_it_after_that_one(world: World) -> None:
    world.backup = world.stop.set
    world.serve(minutes=30, cron="* * * * *")

    assert len(world.started) == 1


def test_disabled_it_starts_no_backup_and_goes_on_guarding(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.serve(minutes=11, enabled=False)

    assert world.started == []
    assert len(world.guarded) == 3
    assert f"the backup due at {MIDNIGHT} is left out" in caplog.text


def test_the_guard_runs_at_once_and_every_five_minutes(world: World) -> None:
    world.serve(minutes=11)

    assert world.guarded == [START + timedelta(seconds=GUARD_SECONDS * count) for count in range(3)]
    assert GUARD_SECONDS == 300


def test_runs_that_were_missed_before_the_start_are_not_made_up_for(world: World) -> None:
    world.now += timedelta(minutes=3)
    world.serve(minutes=30)

    assert world.started == []


def test_runs_that_pass_during_a_backup_are_not_made_up_for(world: World) -> None:
    def take_five_minutes() -> None:
        world.now += timedelta(minutes=5, seconds=30)

    world.backup = take_five_minutes
    world.serve(minutes=9, cron="* * * * *")

    assert world.due == ["2024-08-24T23:59:00.000000Z", "2024-08-25T00:05:00.000000Z"]


def test_runs_that_pass_while_the_machine_sleeps_count_as_one(world: World) -> None:
    world.jumps[START + timedelta(seconds=10)] = timedelta(days=3)
    world.serve(minutes=3 * 24 * 60 + 5)

    assert world.due == [MIDNIGHT, "2024-08-28T00:00:00.000000Z"]


def test_a_complete_backup_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        world.serve(minutes=3)

    assert f"backup {MIDNIGHT} is complete" in caplog.text
