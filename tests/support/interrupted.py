"""A source whose reading is interrupted: something happens before its first byte."""

from collections.abc import Callable
from pathlib import Path

from tests.support.backups import FolderSource, FolderTree


class InterruptedTree(FolderTree):
    """Before its first byte is read something happens."""

    def __init__(self, root: Path, act: Callable[[], object]) -> None:
        super().__init__(root)
        self._acts = [act]

    def read(self, path: str, offset: int, length: int) -> bytes:
        if self._acts:
            self._acts.pop()()
        return super().read(path, offset, length)


class Interrupted(FolderSource):
    def __init__(self, root: Path, act: Callable[[], object]) -> None:
        super().__init__(root)
        self._tree = InterruptedTree(root, act)
