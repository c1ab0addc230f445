"""The interpreter's cyclic garbage collector, for stretches of work that make many objects and no cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 50_000


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Look for cycles after every 50,000 new objects instead of 700, in the whole process.

    A plan holds a unit of tens of thousands of files: looking through them again and again takes a tenth
    of its time.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
