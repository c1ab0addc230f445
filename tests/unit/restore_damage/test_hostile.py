"""Objects that are whole and lie: a restore refuses them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from questdb_backup import keys
from questdb_backup.codec import compress_text, digest_of
from questdb_backup.errors import DamagedBackupError, UnsupportedFormatError
from questdb_backup.manifest import Entry, Group
from questdb_backup.packs import ChunkRef, PackInfo
from questdb_backup.restore.point import find_restore_point
from questdb_backup.sealed import seal
from questdb_backup.services import Services
from questdb_backup.verify import verify
from tests.support.backups import (
    INSTANCE,
    forge,
    forge_groups,
    put_bytes,
    put_over,
    restore_by_steps,
    the_manifest,
)
from tests.unit.restore_damage.conftest import assert_nothing_in_place, flip

# ---- Hostile manifests: whoever wrote them has the digests right.


def entry(path: str, size: int = 0, **more: object) -> Entry:
    chunks: tuple[ChunkRef, ...] = ()
    if size:
        chunks = (ChunkRef("", 0, 0, size, digest_of(bytes(size)), "zero"),)
    return Entry(**{"path": path, "kind": "f", "mode": 0o644, "size": size, "chunks": chunks, **more})  # type: ignore[arg-type]


def group(*entries: Entry) -> Group:
    return Group(table="evil~9", partition="", signature=None, entries=entries)


def raw(path: str) -> bytes:
    value = {"path": path, "kind": "f", "mode": 420, "size": 0}
    return (
        json.dumps({"table": "evil~9", "partition": "", "signature": None, "entries": [value]}).encode()
        + b"\n"
    )


def refuse(services: Services, root: Path, words: str, error: type[Exception] = DamagedBackupError) -> None:
    """Restore and verify both refuse; nothing is in place."""
    with pytest.raises(error, match=words):
        restore_by_steps(services, {"root": str(root)})
    assert_nothing_in_place(root)


@pytest.mark.parametrize(
    "path",
    [
        "../../evil",
        "/etc/evil",
        "db/../../evil",
        "db//x",
        "./x",
        "",
        "db/" + "n" * 300,
        "db/nul\0",
        "db/\ud800",
    ],
)
def test_a_path_that_leads_out_is_refused(stored: Services, new_root: Path, path: str) -> None:
    shard = forge_groups(stored.store, raw(path), files=1)
    refuse(stored, new_root, "unsafe path|cannot be read")
    assert not (new_root.parent / "evil").exists()
    report = verify(stored, INSTANCE)
    assert any(shard.key in problem for problem in report.problems)


@pytest.mark.parametrize(
    "line", [b"[]\n", b"{}\n", b"null\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"table": 1}\n']
)
def test_a_line_that_is_no_group_is_refused(stored: Services, new_root: Path, line: bytes) -> None:
    shard = forge_groups(stored.store, line)
    refuse(stored, new_root, shard.key)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "l"},
        {"size": -1},
        {"size": 5},
        {"mode": "rw"},
        {"size": float("inf")},
        {"kind": "d", "size": 0.5},
    ],
)
def test_an_entry_that_cannot_be_is_refused(
    stored: Services, new_root: Path, fields: dict[str, object]
) -> None:
    value = {"path": "db/x", "kind": "f", "mode": 420, "size": 0, **fields}
    line = json.dumps({"table": "evil~9", "partition": "", "signature": None, "entries": [value]})
    forge_groups(stored.store, line.encode() + b"\n", files=1)
    if fields == {"kind": "d", "size": 0.5}:  # read as an empty directory: the count of files does not match
        refuse(stored, new_root, "the manifest says")
    else:
        refuse(stored, new_root, "shard ")


def test_the_same_path_twice_in_one_unit_is_refused(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("questdb_backup.shards.named_twice", lambda _: None)  # as a shard by another hand
    forge_groups(stored.store, group(entry("db/twice", 10), entry("db/twice", 20)))
    refuse(stored, new_root, "names 'db/twice' twice")


def test_the_same_path_in_two_units_is_refused(
    stored: Services, new_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("questdb_backup.restore.contents._PIECES", 1)
    forge_groups(stored.store, group(entry("db/trades~1/sym.c", 19)))
    refuse(stored, new_root, "names a path twice|has no '|bytes in the staging directory|names one path")


def test_a_path_below_a_file_is_refused(stored: Services, new_root: Path) -> None:
    forge_groups(stored.store, group(entry("db/trades~1/sym.c/below", 10)))
    refuse(stored, new_root, "in its way")


def test_a_file_in_the_place_of_a_directory_is_refused(stored: Services, new_root: Path) -> None:
    forge_groups(stored.store, group(entry("db/trades~1/2026-03-01/price.d/below", 10), entry("db/new/x", 1)))
    forge_groups(stored.store, group(entry("db/new", 10)))
    refuse(stored, new_root, "in its way")


def test_a_file_that_is_also_named_as_a_directory_is_refused(stored: Services, new_root: Path) -> None:
    forge_groups(stored.store, group(entry("db/trades~1", 10)))
    refuse(stored, new_root, "names 'db/trades~1' twice")


def test_every_flipped_bit_of_the_catalog_is_refused(stored: Services) -> None:
    key = keys.catalog(INSTANCE)
    data = stored.store.get(key)
    for at in range(len(data)):
        for bit in (0x01, 0x40):
            flipped = bytearray(data)
            flipped[at] ^= bit
            put_over(stored.store, key, bytes(flipped))
            with pytest.raises(DamagedBackupError, match=r"catalog\.json .* cannot be read"):
                find_restore_point(stored.store, INSTANCE, None)


def test_a_hundred_thousand_levels_are_refused(stored: Services, new_root: Path) -> None:
    forge_groups(stored.store, group(entry("db/" + "a/" * 50_000 + "x", 10)))
    refuse(stored, new_root, "in its way")


@pytest.mark.parametrize("planted", ["db", "db/trades~1", "db/trades~1/sym.c"])
def test_a_symlink_planted_in_the_staging_directory_is_not_followed(
    stored: Services, new_root: Path, planted: str
) -> None:
    outside = new_root.with_name("outside")
    outside.mkdir()
    (outside / "sym.c").write_text("precious")
    link = new_root / ".restore_staging" / "tree" / planted
    flip(stored.store, keys.pack(INSTANCE, next(iter(the_manifest(stored.store)[1].packs))), "")
    with pytest.raises(DamagedBackupError):
        restore_by_steps(stored, {"root": str(new_root)})  # leaves an unfinished staging directory
    flip(stored.store, keys.pack(INSTANCE, next(iter(the_manifest(stored.store)[1].packs))), "")
    if link.exists():
        link.rename(new_root / "moved")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "sym.c" if planted.endswith(".c") else outside)
    refuse(stored, new_root, "in its way")
    assert sorted(path.name for path in outside.iterdir()) == ["sym.c"]
    assert (outside / "sym.c").read_text() == "precious"


def test_a_restore_brings_no_trigger_and_no_name_of_its_own_back(stored: Services, new_root: Path) -> None:
    names = (
        "_restore",
        "_backup_restore",
        ".restore_staging/x",
        ".restore_failed/x",
        "db/.backup_instance_name",
    )
    forge_groups(stored.store, group(*(entry(name, 5) for name in names)))
    restore_by_steps(stored, {"root": str(new_root)})
    assert (new_root / "_restore").stat().st_size == 0
    assert sorted(path.name for path in new_root.iterdir()) == [".checkpoint", "_restore", "conf", "db"]
    assert not (new_root / "db" / ".backup_instance_name").exists()


def test_the_trigger_is_never_written_without_the_checkpoint(stored: Services, new_root: Path) -> None:
    _, manifest = the_manifest(stored.store)
    forge_groups(stored.store, group(entry("db/only/this", 5)))
    _, manifest = the_manifest(stored.store)
    forge(stored.store, replace(manifest, tables=manifest.tables[-1:]))
    refuse(stored, new_root, r"the backup has no \.checkpoint/db")


@pytest.mark.parametrize(
    "lie",
    [
        {"files": 7},
        {"bytes": 7},
        {"bytes": -1},
        {"bytes": "many"},
        {"plain_size": 3},
        {"key": 5},
        {"bytes": 1 << 70},
    ],
)
def test_a_manifest_that_lies_about_a_shard_is_refused(
    stored: Services, new_root: Path, lie: dict[str, Any]
) -> None:
    forge_groups(stored.store, group(entry("db/x", 5)), **lie)
    refuse(stored, new_root, "manifest|shard|free")


@pytest.mark.parametrize("named", [0, 1])
def test_a_manifest_that_leaves_out_a_pack_of_a_shard_is_refused(
    stored: Services, new_root: Path, named: int
) -> None:
    """What no unit reads would be a hole in the restored file; another pack in its place is no better."""
    chunk, info = stored_chunk(stored, b"x" * 1000, digest=digest_of(b"x" * 1000), codec="raw")
    one = Entry(path="db/x", kind="f", mode=0o644, size=1000, chunks=(chunk,))
    forge_groups(stored.store, group(one), packs={chunk.pack: info})
    _, manifest = the_manifest(stored.store)
    *others, evil = manifest.tables
    lying = replace(evil.shards[0], packs=dict.fromkeys(list(manifest.packs)[:named], 5))
    assert chunk.pack not in lying.packs
    forge(stored.store, replace(manifest, tables=(*others, replace(evil, shards=(lying,)))))
    refuse(stored, new_root, "needs other packs than the manifest says")


@pytest.mark.parametrize("target", ["manifest", "catalog"])
def test_a_newer_format_is_refused_by_that_name(stored: Services, new_root: Path, target: str) -> None:
    ref, _ = the_manifest(stored.store)
    key = ref.key if target == "manifest" else keys.catalog(INSTANCE)
    value = json.loads(stored.store.get(key)) | {"format": 2}
    if target == "manifest":
        put_bytes(stored.store, ref, json.dumps(value).encode())
    else:
        put_over(stored.store, key, seal({name: value[name] for name in value.keys() - {"digest"}}))
    refuse(stored, new_root, "newer format", UnsupportedFormatError)


def bomb(length: int) -> bytes:
    """A small frame that declares and holds many zeros."""
    making = zstandard.ZstdCompressor(level=3).compressobj(size=length)
    parts = [making.compress(bytes(1 << 20)) for _ in range(length >> 20)]
    return b"".join([*parts, making.flush()])


def stored_chunk(services: Services, data: bytes, **lies: object) -> tuple[ChunkRef, PackInfo]:
    name = "20260101T000000.000000Z/0-0-0"
    services.store.create(keys.pack(INSTANCE, name), data)
    facts = {
        "pack": name,
        "offset": 0,
        "stored": len(data),
        "plain": 1000,
        "digest": "00",
        "codec": "zstd",
        **lies,
    }
    return ChunkRef(**facts), PackInfo(len(data), digest_of(data))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "lies", "words"),
    [
        (bomb(64 << 20), {}, "declares another size"),
        (compress_text(bytes(1000)), {}, "does not match its digest"),
        (compress_text(bytes(900)), {}, "declares another size"),
        (b"\x28\xb5\x2f\xfd", {}, "is damaged"),
        (bytes(1000), {"codec": "raw"}, "does not match its digest"),
        (bytes(1000), {"codec": "lzma"}, "codec 'lzma' is unknown"),
        (bytes(10), {"stored": 1000, "codec": "raw"}, "is truncated"),
        (bytes(10), {"offset": 99, "codec": "raw"}, "is truncated"),
        (bytes(10), {"pack": "../../x"}, "is not a key"),
        (bytes(10), {"codec": "zero"}, "a hole that its digest does not know"),
    ],
)
def test_a_chunk_that_is_not_what_it_says_is_refused(
    stored: Services, new_root: Path, data: bytes, lies: dict[str, object], words: str
) -> None:
    chunk, info = stored_chunk(stored, data, **lies)
    entries = group(entry("db/x", size=0, chunks=(chunk,)))
    lying = replace(entries.entries[0], size=chunk.plain)
    forge_groups(stored.store, replace(entries, entries=(lying,)), packs={chunk.pack: info})
    refuse(stored, new_root, words, (DamagedBackupError, UnsupportedFormatError))  # type: ignore[arg-type]


def test_a_frame_of_a_shard_that_declares_gigabytes_is_not_unpacked(stored: Services, new_root: Path) -> None:
    shard = forge_groups(stored.store, group(entry("db/x", 5)), plain_size=1 << 60)
    put_over(stored.store, shard.key, bomb(1 << 31))
    refuse(stored, new_root, "declares 2147483648 bytes")
