"""Whose backups these are: the name of a root, and its entry in the store."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from questdb_backup.errors import ConfigurationError, DataIdMismatchError
from questdb_backup.instances import NAME_FILE, read_instances, read_name, resolve_instance
from questdb_backup.services import Config, Services
from tests.support.kit import Kit


def _root(folder: Path, data_id: bytes = b"\x01\x02") -> Path:
    (folder / "db").mkdir(parents=True)
    (folder / "db" / ".data_id").write_bytes(data_id)
    return folder


def _services(kit: Kit, root: Path, name: str | None = None) -> Services:
    return kit.make_services(config=Config(source="path", root=root, instance_name=name))


def test_a_root_gets_one_name_and_keeps_it(tmp_path: Path) -> None:
    kit, root = Kit(), _root(tmp_path / "a")
    first = resolve_instance(_services(kit, root))
    assert resolve_instance(_services(kit, root)) == first
    assert read_name(root) == first.name
    assert [known.name for known in read_instances(kit.inner)[0]] == [first.name]
    assert sorted(path.name for path in (root / "db").iterdir()) == [".backup_instance_name", ".data_id"]


def test_two_first_runs_at_once_take_one_name(tmp_path: Path) -> None:
    for number in range(20):
        kit, root = Kit(), _root(tmp_path / str(number))
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, k=kit, r=root: resolve_instance(_services(k, r)), range(4)))
        assert len({instance.name for instance in found}) == 1
        assert len(read_instances(kit.inner)[0]) == 1


def test_a_frozen_copy_without_a_name_goes_on_with_the_backups_of_its_database(tmp_path: Path) -> None:
    kit, root, copy = Kit(), _root(tmp_path / "a"), _root(tmp_path / "copy")
    named = resolve_instance(_services(kit, root))
    frozen = kit.make_services(config=Config(source="frozen", root=copy))
    assert resolve_instance(frozen).name == named.name
    other = kit.make_services(config=Config(source="frozen", root=_root(tmp_path / "other", b"\x09")))
    assert resolve_instance(other).name != named.name
    assert resolve_instance(_services(kit, _root(tmp_path / "restored"))).name != named.name


def test_a_named_instance_is_left_in_the_root(tmp_path: Path) -> None:
    kit, root = Kit(), _root(tmp_path / "a")
    resolve_instance(_services(kit, root, "gentle-forest-orchid"))
    assert (root / NAME_FILE).read_text() == "gentle-forest-orchid\n"


def test_another_database_under_the_name_is_refused(tmp_path: Path) -> None:
    kit = Kit()
    resolve_instance(_services(kit, _root(tmp_path / "a"), "gentle-forest-orchid"))
    with pytest.raises(DataIdMismatchError, match="ER007 - Data ID mismatch"):
        resolve_instance(_services(kit, _root(tmp_path / "b", b"\x03"), "gentle-forest-orchid"))


def test_a_root_that_takes_no_name_is_refused_before_the_store_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, root = Kit(), _root(tmp_path / "a")

    def fail(*_args: object, **_kwargs: object) -> tuple[int, str]:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        resolve_instance(_services(kit, root))
    assert read_instances(kit.inner)[0] == []
    assert resolve_instance(_services(kit, root, "gentle-forest-orchid")).name == "gentle-forest-orchid"
