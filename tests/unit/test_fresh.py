"""Whether the server that was asked is the one of this root, by what it tells before anything is held."""

import os
from pathlib import Path

import pytest

from questdb_backup.errors import PreflightError
from questdb_backup.source.fresh import refuse_other_data_id, refuse_other_root


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    path = tmp_path / "locks"
    path.write_text("")
    return path


def make_root(path: Path, locks: Path, *, served: bool) -> Path:
    (path / "db").mkdir(parents=True)
    lock = path / "db" / "tables.d.lock"
    lock.touch()
    if served:
        found = lock.stat()
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
        with locks.open("a") as file:
            file.write(f"7: FLOCK  ADVISORY  WRITE 17914 {device}:{found.st_ino} 0 EOF\n")
    return path


@pytest.mark.parametrize(("ours", "told"), [("aa", "aa"), ("aa", None), (None, None)])
def test_equal_data_ids_and_servers_that_tell_none_pass(ours: str | None, told: str | None) -> None:
    refuse_other_data_id(Path("/r"), ours, told)


@pytest.mark.parametrize(("ours", "words"), [("bb", "has bb"), (None, "has none")])
def test_another_data_id_is_refused(ours: str | None, words: str) -> None:
    with pytest.raises(PreflightError, match=f"does not serve /r: its data ID is aa, .*{words}"):
        refuse_other_data_id(Path("/r"), ours, "aa")


def test_a_root_that_another_server_of_this_host_works_on_is_refused(tmp_path: Path, locks: Path) -> None:
    ours = make_root(tmp_path / "ours", locks, served=False)
    told = make_root(tmp_path / "told", locks, served=True)
    with pytest.raises(PreflightError, match=f"it serves {told}"):
        refuse_other_root(ours, str(told), locks)


@pytest.mark.parametrize(("ours_served", "told_served"), [(True, True), (False, False), (True, False)])
def test_a_path_that_may_be_a_containers_proves_nothing(
    tmp_path: Path, locks: Path, ours_served: bool, told_served: bool
) -> None:
    ours = make_root(tmp_path / "ours", locks, served=ours_served)
    told = make_root(tmp_path / "told", locks, served=told_served)
    refuse_other_root(ours, str(told), locks)


@pytest.mark.parametrize("told", [None, "/no/such/root"])
def test_a_path_that_this_host_has_not_proves_nothing(tmp_path: Path, locks: Path, told: str | None) -> None:
    refuse_other_root(make_root(tmp_path / "ours", locks, served=False), told, locks)
    refuse_other_root(tmp_path / "ours", told, tmp_path / "no-locks")


def test_the_same_root_by_another_path_is_no_other(tmp_path: Path, locks: Path) -> None:
    ours = make_root(tmp_path / "ours", locks, served=True)
    (tmp_path / "link").symlink_to(ours)
    refuse_other_root(tmp_path / "link", str(ours), locks)
