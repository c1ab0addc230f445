"""The request budget of a restore: each pack once, a few requests for a table, and no list."""

from pathlib import Path

import pytest

from questdb_backup import keys, packs
from questdb_backup.restore import contents
from questdb_backup.services import Services
from questdb_backup.stores.counting import CountingStore
from tests.support.backups import INSTANCE, back_up, make_root, make_services, restore_by_steps, the_manifest

PER_TABLE, PER_RESTORE = 4, 8


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Five backups with packs of 1 MiB and units as small, each of which changes both tables."""
    monkeypatch.setattr("questdb_backup.restore.marks.sync_file_system", lambda _descriptor: None)
    monkeypatch.setattr(packs, "PACK_BYTES", 1 << 20)
    monkeypatch.setattr(contents, "_SMALLEST_UNIT", 1 << 20)
    monkeypatch.setattr(contents, "UNIT_BYTES", 1 << 20)
    origin = make_root(tmp_path / "origin", big=3_000_000)
    services = make_services(origin)
    for number in range(5):
        for table in ("trades~1", "quotes~2"):
            (origin / "db" / table / f"2026-03-0{number % 3 + 1}" / "price.d").write_bytes(
                f"{table} {number}".encode() * 50
            )
        back_up(services, f"run-{number}")
    return services


def test_a_restore_reads_each_pack_once_and_little_besides(chain: Services, tmp_path: Path) -> None:
    counting = CountingStore(chain.store)
    restore_by_steps(make_services(None, counting), {"root": str(tmp_path / "new")})
    _, manifest = the_manifest(chain.store)
    assert len({name.split("/")[0] for name in manifest.packs}) > 2
    found = counting.counts
    assert found.get <= len(manifest.packs) + PER_TABLE * len(manifest.tables) + PER_RESTORE
    assert found.list == found.put == found.delete == 0


class Watching(CountingStore):
    """Notes the ranges of packs that are read."""

    def __init__(self, inner: CountingStore) -> None:
        super().__init__(inner)
        self.ranges: list[tuple[str, int, int]] = []

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.ranges.append((key, offset, length))
        return super().get_range(key, offset, length)


def test_large_parts_of_a_pack_that_nobody_needs_are_left_out(
    chain: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("questdb_backup.restore.download.GAP_BYTES", 0)
    watching = Watching(CountingStore(chain.store))
    restore_by_steps(make_services(None, watching), {"root": str(tmp_path / "new")})
    _, manifest = the_manifest(chain.store)
    read = sum(length for _, _, length in watching.ranges)
    wanted = sum(size for table in manifest.tables for it in table.shards for size in it.packs.values())
    assert read <= wanted < sum(info.size for info in manifest.packs.values())
    assert {key for key, _, _ in watching.ranges} <= {keys.pack(INSTANCE, name) for name in manifest.packs}
