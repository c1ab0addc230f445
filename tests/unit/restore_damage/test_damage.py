"""Damaged objects: a restore names them and puts nothing in place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.errors import BackupToolError, DamagedBackupError
from questdb_backup.services import Services
from questdb_backup.stores.base import ObjectStore
from tests.support.backups import INSTANCE, make_services, put_over, restore_by_steps, the_manifest
from tests.unit.restore_damage.conftest import assert_nothing_in_place, flip

Harm = Callable[[ObjectStore, str, str], None]


def truncate(store: ObjectStore, key: str, _other: str) -> None:
    put_over(store, key, store.get(key)[: len(store.get(key)) // 3])


def remove(store: ObjectStore, key: str, _other: str) -> None:
    store.delete([key])


def swap(store: ObjectStore, key: str, other: str) -> None:
    put_over(store, key, store.get(other))


def empty(store: ObjectStore, key: str, _other: str) -> None:
    put_over(store, key, b"")


def objects(store: ObjectStore) -> dict[str, str]:
    """A key of each class."""
    ref, manifest = the_manifest(store)
    shards = [shard.key for table in manifest.tables for shard in table.shards]
    return {
        "catalog": keys.catalog(INSTANCE),
        "manifest": ref.key,
        "shard": shards[0],
        "last shard": shards[-1],
        "pack": keys.pack(INSTANCE, next(iter(manifest.packs))),
    }


@pytest.mark.parametrize("harm", [flip, truncate, remove, swap, empty])
@pytest.mark.parametrize("kind", ["catalog", "manifest", "shard", "last shard", "pack"])
def test_a_damaged_object_is_named_and_nothing_is_placed(
    stored: Services, new_root: Path, kind: str, harm: Harm
) -> None:
    found = objects(stored.store)
    other = found["shard" if kind != "shard" else "last shard"]
    harm(stored.store, found[kind], other)
    with pytest.raises(BackupToolError) as caught:
        restore_by_steps(make_services(None, stored.store), {"root": str(new_root)})
    # A catalog that can still be read is found out by the manifest that it names.
    assert (found[kind] if kind != "catalog" else "catalog") in str(caught.value)
    assert_nothing_in_place(new_root)


def test_a_damaged_pack_is_named_with_the_file_that_needs_it(stored: Services, new_root: Path) -> None:
    flip(stored.store, objects(stored.store)["pack"], "")
    with pytest.raises(
        DamagedBackupError, match=r"packs/.* is damaged: .*'db/trades~1/2026-03-01/price.d'|quotes"
    ):
        restore_by_steps(stored, {"root": str(new_root)})


def test_after_the_repair_of_the_store_the_same_restore_goes_on(stored: Services, new_root: Path) -> None:
    key = objects(stored.store)["pack"]
    whole = stored.store.get(key)
    truncate(stored.store, key, "")
    with pytest.raises(DamagedBackupError, match="is truncated"):
        restore_by_steps(stored, {"root": str(new_root)})
    assert (new_root / ".restore_staging").is_dir()
    put_over(stored.store, key, whole)
    restore_by_steps(stored, {"root": str(new_root)})
    assert (new_root / "_restore").exists()
