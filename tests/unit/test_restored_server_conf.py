"""The setting that a restored root needs, and the servers that would refuse to start with it."""

from pathlib import Path

import pytest

from questdb_backup.restore.server_conf import PROPERTY, judge_rebuild, set_rebuild


@pytest.mark.parametrize(
    ("recorded", "wanted", "rebuild"),
    [
        ("9.3.4", None, True),
        ("9.3.4", "9.4.0", True),
        ("9.1.0", None, False),
        ("9.1.0", "9.1.0", False),
        ("9.1.0", "9.3.4", True),
        ("9.3.4", "8.1.4", False),
        (None, None, True),
        (None, "9.1.0", False),
        ("snapshot", None, True),
    ],
)
def test_indexes_are_rebuilt_by_the_servers_that_know_the_setting(
    recorded: str | None, wanted: str | None, rebuild: bool
) -> None:
    found, notes = judge_rebuild(recorded, wanted)
    assert (found, bool(notes)) == (rebuild, not rebuild)
    assert all("REINDEX" in note and PROPERTY in note for note in notes)


@pytest.mark.parametrize("restored", [None, "http.enabled=false\n"])
def test_without_it_the_backup_s_configuration_is_placed_as_it_was(
    tmp_path: Path, restored: str | None
) -> None:
    root, tree = tmp_path / "root", tmp_path / "tree"
    (tree / "conf").mkdir(parents=True)
    root.mkdir()
    if restored is not None:
        (tree / "conf" / "server.conf").write_text(restored)
    edit = set_rebuild(root, tree, rebuild=False)
    edit.apply()
    target = root / "conf" / "server.conf"
    assert (target.read_text() if target.exists() else None) == restored
    edit.undo()
    assert not target.exists()


def test_without_it_the_root_s_own_configuration_stays(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "server.conf"
    own.parent.mkdir()
    own.write_text("pg.net.bind.to=127.0.0.1:1\n")
    edit = set_rebuild(tmp_path, tmp_path / "tree", rebuild=False)
    edit.apply()
    assert own.read_text() == "pg.net.bind.to=127.0.0.1:1\n"


def test_the_user_is_told_that_the_property_was_set(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    edit = set_rebuild(tmp_path, tmp_path / "tree")
    edit.apply()
    assert f"{PROPERTY}=true" in (tmp_path / "conf" / "server.conf").read_text()
    assert edit.note == (
        f"set {PROPERTY}=true in {tmp_path}/conf/server.conf: the first start rebuilds the indexes"
    )
