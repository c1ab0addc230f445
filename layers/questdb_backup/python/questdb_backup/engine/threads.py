"""Daemon threads, made when they are needed and kept for the next job.

No fixed size: a Map inside a Map cannot wait for a thread that its own parent holds. Daemons, so a handler
that outlived its task's timeout or its execution does not keep the process alive; `concurrent.futures`
would join it at exit. What such a handler may leave is what a killed process leaves.
"""

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Threads:
    """Runs each job at once on a thread of its own, an idle one first. A job must not raise."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle = 0
        self._closed = False
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def start(self, job: Job) -> None:
        """Start a job. Raise RuntimeError where the system gives no more threads."""
        with self._lock:
            reuse = self._idle > 0
            self._idle -= 1 if reuse else 0
        if reuse:
            self._jobs.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()

    def close(self) -> None:
        """Let the idle threads end, and the busy ones after their job."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._jobs.put(None)

    def _work(self, job: Job | None) -> None:
        while job is not None:
            job()
            with self._lock:
                if self._closed:
                    return
                self._idle += 1
            job = self._jobs.get()
