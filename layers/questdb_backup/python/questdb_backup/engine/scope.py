"""The life of an execution: whether it may go on, and the place where its thread waits.

A tree: an execution, its Map runs, their child executions. An end goes down the tree and wakes every
waiter; it stops no handler. A condition's lock is re-entrant and taken from parent to child only, so a
signal handler may end a scope too.
"""

import threading
import time
from collections.abc import Callable
from enum import StrEnum


class Ending(StrEnum):
    """Why a scope goes on no more."""

    FINISHED = "FINISHED"
    ABORTED = "ABORTED"
    TIMED_OUT = "TIMED_OUT"


class ScopeEndedError(Exception):
    """The execution was stopped or timed out: no Retry and no Catch sees this."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        super().__init__(ending.value)


class Scope:
    """One node of the tree."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._condition = threading.Condition()
        self._ending: Ending | None = None
        self._children: set[Scope] = set()

    def set_deadline(self, moment: float) -> None:
        """Let the scope time out by itself at a moment of `time.monotonic`; set before anything waits."""
        self._deadline = moment

    def child(self) -> "Scope":
        """A scope that ends with this one; born ended where this one is."""
        scope = Scope()
        # Added before the look at the ending: an end in between is then seen by one of the two.
        self._children.add(scope)
        if self._ending is not None:
            scope.end(Ending.ABORTED)
        return scope

    def drop(self, scope: "Scope") -> None:
        """Forget a child that is done, after ending what it started."""
        scope.end(Ending.ABORTED)
        self._children.discard(scope)

    def end(self, ending: Ending) -> bool:
        """End this scope and all below it, and wake their waiters; False where it had ended already."""
        with self._condition:
            if self._ending is not None:
                return False
            self._ending = ending
            self._condition.notify_all()
        for scope in self._children.copy():
            scope.end(Ending.ABORTED)
        return True

    def finish(self) -> None:
        """End well. Raise ScopeEndedError where another end came first."""
        self.check()
        if not self.end(Ending.FINISHED):
            self.check()

    def check(self) -> None:
        """Raise ScopeEndedError where the scope has ended or its deadline has passed."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.end(Ending.TIMED_OUT)
        if self._ending is not None:
            raise ScopeEndedError(self._ending)

    def wake(self) -> None:
        """Let the waiter look again."""
        with self._condition:
            self._condition.notify_all()

    def wait(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `done` and return True, or False after so many seconds.

        Raise ScopeEndedError as soon as the scope ends. In the main thread a signal interrupts the wait.
        """
        limit = None if seconds is None else time.monotonic() + seconds
        with self._condition:
            while True:
                self.check()
                if done():
                    return True
                if limit is not None and time.monotonic() >= limit:
                    return False
                moments = [moment for moment in (limit, self._deadline) if moment is not None]
                rest = max(0.0, min(moments) - time.monotonic()) if moments else None
                self._condition.wait(None if rest is None else min(rest, threading.TIMEOUT_MAX))
