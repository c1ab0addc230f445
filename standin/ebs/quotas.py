"""Request rates: what is refused, with which reason, when more is asked than the quotas allow."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from standin.ebs.errors import ServiceError

_LISTS = {"ListSnapshotBlocks", "ListChangedBlocks"}


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """The limits, with AWS's defaults; None is no limit. Rates are requests per second."""

    get_per_snapshot: float | None = 1000
    """Not adjustable on AWS."""
    get_per_account: float | None = 1000
    list_per_account: float | None = 50
    ec2_per_account: float | None = None
    """EC2's own API buckets, which differ by action, in one; None by default."""
    burst_seconds: float = 1.0
    """How many seconds' worth of requests a bucket holds."""
    snapshot_interval: float = 15.0
    """Seconds (of the stand-in's clock) between two snapshots of one volume."""
    pending_per_volume: int = 5
    pending_snapshots: int = 100
    initialization_rate: int = 5000
    """MiB/s of all volumes that are being initialized at a provisioned rate."""
    fast_restores: int = 5
    """Snapshots in a Region with fast restore."""


UNLIMITED = Quotas(
    get_per_snapshot=None,
    get_per_account=None,
    list_per_account=None,
    snapshot_interval=0.0,
    pending_per_volume=1_000_000,
    pending_snapshots=1_000_000,
    initialization_rate=1_000_000,
    fast_restores=1_000_000,
)
"""No limits at all."""


class _Bucket:
    def __init__(self, rate: float, burst_seconds: float, seconds: Callable[[], float]) -> None:
        self._rate = rate
        self._room = max(1.0, rate * burst_seconds)
        self._left = self._room
        self._seconds = seconds
        self._last = seconds()

    def take(self) -> bool:
        now = self._seconds()
        self._left = min(self._room, self._left + (now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Throttle:
    """Counts requests against the quotas, by real time or by another clock."""

    def __init__(self, quotas: Quotas, seconds: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._seconds = seconds
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def admit_direct(self, action: str, snapshot_id: str) -> None:
        """Let a request of the direct APIs in, or raise RequestThrottledException."""
        if action in _LISTS:
            if not self._take("list", self._quotas.list_per_account):
                raise throttled("ACCOUNT_THROTTLED")
            return
        if not self._take(f"get {snapshot_id}", self._quotas.get_per_snapshot):
            raise throttled("RESOURCE_LEVEL_THROTTLE")
        if not self._take("get", self._quotas.get_per_account):
            raise throttled("ACCOUNT_THROTTLED")

    def admit_ec2(self) -> None:
        """Let a request of EC2 in, or raise RequestLimitExceeded."""
        if not self._take("ec2", self._quotas.ec2_per_account):
            raise ServiceError("RequestLimitExceeded", "Request limit exceeded.", status=503)

    def _take(self, name: str, rate: float | None) -> bool:
        if rate is None:
            return True
        with self._lock:
            bucket = self._buckets.get(name)
            if bucket is None:
                bucket = self._buckets[name] = _Bucket(rate, self._quotas.burst_seconds, self._seconds)
            return bucket.take()


def throttled(reason: str) -> ServiceError:
    """The direct APIs' RequestThrottledException with that reason."""
    message = "The number of API requests has exceeded the maximum allowed API request throttling limit"
    return ServiceError("RequestThrottledException", message, reason=reason)
