"""The order in which blocks will be read, and how far the reading has come."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

Key = tuple[str, int]
"""A snapshot's id and a block's index."""


class ReadingOrder:
    """What was promised: keys in the order of reading, a key again where it is come back to.

    It is not taken literally: keys may be left out, and what was read a moment ago may be read again.
    """

    def __init__(self, wanted: Iterable[Key]) -> None:
        self._keys = [key for key, _ in groupby(wanted)]
        self._places: dict[Key, list[int]] = {}
        for place, key in enumerate(self._keys):
            self._places.setdefault(key, []).append(place)
        self._at = 0
        self._looked = 0

    @property
    def distinct(self) -> Iterable[Key]:
        """Every key once."""
        return self._places.keys()

    def next(self, is_known: Callable[[Key], bool]) -> Key | None:
        """The next key to fetch ahead that is not known yet; None where all is."""
        self._looked = max(self._looked, self._at)
        while self._looked < len(self._keys):
            key = self._keys[self._looked]
            if not is_known(key):
                self._looked += 1
                return key
            self._looked += 1
        return None

    def advance(self, key: Key, *, is_recent: bool) -> Sequence[Key]:
        """The key is read; give the keys that were passed over.

        ``is_recent``: it was read a moment ago too, so this may be no step to where it is wanted next.
        """
        places = self._places.get(key, ())
        following = bisect_left(places, self._at)
        if following == len(places):
            return ()
        place = places[following]
        if is_recent and place > self._at + 1:
            return ()
        passed = self._keys[self._at + 1 : place]
        self._at = place
        return passed

    def is_past(self, key: Key) -> bool:
        """Whether the key is not wanted any more."""
        places = self._places.get(key)
        return not places or places[-1] < self._at
