"""Walk a file system and read its files, with flat memory."""

from collections.abc import Iterator
from hashlib import blake2b

from questdb_backup.errors import DamagedVolumeError
from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Extent, FileSystem, Node

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
_DIGEST_BYTES = 12


def walk(files: FileSystem) -> Iterator[tuple[str, Node]]:
    """Everything below the root directory, ``/`` separated, in no particular order; no symlink is followed.

    Raise DamagedVolumeError where a directory is met twice: a tree has no circles and no second parents.
    """
    seen = {files.root.number}
    folders = [("", files.root)]
    while folders:
        above, folder = folders.pop()
        for name, node in files.entries(folder):
            path = above + name
            if node.kind is EntryKind.DIRECTORY:
                if node.number in seen:
                    raise DamagedVolumeError(f"the directory {path} (inode {node.number}) is in two places")
                seen.add(node.number)
                folders.append((path + "/", node))
            yield path, node


def read_pieces(files: FileSystem, node: Node) -> Iterator[bytes]:
    """A file's bytes in pieces of at most 1 MiB; what no extent covers is zeros."""
    at = 0
    for extent in files.extents(node):
        if extent.start < at or extent.start + extent.length > node.size:
            raise DamagedVolumeError(
                f"inode {node.number} of {node.size} bytes has an extent at {extent.start} of {extent.length}"
            )
        yield from _zeros(extent.start - at)
        yield from _stored(files, extent)
        at = extent.start + extent.length
    yield from _zeros(node.size - at)


def _stored(files: FileSystem, extent: Extent) -> Iterator[bytes]:
    if extent.data is not None:
        yield extent.data
        return
    for done in range(0, extent.length, _PIECE):
        yield files.device.read(extent.offset + done, min(_PIECE, extent.length - done))


def _zeros(count: int) -> Iterator[bytes]:
    for done in range(0, count, _PIECE):
        yield _ZEROS[: count - done]


def digest(files: FileSystem, node: Node) -> str:
    """BLAKE2b of a file, 12 bytes in hex."""
    hasher = blake2b(digest_size=_DIGEST_BYTES)
    for piece in read_pieces(files, node):
        hasher.update(piece)
    return hasher.hexdigest()


def described(files: FileSystem) -> Iterator[tuple[str, tuple[str, int, str]]]:
    """Path, and type, size, value of each directory, file and symlink; of a device or socket nothing.

    The value is a symlink's target or a file's digest; a directory has size 0 and none.
    """
    for path, node in walk(files):
        if node.kind is EntryKind.FILE:
            yield path, ("f", node.size, digest(files, node))
        elif node.kind is EntryKind.SYMLINK:
            yield path, ("l", node.size, files.read_link(node))
        elif node.kind is EntryKind.DIRECTORY:
            yield path, ("d", 0, "")
