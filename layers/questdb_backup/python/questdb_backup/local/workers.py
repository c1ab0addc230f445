"""Worker processes: several store the units of a large plan, so that no interpreter lock is in the way.

Each is a child that stores whole units with the handler that the engine would have called, so all state stays
where it was: in the store and in the live status. It reads what it is asked for from a pipe and dies when
that pipe ends, so it does not outlive this process, however that dies. What there is one of, it asks this
process for: leave to read of the throttle, and a line in the log.

This is the run's side; `worker_process` is what a child runs.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from questdb_backup.engine.errors import StateError
from questdb_backup.errors import PermanentError
from questdb_backup.gentle.base import NoThrottle
from questdb_backup.local.options import MOST_WORKERS, Place
from questdb_backup.services import logger

LEAST_BYTES = 1 << 30
"""To read; a child takes a fifth of a second to start, which less would not bring in."""
LEAST_UNITS = 2
STORES = "UploadPartitions"
_PLANS = "PlanBackup"
_TUNABLES = "GLIBC_TUNABLES"
"""Asks the kernel for large pages where it gives them: a third of the page faults is left."""
_DIED = "Lambda.Unknown"
"""What Step Functions gets of a function that ended without an answer: the state machine tries again."""

Task = Callable[[dict[str, Any]], object]


class Workers:
    """Context manager of a run. When the block is left, no child is there any more."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._threads = place.settings.compression_threads
        self._lock = threading.Lock()
        self._all: list[_Child] = []
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._left = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all children, whatever they do; none is started any more."""
        with self._lock:
            self._closed = True
        self._end()

    def around(self, tasks: dict[str, Task]) -> dict[str, Task]:
        """The tasks, with the one that stores a unit done by children after a plan that is worth it."""
        plan, store = tasks[_PLANS], tasks[STORES]

        def planned(event: dict[str, Any]) -> object:
            made = plan(event)
            self._prepare(made)
            return made

        return {
            **tasks,
            _PLANS: planned,
            STORES: lambda event: self._call(event) if self._left else store(event),
        }

    def _prepare(self, plan: Any) -> None:
        """Start children where the plan is worth it, fewer than it has units."""
        count = min(self._threads, MOST_WORKERS, plan["units"])
        if count < LEAST_UNITS or plan["bytes"] < LEAST_BYTES:
            return
        self._end()
        self._left = plan["units"]
        for _ in range(count):
            self._idle.put(self._start(self._threads // count))

    def _call(self, event: dict[str, Any]) -> object:
        child = self._idle.get()
        if not child.is_alive:
            with self._lock, suppress(ValueError):
                self._all.remove(child)
            child.end()
            child = self._start(1)
        try:
            result = child.call(event)
        except BaseException:
            self._idle.put(child)
            raise
        self._after(child)
        return result

    def _after(self, child: "_Child") -> None:
        """A unit is stored. Who works on the last one gets all threads."""
        with self._lock:
            self._left -= 1
            left, others = self._left, [other for other in self._all if other is not child]
        if left == 0:
            self._end()
        elif left < len(self._all):
            for other in others:
                other.send({"threads": self._threads // left})
            self._idle.put(child)
        else:
            self._idle.put(child)

    def _start(self, threads: int) -> "_Child":
        child = _Child(self._place, threads)
        with self._lock:
            self._all.append(child)
            closed = self._closed
        if closed:
            child.end()
        return child

    def _end(self) -> None:
        with self._lock:
            ending, self._all = self._all, []
        for child in ending:
            child.end()
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait()


class _Child:
    """One process, and the pipes to it; it does one thing at a time."""

    def __init__(self, place: Place, threads: int) -> None:
        from subprocess import PIPE, Popen  # most runs need none

        self._throttle = place.services.throttle
        # A group of its own: Ctrl-C at the terminal is for the run, which ends its children in good order.
        self._process = Popen(
            [sys.executable, "-m", "questdb_backup.local.worker_process"],
            stdin=PIPE,
            stdout=PIPE,
            process_group=0,
            env={_TUNABLES: "glibc.malloc.hugetlb=1", **os.environ},
        )
        self._lock = threading.Lock()
        self.send(
            {
                "options": asdict(place.options),
                "threads": threads,
                "asks": not isinstance(self._throttle, NoThrottle),
            }
        )

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked for anything."""
        return self._process.poll() is None

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something; nothing where it has died, which `call` sees."""
        assert self._process.stdin is not None, "it was given a pipe"
        with self._lock, suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def call(self, event: dict[str, Any]) -> object:
        """Have a unit stored. Raise StateError: what the handler raised, or that the child has died."""
        assert self._process.stdout is not None, "it was given a pipe"
        self.send({"call": event})
        for line in self._process.stdout:
            answer = json.loads(line)
            if "take" in answer:
                self.send({"waited": self._throttle.take(answer["take"])})
            elif "log" in answer:
                logger.log(answer["level"], "%s", answer["log"])
            elif "failed" in answer:
                raise StateError(*answer["failed"])
            else:
                return answer["done"]
        raise _death(self._process.wait())

    def end(self) -> None:
        """Kill it: what it leaves is what a killed run leaves."""
        self._process.kill()
        self._process.wait()
        with self._lock:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None, "it was given pipes"
                with suppress(OSError):  # what stands in the pipe is for nobody
                    pipe.close()


def _death(code: int) -> StateError:
    error = PermanentError(
        f"a worker process of the backup ended with code {code}",
        "a negative code is a signal's number: 9 is often the kernel's, where memory is short",
    )
    return StateError(_DIED, json.dumps({"errorMessage": str(error)}))
