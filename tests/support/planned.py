"""What a source plans, listed."""

from collections.abc import Iterator

from questdb_backup.source.base import PlannedGroup, Source


def planned_groups(source: Source) -> Iterator[PlannedGroup]:
    """Every group with its files, as a first backup takes them."""
    for outline in source.outlines():
        yield outline.plan()
