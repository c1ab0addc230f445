"""Lower priority of a thread that reads and compresses, so that the server's threads go first.

On Linux both kinds belong to a thread, and what a thread starts inherits them. Neither is ever raised: a
process without privileges cannot take ``nice`` back.

Where the kernel groups the processor time of sessions (``sched_autogroup_enabled``, usual on servers),
``nice`` weighs a thread within its session only, and the server is in another one. So a session that this
process leads, as under systemd and cron, is lowered as a whole. A shell's session is left alone.
"""

import ctypes
import logging
import os
import platform
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

logger = logging.getLogger("questdb_backup")

# include/uapi/linux/ioprio.h: the class in the upper bits, the level (7 is the lowest) in the lower 13.
_CLASS_SHIFT = 13
_BEST_EFFORT, _IDLE = 2, 3
_LOWEST_LEVEL = 7
_WHO_PROCESS = 1
_AUTOGROUP = Path("/proc/self/autogroup")
_SET_CALLS = {"x86_64": 251, "aarch64": 30}
"""ioprio_set of each architecture; ioprio_get is the next number."""


class IoPriority(StrEnum):
    """The words of ``backup.io.priority``. ``best-effort`` is the lowest level of that class."""

    IDLE = "idle"
    BEST_EFFORT = "best-effort"
    NONE = "none"


class Priorities:
    """Lowers the thread that asks for it; ``nice`` 0 and ``none`` leave it as it is."""

    def __init__(self, *, nice: int = 0, io: IoPriority = IoPriority.NONE) -> None:
        self._nice = nice
        self._io = io
        self._done = threading.local()
        self._told: set[str] = set()

    def lower_thread(self) -> None:
        """Lower the calling thread; once, further calls do nothing. What is refused is only logged."""
        if getattr(self._done, "is_done", False):
            return
        self._done.is_done = True
        if sys.platform != "linux":
            if self._nice or self._io is not IoPriority.NONE:
                self._tell("priorities", "only on Linux a single thread can be lowered")
            return
        if self._nice:
            self._try("backup.nice", lambda: _lower_nice(self._nice))
            self._try("backup.nice", lambda: _lower_session(self._nice))
        if self._io is not IoPriority.NONE:
            self._try("backup.io.priority", lambda: set_io_priority(io_priority_value(self._io)))

    def _try(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._tell(what, str(error))

    def _tell(self, what: str, why: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s is not in force: %s", what, why)


def io_priority_value(io: IoPriority) -> int:
    """The number that the kernel takes; 0 is none."""
    if io is IoPriority.NONE:
        return 0
    if io is IoPriority.IDLE:
        return _IDLE << _CLASS_SHIFT
    return _BEST_EFFORT << _CLASS_SHIFT | _LOWEST_LEVEL


def set_io_priority(value: int) -> None:
    """Set that of the calling thread. Raise OSError where the kernel refuses."""
    _io_priority_call(0, value)


def get_io_priority() -> int:
    """That of the calling thread. Raise OSError where the kernel refuses."""
    return _io_priority_call(1)


def _io_priority_call(offset: int, *values: int) -> int:
    """A system call without a wrapper in libc; ``who`` 0 is the calling thread."""
    number = _SET_CALLS.get(platform.machine())
    if number is None:
        raise OSError(f"the system call is not known for {platform.machine()}")
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    result = int(call(*(ctypes.c_long(each) for each in (number + offset, _WHO_PROCESS, 0, *values))))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _lower_nice(nice: int) -> None:
    """At least so nice: a thread that is nicer already stays so."""
    if os.getpriority(os.PRIO_PROCESS, 0) < nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def _lower_session(nice: int) -> None:
    """At least so nice, where the kernel knows such groups and the session is this process's own."""
    if os.getsid(0) != os.getpid() or not _AUTOGROUP.exists():
        return
    words = _AUTOGROUP.read_text().split()  # /autogroup-4531 nice 0
    if len(words) == 3 and int(words[2]) < nice:
        _AUTOGROUP.write_text(str(nice))
