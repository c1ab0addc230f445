"""What a worker process runs: it stores the units that it is told to, see `workers`.

Lines of JSON come on its stdin and go out on what was its stdout. It ends with its stdin.
"""

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from questdb_backup.engine.errors import lambda_error
from questdb_backup.local.bundle import LocalContext, load_handler
from questdb_backup.local.memory import set_up_memory
from questdb_backup.local.options import Options, Place
from questdb_backup.local.workers import STORES


def main() -> None:
    """Entry point of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the run decides, and ends this process
    set_up_memory()
    _Worker().run()


class _Worker:
    """One run's child: a thread reads what it is told, the first one works."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._waited: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._hello = json.loads(sys.stdin.readline())
        self._pool = InlineOrThreads(self._hello["threads"])

    def run(self) -> None:
        """Work until there is nobody any more to work for."""
        logging.getLogger("questdb_backup").addHandler(_Lines(self._send))
        threading.Thread(target=self._listen, daemon=True).start()
        services = Place(Options(**self._hello["options"]), os.environ).services
        services.make_codec_pool = lambda _threads: self._pool
        services.make_throttle = lambda: RemoteThrottle(self._ask if self._hello["asks"] else None)
        context = LocalContext(services, STORES)
        handler = load_handler(STORES)
        _load_codecs()
        while True:
            event = self._events.get()
            try:
                answer = {"done": handler(event, context)}
            except Exception as error:
                failure = lambda_error(error)
                answer = {"failed": [failure.name, failure.cause]}
            self._send(answer)

    def _listen(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "call" in message:
                self._events.put(message["call"])
            elif "waited" in message:
                self._waited.put(message["waited"])
            else:
                self._pool.threads = message["threads"]
        os._exit(0)  # whoever asked has gone: nothing of what is under way is wanted

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(message).encode() + b"\n")
            self._out.flush()

    def _ask(self, nbytes: int) -> float:
        self._send({"take": nbytes})
        return self._waited.get()


class InlineOrThreads(Executor):
    """With one thread the work is done at once, by who submits it: nothing is handed over."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """As Executor says."""
        if self.threads > 1:
            self._pool = self._pool or ThreadPoolExecutor(self.threads, thread_name_prefix="codec")
            return self._pool.submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As Executor says."""
        if self._pool is not None:
            self._pool.shutdown(wait, cancel_futures=cancel_futures)


class RemoteThrottle:
    """The run's throttle, asked through the pipe: one limit holds for all workers together."""

    _AT_ONCE = 1 << 20
    """Leave for many small reads is asked for in one go."""

    def __init__(self, ask: Callable[[int], float] | None) -> None:
        self._ask = ask
        self._leave = 0
        self._waited = 0.0

    def take(self, nbytes: int) -> float:
        """As Throttle says; for one thread."""
        self._leave -= nbytes
        if self._ask is None or self._leave >= 0:
            return 0.0
        asked = max(self._AT_ONCE, -self._leave)
        waited = self._ask(asked)
        self._leave += asked
        self._waited += waited
        return waited

    @property
    def throttled_seconds(self) -> float:
        """As Throttle says, of this process."""
        return self._waited

    @property
    def held_down(self) -> str | None:
        """The run's own throttle tells."""
        return None


class _Lines(logging.Handler):
    """What is logged here is told by the run, as its own."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send_line = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._send_line({"level": record.levelno, "log": self.format(record)})


def _load_codecs() -> None:
    """While the first unit is on its way, not when its first chunk is there."""
    import numpy  # noqa: F401
    from pcodec import wrapped  # noqa: F401


if __name__ == "__main__":
    main()
