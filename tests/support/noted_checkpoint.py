"""What the tables held when the checkpoint was made, noted while a writer rests for a moment."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from questdb_backup.questdb.base import CreateOutcome, Database, DatabaseState, Fence, ReleaseOutcome
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import Writer, settle, table_digests

Digests = Mapping[str, tuple[Any, ...]]


class PausingWriter(Writer):
    """A writer that can be told to rest between two statements."""

    def __init__(self, server: QuestDBServer) -> None:
        super().__init__(server, pause_seconds=0.1)
        self._turn = threading.Lock()
        original = self._stop_asked.wait
        self._stop_asked.wait = lambda timeout=None: self._wait(original, timeout)  # type: ignore[method-assign]

    def _wait(self, original: Callable[[float | None], bool], timeout: float | None) -> bool:
        with self._turn:
            return original(timeout)

    def rest(self) -> None:
        """Return when no statement is on its way and none will come."""
        self._turn.acquire()
        time.sleep(0.1)

    def go_on(self) -> None:
        """Write again."""
        self._turn.release()


class NotingDatabase:
    """The product's database adapter; notes what the tables hold when the checkpoint is made."""

    def __init__(self, inner: Database, server: QuestDBServer, writer: PausingWriter) -> None:
        self._inner = inner
        self._server = server
        self._writer = writer
        self._resting = False
        self.noted: Digests = {}

    def read(self) -> DatabaseState:
        """The last one before CREATE gives the intent's clock: from here on the writer rests."""
        if not self.noted and not self._resting:
            self._writer.rest()
            self._resting = True
            settle(self._server)
        return self._inner.read()

    def create_checkpoint(self, fence: Fence) -> CreateOutcome:
        """Make the checkpoint, note the state, let the writer go on."""
        outcome = self._inner.create_checkpoint(fence)
        self.noted = table_digests(self._server)
        self._writer.go_on()
        return outcome

    def release_checkpoint(self, fence: Fence, *, timeout_seconds: float) -> ReleaseOutcome:
        """As the product does."""
        return self._inner.release_checkpoint(fence, timeout_seconds=timeout_seconds)
