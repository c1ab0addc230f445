"""Search a file system for QuestDB."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import FileSystem, Node

DEPTH = 6
"""``/var/lib/docker/volumes/NAME/_data`` is that deep."""
_MOST_FOLDERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRoot:
    """A server root: its path inside the file system, "" for the top; whether it has ``.checkpoint/db``."""

    path: str
    checkpoint: bool


def find_roots(files: FileSystem) -> Iterator[FoundRoot]:
    """The server roots at most `DEPTH` folders deep, nearest first; 20,000 folders are looked into."""
    seen = {files.root.number}
    waiting = deque([("", 0, files.root)])
    while waiting:
        path, depth, folder = waiting.popleft()
        inner = {name: node for name, node in files.entries(folder) if node.kind is EntryKind.DIRECTORY}
        if found := _root(files, path, inner):
            yield found
            continue
        for name, node in inner.items():
            if depth < DEPTH and node.number not in seen and len(seen) < _MOST_FOLDERS:
                seen.add(node.number)
                waiting.append((f"{path}/{name}".lstrip("/"), depth + 1, node))


def _root(files: FileSystem, path: str, inner: dict[str, Node]) -> FoundRoot | None:
    held = inner.get(".checkpoint")
    checkpoint = held is not None and _is_folder(files.find(held, "db"))
    if checkpoint or ("db" in inner and _has_tables(files, inner["db"])):
        return FoundRoot(path=path, checkpoint=checkpoint)
    return None


def _has_tables(files: FileSystem, folder: Node) -> bool:
    """Whether it has the server's file of the newest table id, or a table's directory, ``name~id``."""
    return any(
        name == "_tab_index.d" or (node.kind is EntryKind.DIRECTORY and "~" in name)
        for name, node in files.entries(folder)
    )


def _is_folder(node: Node | None) -> bool:
    return node is not None and node.kind is EntryKind.DIRECTORY
