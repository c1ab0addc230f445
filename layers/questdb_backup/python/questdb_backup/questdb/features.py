"""What a server of a version does, as far as a backup must know; None is an unknown version.

Each floor is the oldest release that was seen to do it; the releases before it, where not looked at,
count as not doing it, which costs speed and never correctness.
"""

import re

_NUMBER = re.compile(r"\D*(\d+)\.(\d+)(?:\.(\d+))?", re.ASCII)

Version = tuple[int, int, int]


def parse_version(text: str | None) -> Version | None:
    """The numbers of ``9.3.4``, ``9.3`` or ``QuestDB 9.3.4-SNAPSHOT``; None where there are none."""
    match = _NUMBER.match(text or "")
    if not match:
        return None
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)


def at_least(version: str | None, floor: Version) -> bool:
    """Whether the version is known and not below the floor."""
    parsed = parse_version(version)
    return parsed is not None and parsed >= floor


def rebuilds_indexes(version: str | None) -> bool:
    """Whether recovery can make every index anew (``cairo.checkpoint.recovery.rebuild.column.indexes``).

    Such a server makes a symbol table's ``.k`` and ``.v`` without the old ones too. 9.2.3 does not
    know the setting, and refuses to start where a symbol table's ``.k`` is missing.
    """
    return at_least(version, (9, 3, 4))


def counts_squashes(version: str | None) -> bool:
    """Whether ``_txn`` counts how often parts were squashed into a partition.

    Without it a partition can change and keep its rows and its name. 9.2.3 has none.
    """
    return at_least(version, (9, 3, 4))
