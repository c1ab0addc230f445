"""The EBS direct APIs, read only: ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock."""

import base64
import hashlib
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from standin.ebs.cloud import Cloud
from standin.ebs.errors import ServiceError, snapshot_unknown
from standin.ebs.images import BLOCK_BYTES, Image, changed
from standin.ebs.model import GIB, Snapshot
from standin.ebs.tokens import BLOCK_TOKEN_SECONDS, PAGE_TOKEN_SECONDS, Tokens

_SNAPSHOT_ID = re.compile(r"snap-[0-9a-f]+")
_LEAST_RESULTS = 100
_MOST_RESULTS = 10_000
_KEPT_COMPARISONS = 16

_Comparison = tuple[Sequence[int], frozenset[int]]
"""The blocks that either snapshot has, ascending, and which of them are reported as changed."""


@dataclass(kw_only=True)
class Paging:
    """What the service is free to do with pages and changed blocks."""

    page_cap: int = _MOST_RESULTS
    """A page has at most so many blocks, whatever MaxResults says."""
    empty_every: int = 0
    """Every so-many-th page of a listing is empty and has a NextToken (at least 2; 0 for never)."""
    unchanged_every: int = 0
    """Of the blocks that both snapshots have and that are equal, every so-many-th is reported as changed:
    one that was written with what it held already (0 for never)."""


