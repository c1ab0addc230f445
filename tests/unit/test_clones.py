"""Clones of a root's files: what they hold, who removes them, and where there can be none."""

import fcntl
import os
from pathlib import Path

import pytest

from questdb_backup.source.clones import FileClones

RUN, OTHER = "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"
PATH = "db/t/a.d"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/db/t").mkdir(parents=True)
    (tmp_path / "root" / PATH).write_bytes(b"then")
    return tmp_path / "root"


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "backup" / "clones"


@pytest.fixture
def _cloning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose file system clones; the bytes are copied."""

    def ficlone(target: int, request: int, source: int) -> None:
        assert request == 0x40049409
        os.pwrite(target, os.pread(source, 1 << 20, 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", ficlone)


@pytest.mark.usefixtures("_cloning")
def test_a_clone_keeps_what_the_file_held(root: Path, folder: Path) -> None:
    clones = FileClones(root, folder)
    clones.add(RUN, PATH)
    (root / PATH).write_bytes(b"now")
    assert FileClones(root, folder).tree(RUN).read(PATH, 0, 9) == b"then"
    clones.clear()
    assert not folder.exists()
    assert (root / PATH).read_bytes() == b"now"


@pytest.mark.usefixtures("_cloning")
def test_a_file_that_is_gone_is_left_out(root: Path, folder: Path) -> None:
    clones = FileClones(root, folder)
    clones.add(RUN, "db/t/gone.d")
    with pytest.raises(FileNotFoundError):
        clones.tree(RUN).read("db/t/gone.d", 0, 1)


@pytest.mark.usefixtures("_cloning")
def test_a_symlink_that_leads_out_of_the_root_is_not_cloned(root: Path, folder: Path) -> None:
    (root.parent / "secret").write_bytes(b"secret")
    (root / "db/t/link.d").symlink_to(root.parent / "secret")
    with pytest.raises(PermissionError, match="leads out"):
        FileClones(root, folder).add(RUN, "db/t/link.d")


@pytest.mark.usefixtures("_cloning")
def test_clones_of_a_living_process_stay_and_those_of_a_dead_one_go(root: Path, folder: Path) -> None:
    living = FileClones(root, folder)
    living.add(RUN, PATH)
    dead = FileClones(root, folder)
    dead.add(OTHER, PATH)
    for lock in dead._locks.values():
        os.close(lock)  # as the kernel does when a process ends
    FileClones(root, folder).clear()
    assert living.tree(RUN).read(PATH, 0, 9) == b"then"
    assert [place.name for place in folder.iterdir()] == ["20260101T000000.000000Z"]
    living.clear()
    assert not folder.exists()


def test_where_the_file_system_has_no_clones_it_says_so(root: Path, folder: Path) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "ioctl", refused)
        clones = FileClones(root, folder)
        with pytest.raises(OSError, match="not supported"):
            clones.add(RUN, PATH)
    clones.clear()
    assert not folder.exists()
