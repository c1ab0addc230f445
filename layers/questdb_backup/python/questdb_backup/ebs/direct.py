"""The EBS direct APIs by boto3: paging, checksums, and waiting where AWS asks for it.

Limits and answers: "EBS direct APIs" in the Amazon EBS User Guide (1,000 GetSnapshotBlock a second for a
snapshot and for an account, 50 List requests a second for an account).
"""

import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from questdb_backup.ebs.aws import is_not_found, open_client, throttle_reason, translated
from questdb_backup.ebs.base import BLOCK_BYTES, Block
from questdb_backup.errors import SnapshotError, TokenExpiredError, VolumeUnavailableError
from questdb_backup.gentle.bucket import TokenBucket

if TYPE_CHECKING:
    from mypy_boto3_ebs import EBSClient

MIN_RESULTS, MAX_RESULTS = 100, 10_000
"""What MaxResults of the List requests may be."""
PATIENCE_SECONDS = 240.0
"""How long one request is tried, far below the 900 s of a Lambda function."""
ATTEMPTS = 5
"""How often a request is sent that gets no answer; a throttled one is only bounded by the patience."""
CHECKSUM_ATTEMPTS = 4
UNSEEN_SECONDS = 60.0
"""For so long after EC2 calls a snapshot completed the direct APIs may not know it (awslabs/coldsnap#141)."""
CHANGED_SECONDS = 300.0
"""What ListChangedBlocks may take, of all volumes of a plan together: its pages go by the written blocks,
10,000 (5 GiB) a page, one after the other, even where nothing has changed ("Read Amazon EBS snapshots" in the
Amazon EBS User Guide)."""
_RELISTS = 3

_T = TypeVar("_T")
Page = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _BackOff:
    """Seconds: the upper bound of the first pause, which doubles, and its limit."""

    first: float
    most: float

    def pause(self, attempt: int) -> float:
        """Anything up to the bound, so that many workers do not come back together ("full jitter")."""
        return random.uniform(0, min(self.most, self.first * 2.0 ** min(attempt, 20)))


_NO_ANSWER = _BackOff(0.2, 10.0)
_THROTTLED = _BackOff(0.5, 15.0)
"""Of the whole account (ACCOUNT_THROTTLED), and of any reason that is not known."""
_UNSEEN = _BackOff(2.0, 10.0)
_BY_REASON = {
    "RESOURCE_LEVEL_THROTTLE": _BackOff(0.1, 5.0),  # this snapshot's: the bucket of a second is full soon
    "DEPENDENCY_REQUEST_THROTTLED": _BackOff(1.0, 30.0),  # KMS, whose quota all of the account shares
}


@dataclass(slots=True, kw_only=True)
class DirectCounters:
    """What was asked of the direct APIs; requests are counted as AWS bills them, with every retry."""

    list_requests: int = 0
    get_requests: int = 0
    blocks: int = 0
    """Whole blocks with the right checksum."""
    bytes: int = 0
    retries: int = 0
    throttled_seconds: float = 0.0
    """What all threads have waited because AWS asked to slow down."""
    limited_seconds: float = 0.0
    """What all threads have waited for the own rate limit."""

    def since(self, earlier: "DirectCounters") -> "DirectCounters":
        """What has come after."""
        names = [each.name for each in fields(self)]
        return DirectCounters(**{name: getattr(self, name) - getattr(earlier, name) for name in names})


