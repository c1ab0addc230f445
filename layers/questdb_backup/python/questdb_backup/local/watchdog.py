"""The watchdog: a process of its own that sees a run die and runs the guard.

It reads its options from a pipe, then waits on it. A run that ends well says so; a run that is killed
closes the pipe with its death. The watchdog is in a session of its own, so that a signal to the run's
process group does not reach it, and no other process inherits the pipe.

This is the run's side of it, and what it does when the pipe ends; `watchdog_process` is what it runs.
"""

import io
import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Self

from questdb_backup.errors import BackupToolError, ConfigurationError
from questdb_backup.local.guarding import guard
from questdb_backup.local.options import Options, Place
from questdb_backup.local.watchdog_process import DONE
from questdb_backup.status.run_lock import is_held

if TYPE_CHECKING:
    from subprocess import Popen

_PAUSE_SECONDS = 0.5
_GIVE_UP_SECONDS = 900.0
_LATE_SECONDS = 1.0

logger = logging.getLogger("questdb_backup.watchdog")


class Watchdog:
    """Context manager of a run: starts the process, and tells it of the end.

    A run that holds a checkpoint never goes without. One of a frozen copy holds nothing of a server: there
    the process is started by `keep`, when the run has lasted so long that its lease would be missed.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: Popen[bytes] | None = None
        self._pipe: io.FileIO | None = None
        self._start_at = time.monotonic() + (_LATE_SECONDS if place.options.source == "frozen" else 0.0)
        self._takes_over = False

    def __enter__(self) -> Self:
        self.keep()
        return self

    def keep(self) -> None:
        """Start the process where its time has come. Raise ConfigurationError."""
        if self._process is None and time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        from subprocess import Popen

        state = self._place.state
        try:
            state.path.mkdir(parents=True, exist_ok=True)
            reads, writes = os.pipe()
            self._pipe = os.fdopen(writes, "wb", buffering=0)
            with os.fdopen(reads, "rb") as stdin, state.watchdog_log.open("ab") as log:
                # told before it is there: it knows what to guard however soon this process dies
                self._pipe.write(json.dumps(asdict(self._place.options)).encode() + b"\n")
                self._process = Popen(
                    [sys.executable, "-m", "questdb_backup.local.watchdog_process"],
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            if self._pipe is not None:
                self._pipe.close()
            raise ConfigurationError(
                f"the watchdog process cannot be started: {error}",
                f"this user must be able to run {sys.executable} and to write to {state.path}",
            ) from error

    def take_over(self) -> None:
        """The run could not end itself: the process outlives it and runs the guard until it works."""
        self._takes_over = True
        if self._process is None:
            with suppress(ConfigurationError):  # what the run failed with is to be told
                self._start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.take_over()
        process, pipe = self._process, self._pipe
        if process is None or pipe is None:
            return
        if self._takes_over:
            pipe.close()
            threading.Thread(target=process.wait, daemon=True).start()
            return
        try:
            pipe.write(DONE)
        except BrokenPipeError:
            logger.warning("the watchdog had ended before the run did")
        pipe.close()
        process.wait()


def end_dead_run(options: bytes) -> int:
    """What the watchdog does when the pipe ends without a word: the guard, until it worked.

    ``options``: the first line of the pipe. Give the exit code of the process.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    place = Place(Options(**json.loads(options)), os.environ)
    give_up = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        try:
            while is_held(place.state.run_lock) and time.monotonic() < give_up:
                time.sleep(_PAUSE_SECONDS)  # the lock goes last, or a new run has ended the old one
            report = guard(place, reason="its process died")
        except BackupToolError as error:
            logger.warning("the guard did not get through yet: %s", error)
            if time.monotonic() > give_up:
                logger.error("giving up: the next start of questdb-backup runs the guard again")
                return 1
            time.sleep(_PAUSE_SECONDS)
            continue
        logger.warning("the run died; guard: %s", report.to_json())
        return 0
