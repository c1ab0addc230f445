"""What the server's host has mounted where, as far as it was told: so symlinks find their volume."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from questdb_backup.volumes.base import FileSystem

Path = tuple[str, ...]
"""The names from the top of a file system, or of the host, without ``..``."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A file system of the snapshots, and the place of its volume in `Unit.volumes`."""

    files: FileSystem
    volume: int


class UnknownMountError(PermissionError):
    """A symlink leads to where no volume is known to be mounted; ``filename`` is its target."""

    def __init__(self, target: str) -> None:
        super().__init__(errno.EPERM, "it is not known which volume is mounted where a symlink leads", target)


class Mounts:
    """File systems by the absolute path at which the host has mounted them."""

    def __init__(self, mounts: Mapping[str, Mounted]) -> None:
        self._mounts = {_parts(path): mounted for path, mounted in mounts.items()}

    def resolve(self, home: Mounted, folder: Path, target: str) -> tuple[Mounted, Path]:
        """Where a symlink in a folder of ``home`` leads to: the file system, and the path from its top.

        A relative one stays in its file system where it is not known where that is mounted. Raise
        UnknownMountError.
        """
        if target.startswith("/"):
            return self._find(_parts(target), target)
        own = next((path for path, mounted in self._mounts.items() if mounted is home), None)
        if own is not None:
            return self._find((*own, *folder, *_parts(target)), target)
        inside, climbs = _normal((*folder, *_parts(target)))
        if climbs:
            raise UnknownMountError(target)
        return home, inside

    def _find(self, parts: Path, target: str) -> tuple[Mounted, Path]:
        """The file system that is mounted on the longest part of the host's path, and the rest."""
        path, _ = _normal(parts)
        for length in range(len(path), -1, -1):
            if (mounted := self._mounts.get(path[:length])) is not None:
                return mounted, path[length:]
        raise UnknownMountError(target)


def parse_mounts(items: Iterable[str]) -> dict[str, str]:
    """``/mnt/a=vol-1``, ``/mnt/b=/dev/sdg`` by path. Raise ValueError where one is malformed."""
    found = {}
    for item in items:
        path, equals, volume = item.partition("=")
        if not equals or not path.startswith("/") or not volume:
            raise ValueError(f"'{item}' is not PATH=VOLUME")
        found[os.path.normpath(path)] = volume
    return found


def _parts(path: str) -> Path:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _normal(parts: Path) -> tuple[Path, bool]:
    """The path without ``..``, and whether it climbs above the top; it stays there then, as on a host."""
    found: list[str] = []
    climbs = False
    for part in parts:
        if part != "..":
            found.append(part)
        elif found:
            found.pop()
        else:
            climbs = True
    return tuple(found), climbs
