"""A live backup that counts what it asks of the store and what it reads of the root."""

import os
import threading
from dataclasses import replace
from typing import Any

from questdb_backup.local.options import Options, Place
from questdb_backup.local.runner import run_backup
from questdb_backup.services import Services
from questdb_backup.source.base import Tree, TreeEntry
from questdb_backup.source.path import CheckpointSource, LocalTree
from questdb_backup.stores.counting import CountingStore, RequestCounts


class CountingTree:
    """A tree that notes which paths were listed, looked at and read, by planner and workers alike."""

    def __init__(self, inner: Tree) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.touched: set[str] = set()

    def entries(self, path: str) -> list[TreeEntry]:
        self._note(path)
        return self._inner.entries(path)

    def stat(self, path: str) -> TreeEntry:
        self._note(path)
        return self._inner.stat(path)

    def read_link(self, path: str) -> str:
        self._note(path)
        return self._inner.read_link(path)

    def read(self, path: str, offset: int, length: int) -> bytes:
        self._note(path)
        return self._inner.read(path, offset, length)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        self._note(path)
        return self._inner.read_into(path, offset, buffer)

    def _note(self, path: str) -> None:
        with self._lock:
            self.touched.add(path)


class Measured:
    """Services of a place with a counting store and a counting tree."""

    def __init__(self, options: Options) -> None:
        self.place = Place(options, os.environ)
        root = self.place.root
        assert root is not None
        sound = self.place.services
        self.tree = CountingTree(LocalTree(root))
        self.store = CountingStore(sound.store)
        self.services: Services = replace(
            sound,
            make_store=lambda: self.store,
            make_source=lambda version: CheckpointSource(self.tree, server_version=version),
        )

    def back_up(self) -> tuple[dict[str, Any], RequestCounts]:
        """One backup: its output, and the requests that the workflow made."""
        before = self.store.counts
        made = run_backup(self.place, {}, workflow_services=self.services)
        return made, self.store.counts - before
