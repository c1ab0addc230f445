"""Calling task functions, each on a thread of its own: neither a timeout nor a stop ends a handler."""

import threading
from collections.abc import Callable
from typing import Any

from questdb_backup.engine.errors import TIMEOUT, StateError, lambda_error
from questdb_backup.engine.scope import Scope
from questdb_backup.engine.threads import Threads

Event = dict[str, Any]

TaskFunction = Callable[[Event], object]
"""A handler: gets the event (its own copy), gives a JSON value, raises exceptions."""


class _Call:
    def __init__(self, function: TaskFunction, event: Event) -> None:
        self.finished = False
        self.result: object = None
        self.error: BaseException | None = None
        self._function = function
        self._event = event

    def run(self) -> None:
        try:
            self.result = self._function(self._event)
        except BaseException as error:
            self.error = error
        self.finished = True


class Calls:
    """The handlers that run for one execution, also those that nobody waits for any more."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._condition = threading.Condition()
        self._running = 0

    @property
    def running(self) -> int:
        """How many handlers run now."""
        return self._running

    def call(
        self,
        scope: Scope,
        function: TaskFunction,
        event: Event,
        seconds: float | None,
    ) -> object:
        """Call a handler and wait for it, so many seconds at most.

        Raises:
            StateError: The handler raised, or ``States.Timeout``; after that the handler runs on.
            ScopeEndedError: The scope ended; the handler runs on.
            BaseException: What the handler raised that is no Exception: KeyboardInterrupt, SystemExit.
        """
        scope.check()
        call = _Call(function, event)
        self._start(call, scope)
        if not scope.wait(lambda: call.finished, seconds):
            raise StateError(TIMEOUT)
        if isinstance(call.error, Exception) and not isinstance(call.error, StateError):
            raise lambda_error(call.error) from call.error
        if call.error is not None:
            raise call.error
        return call.result

    def join(self, seconds: float | None) -> bool:
        """Wait until no handler runs; False where some still do after so many seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._running == 0, seconds)

    def _start(self, call: _Call, scope: Scope) -> None:
        def work() -> None:
            call.run()
            self._count(-1)
            scope.wake()

        self._count(1)
        try:
            self._threads.start(work)
        except BaseException:
            self._count(-1)
            raise

    def _count(self, change: int) -> None:
        with self._condition:
            self._running += change
            self._condition.notify_all()
