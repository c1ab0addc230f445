"""Files that the server writes on while they are stored, and names that meet."""

from pathlib import Path

import pytest

from questdb_backup import unit_cutting
from questdb_backup.errors import SourceFileError
from questdb_backup.manifest import Entry, Group
from questdb_backup.questdb.base import Fence
from questdb_backup.shards import ShardCutter
from questdb_backup.source.base import EntryKind, PlannedFile, PlannedGroup
from questdb_backup.steps.complete import complete_backup
from questdb_backup.steps.lock import acquire_lock, release_lock
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.run import Run
from questdb_backup.steps.upload import upload_partitions
from questdb_backup.unit_cutting import cut_piece, cut_units
from questdb_backup.units import UnitFile, UnitGroup
from tests.support.backups import VERSION, make_root, make_services, restore_by_steps


@pytest.mark.parametrize("largest", [None, 1], ids=["whole", "in pieces"])
def test_a_live_file_is_stored_to_the_end_that_it_has_when_it_is_read(
    tmp_path: Path, largest: int | None
) -> None:
    """The server maps what a head says that it wrote after the plan."""
    root = make_root(tmp_path / "root")
    live = root / "conf/server.conf"
    live.write_bytes(b"#" * (5 << 20))
    services = make_services(root, largest_unit_bytes=largest)
    run = Run.from_json(acquire_lock(services, "run-1", {})["run"])
    plan = plan_backup(services, run, "frozen", VERSION, None, 0)
    with live.open("ab") as file:
        file.write(b"more\n" * (1 << 18))
    for unit in range(plan["units"]):
        upload_partitions(services, run, {"unit": unit, "attempt": 0}, 0, workers=1)
    complete_backup(services, run, "frozen", plan, VERSION, Fence(), None)
    release_lock(services, run)
    restore_by_steps(services, {"root": str(tmp_path / "new")}, "restore-1")
    restored = (tmp_path / "new/conf/server.conf").read_bytes()
    assert restored.startswith(live.read_bytes())


def test_of_a_file_in_pieces_only_the_last_one_may_grow() -> None:
    file = PlannedFile(path="x", kind=EntryKind.FILE, mode=0, size=30, exact=False, grows=True)
    pieces = [cut_piece(UnitFile(file=file), start, start + 10) for start in (0, 10, 20)]
    assert [piece.file.grows for piece in pieces] == [False, False, True]


def test_a_backup_that_names_a_path_twice_is_not_made() -> None:
    entry = Entry(path="db/t~1/_id.c", kind=EntryKind.FILE, mode=0o644, size=0, chunks=())
    cutter = ShardCutter(write=lambda digest, plain: digest, known={})
    with pytest.raises(SourceFileError, match=r"'db/t~1/_id\.c' twice"):
        cutter.add(Group(table="t~1", partition="", signature=None, entries=(entry, entry)))


def test_the_index_of_a_live_file_stays_with_it_in_one_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that reads ``_event`` first has its index at least as long as that says."""
    monkeypatch.setattr(unit_cutting, "UNIT_FILES", 2)
    names = ("a.d", "_event", "_event.i", "b.d", "b.d.i")
    files = tuple(
        PlannedFile(
            path=name, kind=EntryKind.FILE, mode=0, size=10, exact=False, grows=name.startswith("_event")
        )
        for name in names
    )
    group = PlannedGroup(table="t", partition="", signature=None, files=files)
    units = [
        [piece.file.path for item in share if isinstance(item, UnitGroup) for piece in item.files]
        for share in cut_units([group])
    ]
    assert units == [["a.d", "_event", "_event.i"], ["b.d", "b.d.i"]]
