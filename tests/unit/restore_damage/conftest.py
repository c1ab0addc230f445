"""A stored root whose objects are harmed."""

from pathlib import Path

import pytest

from questdb_backup.services import Services
from questdb_backup.stores.base import ObjectStore
from tests.support.backups import back_up, make_root, make_services, put_over


@pytest.fixture
def stored(tmp_path: Path) -> Services:
    services = make_services(make_root(tmp_path / "origin"))
    back_up(services)
    return services


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here, and a busy disk would be waited for."""
    monkeypatch.setattr("questdb_backup.restore.marks.sync_file_system", lambda _descriptor: None)


@pytest.fixture
def new_root(tmp_path: Path) -> Path:
    return tmp_path / "new"


def flip(store: ObjectStore, key: str, _other: str) -> None:
    data = bytearray(store.get(key))
    at = data.find(b'"digest": "') + 11 if b'"format"' in data else len(data) // 2
    data[at] ^= 0x08
    put_over(store, key, bytes(data))


def assert_nothing_in_place(root: Path) -> None:
    assert not (root / "_restore").exists()
    assert not (root / "db").exists()
    assert not (root / ".checkpoint").exists()
