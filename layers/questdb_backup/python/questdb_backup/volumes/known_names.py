"""The names in directories that were searched a moment ago: a plan asks one of thousands for each of them."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from questdb_backup.volumes.base import Node

MOST_NAMES = 200_000
"""Of all directories that are remembered, about 30 MiB; a longer one is read for each search."""


class KnownNames:
    """Searches directories; ``read`` gives the names and inode numbers in one."""

    def __init__(self, read: Callable[[Node], Iterable[tuple[bytes, int]]]) -> None:
        self._read = read
        self._folders: OrderedDict[int, dict[bytes, int]] = OrderedDict()
        self._names = 0

    def find(self, folder: Node, name: bytes) -> int | None:
        """The inode number of the first entry of that name. Raise what ``read`` raises."""
        known = self._folders.get(folder.number)
        if known is not None:
            self._folders.move_to_end(folder.number)
            return known.get(name)
        return self._search(folder, name)

    def _search(self, folder: Node, name: bytes) -> int | None:
        names: dict[bytes, int] = {}
        entries = iter(self._read(folder))
        for found, number in entries:
            names.setdefault(found, number)
            if len(names) > MOST_NAMES:
                break
        else:
            self._keep(folder, names)
            return names.get(name)
        if name in names:
            return names[name]
        return next((number for found, number in entries if found == name), None)

    def _keep(self, folder: Node, names: dict[bytes, int]) -> None:
        self._folders[folder.number] = names
        self._names += len(names)
        while self._names > MOST_NAMES:
            _, dropped = self._folders.popitem(last=False)
            self._names -= len(dropped)