class DirectApi:
    """The three actions.

    All raise ServiceError, and FileNotFoundError where the snapshot is deleted meanwhile.
    """

    def __init__(self, cloud: Cloud, paging: Paging) -> None:
        self._cloud = cloud
        self._paging = paging
        self._tokens = Tokens()
        self._compared: dict[tuple[str, str, int], _Comparison] = {}
        self._comparing = threading.Lock()

    def list_snapshot_blocks(self, snapshot_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of the blocks that were written."""
        snapshot = self._readable(snapshot_id)
        expires = self._token_expiry()

        def entry(index: int) -> dict[str, Any]:
            token = self._tokens.block_token(snapshot_id, index, expires)
            return {"BlockIndex": index, "BlockToken": token}

        page = self._page([snapshot_id], snapshot.content.written(), query, entry)
        return {"Blocks": page.pop("entries"), **page, **_sizes(snapshot), "ExpiryTime": expires}

    def list_changed_blocks(self, snapshot_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of the blocks that differ between two snapshots, or of all where the first is not named."""
        second = self._readable(snapshot_id)
        first_id = query.get("firstSnapshotId", "")
        first = self._readable(first_id) if first_id else None
        if first and first.lineage != second.lineage:
            _refuse("UNRELATED_SNAPSHOTS", f"{first_id} and {snapshot_id} are not related")
        scanned, reported = self._changed(first, second) if first else _all_of(second)
        sides = [("SecondBlockToken", second)]
        if first:
            sides.insert(0, ("FirstBlockToken", first))
        expires = self._token_expiry()

        def entry(index: int) -> dict[str, Any]:
            tokens = {
                name: self._tokens.block_token(side.snapshot_id, index, expires)
                for name, side in sides
                if side.content.has(index)
            }
            return {"BlockIndex": index, **tokens}

        page = self._page([first_id, snapshot_id], scanned, query, entry, reported)
        return {"ChangedBlocks": page.pop("entries"), **page, **_sizes(second), "ExpiryTime": expires}

    def get_snapshot_block(self, snapshot_id: str, index: int, token: str) -> tuple[bytes, str]:
        """The block's bytes and their SHA-256 in base64."""
        snapshot = self._readable(snapshot_id)
        if not 0 <= index < snapshot.size_gib * GIB // BLOCK_BYTES:
            _refuse("INVALID_BLOCK", f"The block index {index} is not valid for {snapshot_id}")
        now = self._cloud.clock.seconds()
        if not self._tokens.block_token_is_valid(token, snapshot_id, index, now):
            _refuse("INVALID_BLOCK_TOKEN", "The block token is invalid or has expired")
        data = snapshot.content.block(index)
        return data, base64.b64encode(hashlib.sha256(data).digest()).decode()

    def _readable(self, snapshot_id: str) -> Snapshot:
        if not _SNAPSHOT_ID.fullmatch(snapshot_id):
            _refuse("INVALID_SNAPSHOT_ID", f"The snapshot ID '{snapshot_id}' is malformed")
        with self._cloud.lock:
            snapshot = self._cloud.snapshots.get(snapshot_id)
            now = self._cloud.clock.now()
            known = snapshot and snapshot.state(now) == "completed" and now >= snapshot.readable
            if not snapshot or not known:
                raise snapshot_unknown(snapshot_id)
            if snapshot.tier == "archive":
                _refuse("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot_id}' is archived")
            return snapshot

    def _token_expiry(self) -> float:
        return self._cloud.clock.seconds() + BLOCK_TOKEN_SECONDS

    def _page(
        self,
        about: list[str],
        indexes: Sequence[int],
        query: Mapping[str, str],
        entry: Callable[[int], dict[str, Any]],
        reported: Container[int] | None = None,
    ) -> dict[str, Any]:
        # A page spans MaxResults of the written blocks; of these it has the reported ones, maybe none.
        size = self._results(query)
        start, number = self._start(about, query)
        at = bisect_left(indexes, start)
        every = self._paging.empty_every
        end = at if every and number % every == 0 else min(at + size, len(indexes))
        told = (index for index in indexes[at:end] if reported is None or index in reported)
        page: dict[str, Any] = {"entries": [entry(index) for index in told]}
        if end < len(indexes):
            following = {"of": about, "at": indexes[end], "n": number + 1}
            expires = self._cloud.clock.seconds() + PAGE_TOKEN_SECONDS
            page["NextToken"] = self._tokens.page_token(following, expires)
        return page

    def _results(self, query: Mapping[str, str]) -> int:
        asked = _number(query, "maxResults", _MOST_RESULTS)
        if asked > _MOST_RESULTS:
            _refuse("INVALID_PARAMETER_VALUE", f"MaxResults {asked} is greater than {_MOST_RESULTS}")
        return min(max(asked, _LEAST_RESULTS), self._paging.page_cap)

    def _start(self, about: list[str], query: Mapping[str, str]) -> tuple[int, int]:
        token = query.get("pageToken")
        if not token:
            return _number(query, "startingBlockIndex", 0), 1
        page = self._tokens.page(token, self._cloud.clock.seconds())
        if not page or page["of"] != about:
            _refuse("INVALID_PAGE_TOKEN", "The page token is invalid or has expired")
        return page["at"], page["n"]

    def _changed(self, first: Snapshot, second: Snapshot) -> _Comparison:
        pair = first.snapshot_id, second.snapshot_id, self._paging.unchanged_every
        with self._comparing:
            if pair not in self._compared:
                if len(self._compared) >= _KEPT_COMPARISONS:
                    del self._compared[next(iter(self._compared))]
                self._compared[pair] = self._comparison(first.content, second.content)
            return self._compared[pair]

    def _comparison(self, first: Image, second: Image) -> _Comparison:
        written = sorted({*first.written(), *second.written()})
        different = frozenset(changed(first, second))
        every = self._paging.unchanged_every
        equal = [index for index in written if index not in different][::every] if every else []
        return written, different.union(equal)


def _all_of(snapshot: Snapshot) -> _Comparison:
    written = snapshot.content.written()
    return written, frozenset(written)


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    return {"VolumeSize": snapshot.size_gib, "BlockSize": BLOCK_BYTES}


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal():
        _refuse("INVALID_PARAMETER_VALUE", f"{name} '{text}' is not valid")
    return int(text)


def _refuse(reason: str, message: str) -> NoReturn:
    raise ServiceError("ValidationException", message, reason=reason)
