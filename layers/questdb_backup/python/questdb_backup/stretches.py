"""Things that lie one after the other along a file or a device, and what of them is in a range."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class Placed(Protocol):
    """``length`` bytes from byte ``start`` on."""

    @property
    def start(self) -> int:
        """The first byte."""

    @property
    def length(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Placed)


def within(placed: Iterable[T], start: int, end: int) -> Iterator[tuple[T, int, int]]:
    """Those with bytes from ``start`` to before ``end``, each with where these begin and end."""
    for each in placed:
        first, last = max(start, each.start), min(end, each.start + each.length)
        if first < last:
            yield each, first, last