class BotoDirectApi:
    """DirectApi by boto3. One serves all threads, and all units, of a process.

    Args:
        threads: how many will call at once; connections are kept for each.
        rate: GetSnapshotBlock requests a second, None for no limit of its own.
        unseen_seconds: how long a snapshot that is not found is asked for again.
        open_client: gives boto3's ``ebs`` client for so many connections; it must not retry by itself.
        monotonic: a clock, seconds.
        sleep: what waits.

    Raises:
        ConfigurationError: no region, or settings that the SDK rejects.
    """

    def __init__(
        self,
        *,
        threads: int = 16,
        rate: float | None = None,
        unseen_seconds: float = UNSEEN_SECONDS,
        open_client: Callable[[int], "EBSClient"] = lambda connections: open_client(
            "ebs", max_connections=connections, attempts=1
        ),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client = open_client(threads + 2)  # the caller's own thread may read, too, and list
        self._unseen_seconds = unseen_seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._bucket = TokenBucket(rate, monotonic=monotonic, sleep=sleep)
        self._lock = threading.Lock()
        self._counters = DirectCounters()
        self._sizes: dict[str, int] = {}
        self._changed_until: float | None = None

    @property
    def counters(self) -> DirectCounters:
        """All that was asked so far."""
        with self._lock:
            return replace(self._counters)

    def counting(self, *, workers: int = 1) -> "BotoDirectApi":
        """As DirectApi says: the same connections and clock; a share of the rate has its own bucket."""
        view = copy(self)
        view._counters = DirectCounters()
        view._changed_until = None
        if workers > 1 and self._bucket.rate is not None:
            share = self._bucket.rate / workers
            view._bucket = TokenBucket(share, monotonic=self._monotonic, sleep=self._sleep)
        return view

    @property
    def requests(self) -> dict[str, int]:
        """As DirectApi says; with every retry."""
        counters = self.counters
        return {"list_requests": counters.list_requests, "get_requests": counters.get_requests}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def volume_size(self, snapshot_id: str) -> int:
        """As DirectApi says."""
        if snapshot_id not in self._sizes:
            self._list_page(snapshot_id, {"MaxResults": MIN_RESULTS})
        return self._sizes[snapshot_id]

    def list_blocks(self, snapshot_id: str, first: int, end: int) -> Iterator[Block]:
        """As DirectApi says. A page has no more entries than the range may have, so few are of no use."""
        limit = max(MIN_RESULTS, min(MAX_RESULTS, end - first))
        for page in _pages(partial(self._list_page, snapshot_id), first, limit, "Blocks"):
            for item in page:
                if item["BlockIndex"] >= end:
                    return
                yield Block(item["BlockIndex"], item["BlockToken"])

    def list_changed(self, first_snapshot_id: str, second_snapshot_id: str) -> Iterator[int]:
        """As DirectApi says."""
        if self._changed_until is None:
            self._changed_until = self._monotonic() + CHANGED_SECONDS
        ask = partial(self._changed_page, first_snapshot_id, second_snapshot_id, self._changed_until)
        for page in _pages(ask, 0, MAX_RESULTS, "ChangedBlocks"):
            yield from (item["BlockIndex"] for item in page)

    def get_block(self, snapshot_id: str, block: Block) -> bytes:
        """As DirectApi says."""
        doing = f"reading block {block.index} of {snapshot_id}"
        for _ in range(CHECKSUM_ATTEMPTS):
            data, checksum = self._ask(doing, partial(self._get, snapshot_id, block))
            if len(data) == BLOCK_BYTES and b64encode(sha256(data).digest()).decode() == checksum:
                self._count(blocks=1, bytes=BLOCK_BYTES)
                return data
            self._count(retries=1)
        raise VolumeUnavailableError(
            f"{doing}: {len(data)} bytes came that do not fit their checksum, {CHECKSUM_ATTEMPTS} times",
            "try again; where it stays so, take a new snapshot and tell AWS",
        )

    def _get(self, snapshot_id: str, block: Block) -> tuple[bytes, str]:
        self._count(get_requests=1, limited_seconds=self._bucket.take(1))
        answer = self._client.get_snapshot_block(
            SnapshotId=snapshot_id, BlockIndex=block.index, BlockToken=block.token
        )
        with closing(answer["BlockData"]) as body:
            return body.read(), answer["Checksum"]

    def _list_page(self, snapshot_id: str, options: dict[str, Any]) -> Page:
        call = partial(self._client.list_snapshot_blocks, SnapshotId=snapshot_id, **options)
        page = self._list(f"listing the blocks of {snapshot_id}", call, unseen_seconds=self._unseen_seconds)
        self._sizes[snapshot_id] = page["VolumeSize"] << 30
        return page

    def _changed_page(
        self, first_snapshot_id: str, second_snapshot_id: str, until: float, options: dict[str, Any]
    ) -> Page:
        call = partial(
            self._client.list_changed_blocks,
            FirstSnapshotId=first_snapshot_id,
            SecondSnapshotId=second_snapshot_id,
            **options,
        )
        doing = f"listing what changed from {first_snapshot_id} to {second_snapshot_id}"
        if self._monotonic() > until:
            raise SnapshotError(f"{doing} takes more than {CHANGED_SECONDS:.0f} s")
        # Both were read before, or are gone for good.
        return self._list(doing, call, unseen_seconds=0.0)

    def _list(self, doing: str, call: Callable[[], Any], *, unseen_seconds: float) -> Page:
        def counted() -> Any:
            self._count(list_requests=1)
            return call()

        page: Page = self._ask(doing, counted, unseen_seconds=unseen_seconds)
        if page["BlockSize"] != BLOCK_BYTES:
            raise SnapshotError(f"{doing}: its blocks have {page['BlockSize']} bytes, not {BLOCK_BYTES}")
        return page

    def _ask(self, doing: str, call: Callable[[], _T], *, unseen_seconds: float = 0.0) -> _T:
        """Call until it goes through. Raise what it raises where that is no question of time.

        For ``unseen_seconds`` even a snapshot that is not found is one.
        """
        began, attempt = self._monotonic(), 0
        while True:
            try:
                with translated(doing):
                    return call()
            except VolumeUnavailableError as error:
                self._back_off(error, attempt, began)
            except SnapshotError as error:
                if not is_not_found(error) or self._monotonic() - began >= unseen_seconds:
                    raise
                self._sleep(_UNSEEN.pause(attempt))
            attempt += 1

    def _back_off(self, error: VolumeUnavailableError, attempt: int, began: float) -> None:
        """Wait before the next attempt; raise the error where there is to be none."""
        reason = throttle_reason(error)
        back_off = _NO_ANSWER if reason is None else _BY_REASON.get(reason, _THROTTLED)
        pause = back_off.pause(attempt)
        passed = self._monotonic() - began
        if passed + pause > PATIENCE_SECONDS or (reason is None and attempt + 1 >= ATTEMPTS):
            fact = f"{error.fact} (for {passed:.0f} seconds, {attempt + 1} times)"
            raise VolumeUnavailableError(fact, error.hint) from error
        self._count(retries=1, throttled_seconds=0.0 if reason is None else pause)
        self._sleep(pause)

    def _count(self, **more: float) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self._counters, name, getattr(self._counters, name) + value)


def _pages(ask: Callable[[dict[str, Any]], Page], first: int, limit: int, items: str) -> Iterator[list[Any]]:
    """The items of all pages from index ``first`` on; a page's token that has expired is done without."""
    token, lost = "", 0
    while True:
        place: dict[str, Any] = {"NextToken": token} if token else {"StartingBlockIndex": first}
        try:
            page = ask({"MaxResults": limit, **place})
        except TokenExpiredError as error:
            lost += 1
            if not token or lost > _RELISTS:
                raise VolumeUnavailableError(error.fact, "its pages expire at once: try again") from error
            token = ""
            continue
        if found := page.get(items):
            first, lost = found[-1]["BlockIndex"] + 1, 0
            yield found
        token = page.get("NextToken", "")
        if not token:
            return
