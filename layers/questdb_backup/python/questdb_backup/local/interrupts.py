"""Signals while a run is under way: noted, so that none of them breaks off the release of a checkpoint."""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Context manager: SIGINT and SIGTERM set ``noted`` instead of raising, however often they come.

    The handler that was there is called too; what it interrupts with is swallowed. Does nothing in a
    thread that gets no signals.
    """

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True
        handler = self._before[number]
        if callable(handler):
            with suppress(KeyboardInterrupt):
                handler(number, frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
