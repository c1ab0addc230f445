"""How long `prune` lets packs of a removed backup wait: by the runs that there were."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.catalog import BackupRow, Catalog
from questdb_backup.cli.main import main
from questdb_backup.clock import add_seconds, seconds_between
from questdb_backup.stores.open import open_store
from questdb_backup.words import BackupStatus
from tests.support.backups import INSTANCE
from tests.support.checking import Chain, make_chain

HOUR = 3600.0


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("QDB_BACKUP_OBJECT_STORE", raising=False)
    (tmp_path / "store" / "_backup").mkdir(parents=True)
    return f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/store/_backup/atomic;"


@pytest.fixture
def chain(tmp_path: Path, text: str) -> Chain:
    return make_chain(tmp_path, 3, store=open_store(text, max_connections=2))


def ran_for(chain: Chain, hours: float, status: BackupStatus) -> None:
    """Let the catalog tell that the first run took so long and ended so."""

    def changed(row: BackupRow) -> BackupRow:
        manifest = row.manifest if status is BackupStatus.BACKUP_COMPLETE else None
        end = add_seconds(row.start_ts, hours * HOUR)
        return replace(row, end_ts=end, status=status, manifest=manifest)

    def change(before: Catalog) -> Catalog:
        return replace(before, rows=(changed(before.rows[0]), *before.rows[1:]))

    chain.change(change)


def prune(text: str, *words: str) -> int:
    return main(
        ["prune", "--object-store", text, "--instance-name", INSTANCE, "--cleanup-keep-latest-n", "1", *words]
    )


def graces(chain: Chain) -> set[float]:
    """Hours."""
    return {
        round(seconds_between(stone.created_at, stone.delete_after) / HOUR)
        for stone in chain.catalog().tombstones
    }


@pytest.mark.parametrize(
    ("hours", "status", "grace"),
    [
        (1.0, BackupStatus.BACKUP_COMPLETE, 48),
        (40.0, BackupStatus.BACKUP_COMPLETE, 80),
        (720.0, BackupStatus.BACKUP_FAILED, 48),
    ],
    ids=["short", "long", "found dead after a month"],
)
def test_without_a_word_it_is_48_hours_or_twice_the_longest_run(
    chain: Chain, text: str, hours: float, status: BackupStatus, grace: int
) -> None:
    ran_for(chain, hours, status)
    assert prune(text) == 0
    assert graces(chain) == {grace}


def test_a_shorter_grace_is_refused_with_the_least_one(chain: Chain, text: str, capsys: Any) -> None:
    ran_for(chain, 40.0, BackupStatus.BACKUP_COMPLETE)
    before = chain.catalog()
    assert prune(text, "--grace-hours", "48") == 2
    assert "at least 80.0000" in capsys.readouterr().err
    assert chain.catalog() == before
    assert prune(text, "--grace-hours", "81") == 0
    assert graces(chain) == {81}
