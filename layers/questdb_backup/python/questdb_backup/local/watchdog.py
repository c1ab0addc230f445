"""The watchdog: a process of its own that sees a run die and runs the guard.

It reads its options from a pipe, then waits on it. A run that ends well says so; a run that is killed
closes the pipe with its death. The watchdog is in a session of its own, so that a signal to the run's
process group does not reach it, and no other process inherits the pipe.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from types import TracebackType
from typing import Self

from questdb_backup.errors import BackupToolError, ConfigurationError
from questdb_backup.local.guarding import guard
from questdb_backup.local.options import Options, Place
from questdb_backup.status.run_lock import is_held

_DONE = b"done\n"
_PAUSE_SECONDS = 0.5
_GIVE_UP_SECONDS = 900.0

logger = logging.getLogger("questdb_backup.watchdog")


class Watchdog:
    """Context manager of a run: starts the process, and tells it of the end."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self._takes_over = False

    def __enter__(self) -> Self:
        state = self._place.state
        try:
            state.path.mkdir(parents=True, exist_ok=True)
            with state.watchdog_log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "questdb_backup.local.watchdog"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._tell(json.dumps(asdict(self._place.options)).encode() + b"\n")
        except OSError as error:
            raise ConfigurationError(
                f"the watchdog process cannot be started: {error}",
                f"this user must be able to run {sys.executable} and to write to {state.path}",
            ) from error
        return self

    def _tell(self, line: bytes) -> None:
        assert self._process is not None, "entered"
        assert self._process.stdin is not None, "a pipe"
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def take_over(self) -> None:
        """The run could not end itself: the process outlives it and runs the guard until it works."""
        self._takes_over = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        if kind is not None or self._takes_over:
            process.stdin.close()
            threading.Thread(target=process.wait, daemon=True).start()
            return
        try:
            self._tell(_DONE)
        except BrokenPipeError:
            logger.warning("the watchdog had ended before the run did")
        process.stdin.close()
        process.wait()


def watch(options: Options, line: bytes) -> int:
    """What the watchdog does when the pipe ends: nothing after ``done``, else the guard until it worked."""
    if line == _DONE:
        return 0
    place = Place(options, os.environ)
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


def main() -> int:
    """Entry point of the process."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    options = Options(**json.loads(sys.stdin.buffer.readline()))
    return watch(options, sys.stdin.buffer.readline())


if __name__ == "__main__":
    sys.exit(main())
