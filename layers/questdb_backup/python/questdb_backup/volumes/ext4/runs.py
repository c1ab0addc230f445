"""Stretches of blocks, of which a file's map consists."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Run(NamedTuple):
    """``length`` blocks of a file from its block ``start`` on, at block ``block`` of the file system."""

    start: int
    block: int
    length: int


def merged(runs: Iterable[Run]) -> Iterator[Run]:
    """The same with adjacent ones made one."""
    last: Run | None = None
    for run in runs:
        if last is None:
            last = run
        elif run.start == last.start + last.length and run.block == last.block + last.length:
            last = Run(last.start, last.block, last.length + run.length)
        else:
            yield last
            last = run
    if last is not None:
        yield last


def cut(runs: Iterable[Run], blocks: int) -> Iterator[Run]:
    """What lies in the first ``blocks`` blocks of the file; what comes behind is not asked for."""
    for run in runs:
        if run.start + run.length >= blocks:
            if run.start < blocks:
                yield Run(run.start, run.block, blocks - run.start)
            return
        yield run
