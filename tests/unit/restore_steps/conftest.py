"""A stored root, and what its restores are tried with."""

from pathlib import Path

import pytest

from questdb_backup import packs
from questdb_backup.restore import contents
from questdb_backup.restore.request import Restore
from questdb_backup.services import Services
from questdb_backup.steps.plan_restore import plan_restore
from tests.support.backups import back_up, make_root, make_services

STAGING = ".restore_staging"
REBUILD = "cairo.checkpoint.recovery.rebuild.column.indexes=true"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_root(tmp_path / "origin")


@pytest.fixture
def stored(origin: Path) -> Services:
    services = make_services(origin)
    back_up(services)
    return services


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, and a busy disk would be waited for."""
    monkeypatch.setattr("questdb_backup.restore.marks.sync_file_system", lambda _descriptor: None)


@pytest.fixture
def new_root(tmp_path: Path) -> Path:
    return tmp_path / "new"


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs and units of one MiB, so that a small backup has many."""
    monkeypatch.setattr(packs, "PACK_BYTES", 1 << 20)
    monkeypatch.setattr(contents, "_SMALLEST_UNIT", 1 << 20)
    monkeypatch.setattr(contents, "UNIT_BYTES", 1 << 20)


def planned(services: Services, root: Path, execution: str = "restore-1") -> tuple[Restore, list[int]]:
    state = plan_restore(services, execution, {"root": str(root)})
    return Restore.from_json(state["restore"]), state["units"]


def assert_untouched(root: Path) -> None:
    """Nothing that a server would start on is in the root."""
    assert not (root / "_restore").exists()
    assert not (root / "db").exists()
    assert not (root / ".checkpoint").exists()
