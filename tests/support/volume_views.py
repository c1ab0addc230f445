"""What a file system shows, as the kernel has it or as a reader of ours has it, in the same words."""

import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Extent, FileSystem, Node

_PIECE = 1 << 20

View = dict[str, tuple[str, int, str]]
"""By path: kind (d, f, l or o), size, a file's blake2b digest of 12 bytes in hex or a symlink's target."""


def view_of_folder(folder: Path) -> View:
    """What the kernel shows below a folder. Raise OSError where it cannot read something."""
    view: View = {}
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            seen = view[str(path.relative_to(folder))] = _seen(path)
            if seen[0] == EntryKind.DIRECTORY:
                waiting.append(path)
    return view


def _seen(path: Path) -> tuple[str, int, str]:
    if path.is_symlink():
        target = os.readlink(path)  # noqa: PTH115 - a Path would clean the target up
        return "l", len(os.fsencode(target)), target
    if path.is_dir():
        return "d", 0, ""
    if not path.is_file():
        return "o", 0, ""
    with path.open("rb") as file:
        digest = blake2b(digest_size=12)
        while piece := file.read(_PIECE):
            digest.update(piece)
        return "f", file.tell(), digest.hexdigest()


def view_of(filesystem: FileSystem) -> View:
    """What a reader of ours shows, in the same words.

    Raise DamagedVolumeError where a directory is met twice: damage of one entry can make a circle.
    """
    view: View = {}
    waiting, met = [("", filesystem.root)], set[int]()
    while waiting:
        at, folder = waiting.pop()
        if folder.number in met:
            raise DamagedVolumeError(f"directory {folder.number} is met twice")
        met.add(folder.number)
        for name, node in filesystem.entries(folder):
            path = f"{at}{name}"
            view[path] = (str(node.kind), node.size, _value(filesystem, node))
            if node.kind is EntryKind.DIRECTORY:
                waiting.append((f"{path}/", node))
    return view


def _value(filesystem: FileSystem, node: Node) -> str:
    if node.kind is EntryKind.SYMLINK:
        return filesystem.read_link(node)
    if node.kind is EntryKind.FILE:
        return digest_of(filesystem, node)
    return ""


def digest_of(filesystem: FileSystem, node: Node) -> str:
    """Digest a file by its extents, as a worker does that has nothing but them and the device."""
    digest, at = blake2b(digest_size=12), 0
    for extent in filesystem.extents(node):
        assert at <= extent.start <= extent.start + extent.length <= node.size, "out of order, or too long"
        _zeros(digest.update, extent.start - at)
        for piece in _pieces(filesystem, extent):
            digest.update(piece)
        at = extent.start + extent.length
    _zeros(digest.update, node.size - at)
    return digest.hexdigest()


def _pieces(filesystem: FileSystem, extent: Extent) -> Iterator[bytes]:
    if extent.data is not None:
        assert len(extent.data) == extent.length
        yield extent.data
        return
    for at in range(0, extent.length, _PIECE):
        yield filesystem.device.read(extent.offset + at, min(_PIECE, extent.length - at))


def _zeros(update: Callable[[bytes], None], length: int) -> None:
    for at in range(0, length, _PIECE):
        update(bytes(min(_PIECE, length - at)))


def differences(expected: View, got: View, at_most: int = 12) -> list[str]:
    """The first differences of two views in words, for an assertion's message; [] where they are equal."""
    found = [f"missing: {path}" for path in sorted(expected.keys() - got.keys())]
    found += [f"extra: {path}" for path in sorted(got.keys() - expected.keys())]
    both = sorted(path for path in expected.keys() & got.keys() if expected[path] != got[path])
    found += [f"differs: {path}: {expected[path]} expected, {got[path]} read" for path in both]
    return [*found[:at_most], f"{len(found)} in all"] if found else []
