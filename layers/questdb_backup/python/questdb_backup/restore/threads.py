"""The threads that all units of a process share: some read large ranges, as many as there are cores decode.

Reading, BLAKE3, decompression and writing to a file leave the interpreter free, so two threads use two
cores. What is in memory is bounded for the process, however many units it works on: one range for each
reader, which keeps it until every part of it is done.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

RANGES_IN_MEMORY = 3
_AHEAD = 8
"""Small objects that are on their way at once: enough to hide what an answer takes from far away."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``read`` gives the bytes of a range, ``parts`` what is to be done with them, in any order."""

    read: Callable[[], bytes]
    parts: Callable[[bytes], Iterable[Callable[[], None]]]


class Threads:
    """Readers and decoders; use `shared_threads`."""

    def __init__(self) -> None:
        self._readers = ThreadPoolExecutor(RANGES_IN_MEMORY, thread_name_prefix="range")
        self._decoders = ThreadPoolExecutor(max(2, _cores()), thread_name_prefix="decode")
        self._ahead = ThreadPoolExecutor(_AHEAD, thread_name_prefix="ahead")

    def run(self, jobs: Iterable[Job]) -> None:
        """Do every job; raise the first error, when nothing of these jobs runs any more."""
        _finish([self._readers.submit(self._do, job) for job in jobs])

    def ahead(self, make: Callable[[T], R], things: Iterable[T]) -> Iterator[R]:
        """What is made of each thing, in order; the next few are being made meanwhile."""
        waiting: deque[Future[R]] = deque()
        try:
            for thing in things:
                waiting.append(self._ahead.submit(make, thing))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)

    def close(self) -> None:
        """Wait for the threads to end."""
        for pool in (self._ahead, self._readers, self._decoders):
            pool.shutdown()

    def _do(self, job: Job) -> None:
        data = job.read()
        _finish([self._decoders.submit(part) for part in job.parts(data)])


def _finish(waiting: list[Future[None]]) -> None:
    try:
        wait(waiting, return_when=FIRST_EXCEPTION)
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)
    for future in waiting:
        if not future.cancelled():
            future.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2


_lock = threading.Lock()
_users: list[Threads] = []


@contextmanager
def shared_threads() -> Iterator[Threads]:
    """The threads of this process: made for the first user, ended with the last one."""
    with _lock:
        threads = _users[-1] if _users else Threads()
        _users.append(threads)
    try:
        yield threads
    finally:
        with _lock:
            _users.pop()
            last = not _users
        if last:
            threads.close()
