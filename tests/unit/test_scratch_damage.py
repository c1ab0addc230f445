"""Scratch and tombstones that a disk has spoilt: they cost time or space, and keep nobody from going on."""

from pathlib import Path
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.steps import prune
from questdb_backup.steps.lock import acquire_lock, release_lock
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.run import Run
from questdb_backup.steps.upload import upload_partitions
from tests.support.backups import INSTANCE, VERSION, put_over
from tests.support.checking import Chain, make_chain


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return make_chain(tmp_path, 1)


def dead_run(chain: Chain) -> Run:
    """One that stored all of its units and died then."""
    (chain.root / "db/trades~1/sym.c").write_text("of the dead run")
    services = chain.services
    run = Run.from_json(acquire_lock(services, "dead", {})["run"])
    plan = plan_backup(services, run, "frozen", VERSION, None, 0)
    for unit in range(plan["units"]):
        upload_partitions(services, run, {"unit": unit, "attempt": 0}, 0, workers=1)
    release_lock(services, run)
    return run


@pytest.mark.parametrize("spoilt", ["plan", "result"])
def test_a_dead_runs_damaged_scratch_is_passed_over_by_the_next_backup_and_prune(
    chain: Chain, spoilt: str
) -> None:
    run = dead_run(chain)
    key = (
        keys.plan(INSTANCE, run.backup_timestamp)
        if spoilt == "plan"
        else keys.result(INSTANCE, run.backup_timestamp, 0, 0)
    )
    put_over(chain.store, key, chain.store.get(key)[:-5])
    later = chain.backup("after it")
    assert chain.catalog().row(later.backup_timestamp).status == "backup complete"  # type: ignore[union-attr]
    assert chain.prune()["errors"] == []
    assert run.backup_timestamp not in {record.run for record in chain.catalog().runs}


def test_a_tombstone_that_cannot_be_read_deletes_nothing_and_stops_no_backup(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "_INLINE_NAMES", 0)
    dead_run(chain)
    chain.prune()
    ((key, _),) = [(stone.names_key, stone.removed) for stone in chain.catalog().tombstones]
    assert key is not None
    put_over(chain.store, key, b"[")
    chain.backup("after it")
    chain.forward(days=30)
    before = {name for name in chain.stored() if "/packs/" in name}
    assert chain.prune()["errors"]
    assert {name for name in chain.stored() if "/packs/" in name} == before


def test_the_scratch_of_a_published_run_is_found_again_by_a_prune_that_follows_a_dead_one(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []

    def die_half_way(names: list[str]) -> Any:
        deleted.extend(names[:-2])
        raise InterruptedError

    assert any(record.published for record in chain.catalog().runs)
    with monkeypatch.context() as patched:
        patched.setattr(prune._Cleanup, "_delete", lambda _self, names: die_half_way(names))
        with pytest.raises(InterruptedError):
            chain.prune()
    assert not any(name.endswith(("/plan.json", "/settled.json")) for name in deleted)
    assert any("/units/" in name for name in deleted)
