"""The verb check on a store in a folder: words, JSON, exit codes, and the million keys that it must bear."""

import json
import os
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.check import inventory
from questdb_backup.check.inventory import Inventory, Name, Why
from questdb_backup.cli.main import main
from questdb_backup.stores.base import StoredObject
from questdb_backup.stores.open import open_store
from tests.support.backups import INSTANCE, the_manifest
from tests.support.checking import Chain, make_chain


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("QDB_")]:
        monkeypatch.delenv(name)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/store/_backup/atomic;"


@pytest.fixture
def chain(tmp_path: Path, text: str) -> Chain:
    (tmp_path / "store" / "_backup").mkdir(parents=True)
    return make_chain(tmp_path, 2, store=open_store(text, max_connections=2))


@pytest.fixture
def check(text: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["check", "--object-store", text, *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_sound_store_ends_with_0_and_its_backups_are_whole(chain: Chain, check: Any) -> None:
    code, out, err = check()
    assert (code, err) == (0, "")
    assert out.count("whole    ") == 2
    code, out, _ = check("--json")
    value = json.loads(out)
    assert (code, value["ok"], value["problems"]) == (0, True, [])
    assert value["objects"] == len(chain.stored())
    assert value["foreign"]["objects"] == 0, "what is being written in atomic_write_dir is no object"


def test_damage_ends_with_1_and_names_backup_and_file(chain: Chain, check: Any) -> None:
    _, manifest = the_manifest(chain.store)
    pack = keys.pack(INSTANCE, sorted(manifest.packs)[-1])
    chain.store.delete([pack])
    code, out, _ = check()
    assert code == 1
    assert f"problem  {pack} is missing" in out
    assert f"damaged  {manifest.backup_timestamp}" in out
    assert "db/trades~1/sym.c" in out
    code, out, _ = check("--repair", "--json")
    value = json.loads(out)
    assert (code, value["noted"]) == (1, [sorted(manifest.packs)[-1]])
    assert [backup["restorable"] for backup in value["backups"]] == [True, False]


def test_orphans_and_foreign_objects_end_with_0(chain: Chain, check: Any) -> None:
    run = chain.catalog().rows[0].backup_timestamp
    orphan = keys.pack(INSTANCE, keys.pack_name(run, 90, 0, 0))
    chain.store.create(orphan, b"left")
    chain.store.create("_backup/notes", b"mine")
    code, out, _ = check()
    assert code == 0
    assert "orphans  1 objects, 4 B" in out, "the clock of these backups is long past"
    assert orphan in out
    assert "foreign  1 objects" in out
    assert check("--remove-orphans", "--dry-run", "--json")[0] == 0
    assert not chain.catalog().tombstones
    code, out, _ = check("--remove-orphans")
    assert (code, "1 objects noted for deletion" in out) == (0, True)
    assert chain.catalog().tombstones[0].names == (orphan,)


def test_a_lost_catalog_is_shown_rebuilt_and_then_there(chain: Chain, check: Any) -> None:
    before = chain.catalog()
    chain.store.delete([keys.catalog(INSTANCE), keys.INSTANCES])
    code, out, _ = check()
    assert (code, "--rebuild" in out) == (1, True)
    code, out, _ = check("--rebuild", "--dry-run")
    assert (code, "would be written: 2 backups" in out) == (0, True)
    code, out, _ = check("--rebuild", "--json")
    value = json.loads(out)
    assert (code, value["named"], value["instances"][0]["written"]) == (0, [INSTANCE], True)
    assert [row.manifest for row in chain.catalog().rows] == [row.manifest for row in before.rows]
    assert check()[0] == 0
    code, _, err = check("--rebuild")
    assert (code, "can be read" in err) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ("--dry-run",),
        ("--force",),
        ("--read-data",),
        ("--pack", "x/0-0-0"),
        ("--rebuild", "--read-data"),
        ("--repair", "--force"),
        ("--repair", "--read-data", "8/7"),
        ("--grace-hours", "-1"),
    ],
)
def test_words_that_do_not_fit_end_with_2(chain: Chain, check: Any, words: tuple[str, ...]) -> None:
    code, out, err = check(*words)
    assert (code, out) == (2, "")
    assert "Hint: " in err
    assert chain.catalog().lease is None


def test_two_acts_at_once_are_wrong_usage(text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--object-store", text, "--rebuild", "--repair"])
    assert ended.value.code == 2


def test_the_memory_stays_flat_however_many_keys_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand keys in batches of a hundred: what stays in memory is less than a hundredth of them."""
    monkeypatch.setattr(inventory, "BATCH", 100)
    run = "2026-03-01T12:00:00.000000Z"

    def packs() -> Iterator[str]:
        for number in range(20_000):
            yield keys.pack(INSTANCE, keys.pack_name(run, number, 0, 0))

    with Inventory() as table:
        table.take(StoredObject(key, 1) for key in ("_backup/x", keys.catalog(INSTANCE)))
        tracemalloc.start()
        table.take(StoredObject(key, 1) for key in packs())
        table.name((Name(key, 1) for key in packs()), Why.BACKUP)
        table.compare(keys.instance_prefix(INSTANCE))
        assert sum(1 for _ in table.with_reasons(INSTANCE)) == 20_001
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 300_000
