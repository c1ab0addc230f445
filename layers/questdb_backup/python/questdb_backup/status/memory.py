"""The live status in this process's memory: the twin of the durable ones."""

from dataclasses import dataclass, field, replace
from threading import Lock

from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import LiveRun
from questdb_backup.status.rules import in_progress, is_run, lease_lost, may_replace, refusal


@dataclass(slots=True)
class _Entry:
    live: LiveRun
    units: dict[int, int] = field(default_factory=dict)


class MemoryStatusStore:
    """A `StatusStore` that lives and dies with the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: dict[str, _Entry] = {}

    def begin(self, instance: str, live: LiveRun, now: str) -> None:
        """See `StatusStore.begin`."""
        with self._lock:
            entry = self._entries.get(instance)
            if entry and not may_replace(entry.live, live, now):
                raise in_progress(entry.live)
            self._entries[instance] = _Entry(live)

    def refuse_if_running(self, instance: str, holder: str, now: str) -> None:
        """See `StatusStore.refuse_if_running`."""
        if error := refusal(self.read(instance), holder, now):
            raise error

    def read(self, instance: str) -> LiveRun | None:
        """See `StatusStore.read`."""
        with self._lock:
            entry = self._entries.get(instance)
            return entry.live if entry else None

    def renew(self, instance: str, run: str, token: int, expires_at: str) -> None:
        """See `StatusStore.renew`."""
        with self._lock:
            entry = self._owned(instance, run, token)
            entry.live = replace(entry.live, expires_at=expires_at)

    def record_fence(self, instance: str, run: str, token: int, fence: Fence) -> None:
        """See `StatusStore.record_fence`."""
        with self._lock:
            entry = self._owned(instance, run, token)
            entry.live = replace(entry.live, fence=fence)

    def set_total(self, instance: str, run: str, token: int, total_bytes: int) -> None:
        """See `StatusStore.set_total`."""
        with self._lock:
            entry = self._owned(instance, run, token)
            entry.live = replace(entry.live, total_bytes=total_bytes, done_bytes=0)
            entry.units.clear()

    def add_done(self, instance: str, run: str, token: int, unit: int, done_bytes: int) -> None:
        """See `StatusStore.add_done`."""
        with self._lock:
            entry = self._owned(instance, run, token)
            added = done_bytes - entry.units.get(unit, 0)
            entry.units[unit] = done_bytes
            entry.live = replace(entry.live, done_bytes=entry.live.done_bytes + added)

    def record_error(self, instance: str, run: str, token: int, error: str) -> None:
        """See `StatusStore.record_error`."""
        with self._lock:
            entry = self._owned(instance, run, token)
            if entry.live.error is None:
                entry.live = replace(entry.live, error=error)

    def request_abort(self, instance: str, reason: str) -> LiveRun | None:
        """See `StatusStore.request_abort`."""
        with self._lock:
            entry = self._entries.get(instance)
            if entry is None:
                return None
            if entry.live.abort_reason is None:
                entry.live = replace(entry.live, abort_reason=reason)
            return entry.live

    def finish(self, instance: str, run: str, token: int) -> None:
        """See `StatusStore.finish`."""
        with self._lock:
            entry = self._entries.get(instance)
            if entry and is_run(entry.live, run, token):
                del self._entries[instance]

    def _owned(self, instance: str, run: str, token: int) -> _Entry:
        entry = self._entries.get(instance)
        if entry is None or not is_run(entry.live, run, token):
            raise lease_lost(run, token, entry.live if entry else None)
        return entry
