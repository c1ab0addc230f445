"""What an execution is doing at this moment, by the newest events of its history."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

NEWEST_EVENTS = 30
"""Enough for the last state that was entered: a task that is tried five times again has four events a try."""
_OF_SNAPSHOTS = ("CheckSnapshots", "WaitForSnapshots")


def doing(events: Iterable[Mapping[str, Any]]) -> str:
    """The state that was entered last, of GetExecutionHistory's events in reverse order; "" for none.

    While snapshots are pending it is how far EC2 is with them, which may take hours.
    """
    for event in events:
        entered = event.get("stateEnteredEventDetails")
        if entered:
            name = str(entered["name"])
            return _snapshots(str(entered.get("input") or "")) if name in _OF_SNAPSHOTS else name
    return ""


def _snapshots(state: str) -> str:
    with suppress(ValueError, KeyError, TypeError):  # more than 256 KiB of state are cut short
        return f"snapshots at {json.loads(state)['snapshots']['progress_percent']}%"
    return "snapshots"
