"""A root without a checkpoint, made by hand: what a backup that begins now would reference."""

import struct
from pathlib import Path

import pytest

from questdb_backup.source.base import PlannedFile
from questdb_backup.source.live import LiveSource
from questdb_backup.source.path import CheckpointSource, LocalTree
from tests.support.planned import planned_groups
from tests.support.questdb_files import DAY, START, OneTable, make_cv, make_log, make_meta, make_txn

LIVE, SAVED = "db/t~9", ".checkpoint/db/t~9"
VERSION = "9.3.4"


@pytest.fixture
def table(tmp_path: Path) -> OneTable:
    """The live files say what the checkpoint says."""
    table = OneTable(tmp_path / "root").write()
    for name in ("_meta", "_txn", "_cv", "_name"):
        table.put(f"{LIVE}/{name}", table.files[f"{SAVED}/{name}"])
    table.put(f"{LIVE}/txn_seq/_txnlog", make_log(((1, 0, 0), (2, 7, 0))))
    return table


def live(table: OneTable, version: str | None = VERSION) -> LiveSource:
    return LiveSource(LocalTree(table.root), server_version=version)


def sizes(source: CheckpointSource) -> dict[str, int]:
    files: list[PlannedFile] = [file for group in planned_groups(source) for file in group.files]
    return {file.path: file.size for file in files if not file.path.startswith(".checkpoint")}


def test_it_references_what_a_checkpoint_now_would(table: OneTable) -> None:
    under_checkpoint = CheckpointSource(LocalTree(table.root), server_version=VERSION)
    found, wanted = sizes(live(table)), sizes(under_checkpoint)

    copied = {f"{LIVE}/{name}" for name in ("_meta", "_txn", "_cv", "txn_seq/_meta")}
    assert {path: size for path, size in found.items() if path not in copied} == wanted
    assert copied <= set(found)


def test_its_signatures_are_those_of_the_checkpoint(table: OneTable) -> None:
    under_checkpoint = CheckpointSource(LocalTree(table.root), server_version=VERSION)
    signatures = [(each.partition, each.signature) for each in live(table).outlines()]

    assert signatures == [(each.partition, each.signature) for each in under_checkpoint.outlines()]
    assert len([text for _, text in signatures if text]) == 2
    assert [*live(table).tables()] == [*under_checkpoint.tables()]


def test_an_unknown_version_signs_nothing(table: OneTable) -> None:
    assert {each.signature for each in live(table, None).outlines()} == {None}


def test_no_checkpoint_needs_to_be_there(table: OneTable) -> None:
    with_it = sizes(live(table))
    (table.root / ".checkpoint").rename(table.root / "elsewhere")

    assert sizes(live(table)) == with_it
    assert live(table).torn_tables() == []


def test_a_table_without_wal_is_told_by_its_state(table: OneTable) -> None:
    folder = "db/plain~3"
    partitions = ((START, 1, -1, -1), (START + DAY, 0, -1, -1))
    table.put(f"{folder}/_meta", make_meta((("n", 5, 0),), timestamp=-1))
    table.put(f"{folder}/_txn", make_txn(transient=2, fixed=1, partitions=partitions))
    table.put(f"{folder}/_cv", make_cv())
    for day in ("2024-01-01", "2024-01-02"):
        table.put(f"{folder}/{day}/n.d", bytes(4096))
    source = live(table)

    assert [(found.name, found.kind) for found in source.tables()] == [("plain", "non-wal"), ("t", "wal")]
    assert [sizes(source)[f"{folder}/{day}/n.d"] for day in ("2024-01-01", "2024-01-02")] == [4, 8]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (f"{LIVE}/_txn", b"torn"),
        (f"{LIVE}/_lv", b""),
        (f"{LIVE}/txn_seq/_txnlog", make_log(((1, 0, 0),), version=1)),
    ],
)
def test_a_table_of_an_unknown_layout_is_taken_by_the_size_of_its_directory(
    table: OneTable, path: str, data: bytes
) -> None:
    table.put(path, data)
    source = live(table)

    assert [found.kind for found in source.tables()] == ["unknown"]
    assert {each.partition for each in source.outlines()} == {""}
    assert sizes(source)[f"{LIVE}/2024-01-05/n.d"] == len(b"not in the checkpoint")
    assert source.missed == []


def test_a_dropped_table_that_waits_for_its_purge_is_none(table: OneTable) -> None:
    table.put(f"{LIVE}/txn_seq/_txnlog", make_log(((1, 0, 0), (-2, 0, 0))))

    assert [each.table for each in live(table).outlines()] == [""]


def test_a_folder_without_a_table_is_none(table: OneTable) -> None:
    table.put("db/lost+found/x", b"x")

    assert {each.table for each in live(table).outlines()} == {"t~9", ""}


def test_a_file_that_is_not_there_is_told_and_the_rest_is_planned(table: OneTable) -> None:
    (table.root / LIVE / "2024-01-01" / "n.d").unlink()
    source = live(table)
    found = sizes(source)

    assert source.missed == [f"{LIVE}/2024-01-01/n.d is missing, the checkpoint needs 12 bytes of it"]
    assert f"{LIVE}/2024-01-02.5/n.d" in found


def test_every_wal_is_taken_where_a_materialized_view_reads_the_table(table: OneTable) -> None:
    for name in ("_meta", "_txn", "_cv"):
        table.put(f"db/mv~10/{name}", table.files[f"{SAVED}/{name}"])
    table.put("db/mv~10/_mv", struct.pack("<i", 1) + "t".encode("utf-16-le"))
    table.put("db/mv~10/txn_seq/_txnlog", make_log(()))

    assert f"{LIVE}/wal1/0/_event" in sizes(live(table))
    assert [found.kind for found in live(table).tables()] == ["mat view", "wal"]


def test_a_table_on_another_volume_is_planned(table: OneTable, tmp_path: Path) -> None:
    (table.root / LIVE).rename(tmp_path / "elsewhere")
    (table.root / LIVE).symlink_to(tmp_path / "elsewhere")

    assert f"{LIVE}/2024-01-01/n.d" in sizes(live(table))
