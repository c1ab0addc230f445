"""A store with backups of a small folder, for the tests of check: a clock that moves, prune, harm."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from questdb_backup.catalog import Catalog, drop_lease
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.services import Services
from questdb_backup.steps.lock import take_lease
from questdb_backup.steps.prune import prune_backups
from questdb_backup.steps.run import Run
from questdb_backup.stores.base import ObjectStore
from tests.support.backups import INSTANCE, Ticking, back_up, make_root, make_services


@dataclass
class Chain:
    """Backups of one root over time."""

    root: Path
    services: Services
    made: int = 0

    @property
    def store(self) -> ObjectStore:
        return self.services.store

    def backup(self, text: str | None = None) -> Run:
        """One more backup; with a text the root is changed before."""
        if text is not None:
            (self.root / "db/trades~1/sym.c").write_text(text)
        self.made += 1
        return back_up(self.services, f"run-{self.made}")

    def forward(self, **step: float) -> None:
        assert isinstance(self.services.clock, Ticking)
        self.services.clock.now += timedelta(**step)

    def prune(self) -> dict[str, Any]:
        token = take_lease(self.services, INSTANCE, "prune", "prune")
        try:
            return prune_backups(self.services, INSTANCE, token)
        finally:
            self.change(lambda before: drop_lease(before, token, "done", self.services.now()))

    def catalog(self) -> Catalog:
        return read_catalog(self.store, INSTANCE)

    def change(self, change: Any) -> Catalog:
        return update_catalog(self.store, INSTANCE, change)

    def stored(self) -> set[str]:
        return {item.key for item in self.store.list("_backup/")}


def make_chain(
    folder: Path, backups: int = 3, *, store: ObjectStore | None = None, big: int = 3_000
) -> Chain:
    """``backups`` backups, each with a change of its own."""
    root = make_root(folder / "origin", big=big)
    for path in root.rglob("zeros.d"):
        path.write_bytes(bytes(3_000))
    chain = Chain(root, make_services(root, store))
    for number in range(backups):
        chain.backup(f"symbols of backup {number}" if number else None)
    return chain
