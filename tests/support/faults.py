"""Faults at numbered outbound calls: every call of store, status and database passes a gate."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from questdb_backup.errors import PermanentError
from questdb_backup.local.options import Place
from questdb_backup.services import Services


class InjectedError(PermanentError):
    """What a gate raises in the mode ``error``."""


@dataclass
class Gate:
    """Counts the calls; acts at call ``at`` (from 0), ``before`` or ``after`` its effect."""

    at: int = -1
    when: str = "before"
    act: Callable[[str], None] = lambda _name: None
    calls: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_through(self, name: str, call: Callable[[], Any]) -> Any:
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
        if number == self.at and self.when == "before":
            self.act(name)
        result = call()
        if number == self.at and self.when == "after":
            self.act(name)
        return result


def raise_injected(name: str) -> None:
    raise InjectedError(f"injected at {name}")


def kill_self(_name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Faulty:
    """A proxy whose methods pass the gate."""

    def __init__(self, inner: object, name: str, gate: Gate) -> None:
        self._inner = inner
        self._name = name
        self._gate = gate

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        if not callable(value):
            return value
        label = f"{self._name}.{attribute}"
        return lambda *args, **kwargs: self._gate.pass_through(label, lambda: value(*args, **kwargs))


class FaultyPlace(Place):
    """A place whose workflow sees faulty adapters; the guard and the watchdog see sound ones."""

    def arm(self, gate: Gate) -> "FaultyPlace":
        self.gate = gate
        return self

    @cached_property
    def faulty_services(self) -> Services:
        sound = self.services

        def make(name: str, inner: Callable[[], object]) -> Callable[[], Any]:
            return lambda: Faulty(inner(), name, self.gate)

        return Services(
            config=sound.config,
            make_store=make("store", lambda: sound.store),
            make_status=make("status", lambda: sound.status),
            make_database=make("database", lambda: sound.database),
            make_source=sound.make_source,
        )
