"""What is stored, the target and the user: one clear error, and nothing is changed."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from questdb_backup.instances import NAME_FILE, Instance, encode_instances
from questdb_backup.sealed import seal
from tests.integration.bad_input.conftest import mounted
from tests.integration.conftest import NewServer
from tests.support.deployment import Deployment, Ended, run_here, run_installed, tree
from tests.support.live import fs_store
from tests.support.questdb_server import QuestDBServer

pytestmark = pytest.mark.integration
NEWER = seal({"format": 2, "instances": [], "instance": "x"})


def as_nobody(*arguments: str) -> Ended:
    """The installed command as a user without rights."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("dropping privileges needs root and setpriv")
    wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode != 0:
        pytest.skip("setpriv cannot drop privileges here")
    return run_installed(*arguments, wrapper=wrapper)


class TestObjectsDamagedByHand:
    """The catalog and the list of instances: told by their path, and left as they are."""

    @pytest.mark.parametrize(
        ("name", "data", "words"),
        [
            ("catalog.json", b"{", ["catalog.json", "cannot be read", "check --rebuild"]),
            ("catalog.json", b"[]", ["catalog.json", "cannot be read", "check --rebuild"]),
            ("catalog.json", b"\xff\xfe", ["catalog.json", "cannot be read", "check --rebuild"]),
            ("catalog.json", NEWER, ["catalog.json", "newer format", "use a newer questdb-backup"]),
            ("instances.json", b"{", ["_backup/instances.json", "cannot be read", "check --rebuild"]),
            ("instances.json", seal({"instances": [1]}), ["_backup/instances.json", "cannot be read"]),
            ("instances.json", NEWER, ["_backup/instances.json", "newer format", "use a newer"]),
        ],
    )
    def test_every_verb_names_it(
        self, here: Deployment, tmp_path: Path, name: str, data: bytes, words: list[str]
    ) -> None:
        here.backup().done()
        (key,) = [key for key in here.names() if key.endswith(name)]
        here.put(key, data)
        before = tree(tmp_path / "store")

        for verb in ("backup", "backups", "prune"):
            run_here(*here.arguments(verb)).refused(1, *words)
        found = run_here(*here.arguments("verify"))
        assert found.code == 1
        assert all(word in found.out + found.err for word in words)
        here.restore(tmp_path / "new").refused(1, *words)

        here.assert_free()
        assert tree(tmp_path / "store") == before
        assert not (tmp_path / "new").exists()

    def test_instances_are_made_anew_as_the_hint_says(self, here: Deployment, tmp_path: Path) -> None:
        here.backup().done()
        here.put("_backup/instances.json", b"{")

        run_here("check", "--rebuild", "--object-store", here.store_text).done()

        here.restore(tmp_path / "new").done()
        here.assert_usable()
        assert len(here.catalog().complete_rows()) == 2

    def test_the_name_in_the_root_cannot_be_read(self, here: Deployment, tmp_path: Path) -> None:
        root = tmp_path / "other"
        (root / "db").mkdir(parents=True)
        (root / NAME_FILE).write_bytes(b"\xff\xfe")

        for verb in ("backup", "guard", "abort", "backups"):
            run_here(*here.arguments(verb, root=root)).refused(2, f"{root}/{NAME_FILE}", "--instance-name")
        assert here.names() == set()

    def test_the_root_belongs_to_another_database(self, here: Deployment, tmp_path: Path) -> None:
        here.backup().done()
        root = tmp_path / "other"
        (root / "db").mkdir(parents=True)
        (root / "db" / ".data_id").write_bytes(bytes(range(16)))
        shutil.copy(here.server.root / NAME_FILE, root / NAME_FILE)
        before = tree(tmp_path / "store")

        ended = run_installed(*here.arguments("backup", root=root))

        ended.refused(1, "ER007 - Data ID mismatch", bytes(range(16)).hex(), "remove db/.backup_inst")
        assert {path: data for path, data in tree(tmp_path / "store").items() if "lock" not in path} == {
            path: data for path, data in before.items() if "lock" not in path
        }


class TestRestore:
    """Nothing stands in the target that was not there before."""

    @pytest.mark.parametrize(
        ("more", "code", "words"),
        [
            (["--timestamp", "yesterday"], 2, ["'yesterday' is not a timestamp", "2024-08-24T"]),
            (
                ["--timestamp", "2001-01-01"],
                1,
                ["<= 2001-01-01T00:00:00.000000Z", "only complete backup is 20"],
            ),
            (["--instance", "no-such-name"], 1, ["'no-such-name'", "the store holds"]),
            (["--instance-name", "no-such-name"], 1, ["'no-such-name'", "the store holds"]),
            (["--server-version", "abc"], 2, ["'abc' is not a QuestDB version", "9.3.4"]),
            (["--server-version", "8.1.4"], 1, ["8.1.4", "different major versions", "start QuestDB 9."]),
            (["--root", "{tmp}/gone/new"], 2, ["{tmp}/gone does not exist", "make the folder"]),
            (["--root", "{tmp}/file"], 2, ["{tmp}/file is not a directory", "--root"]),
            (["--root", "{tmp}/full"], 1, ["The local database is not empty", "{tmp}/full/db", "a new root"]),
            (["--root", "{tmp}/linked"], 2, ["{tmp}/linked/db is not a directory of its own", "remove it"]),
            (["--stack", "prod", "--object-store", "fs::"], 2, ["--object-store does not go with --stack"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
    )
    def test_wrong_words_and_targets(
        self, stored: Deployment, tmp_path: Path, more: list[str], code: int, words: list[str]
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "full" / "db").mkdir(parents=True)
        (tmp_path / "full" / "db" / "trades").touch()
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "db").symlink_to(tmp_path / "full")
        before = tree(tmp_path)

        ended = stored.restore(tmp_path / "new", *(text.replace("{tmp}", str(tmp_path)) for text in more))

        ended.refused(code, *(word.replace("{tmp}", str(tmp_path)) for word in words))
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("verb", ["prune", "verify", "restore"])
    def test_the_store_is_empty(self, here: Deployment, tmp_path: Path, verb: str) -> None:
        root = ["--root", str(tmp_path / "new")] if verb == "restore" else []

        ended = run_here(verb, *root, "--object-store", here.store_text)

        ended.refused(1, "the store holds no backup instance", "backup.object.store")
        assert here.names() == set()
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("verb", ["prune", "verify", "restore"])
    def test_several_instances_and_none_is_named(self, here: Deployment, tmp_path: Path, verb: str) -> None:
        here.put(
            "_backup/instances.json",
            encode_instances([Instance(name="calm-river-birch"), Instance(name="bold-hill-aster")]),
        )
        root = ["--root", str(tmp_path / "new")] if verb == "restore" else []

        ended = run_here(verb, *root, "--object-store", here.store_text)

        ended.refused(2, "bold-hill-aster, calm-river-birch", "--instance-name")
        named = run_here(
            verb, *root, "--object-store", here.store_text, "--instance-name", "calm-river-birch"
        )
        assert "share the store" not in named.err

    def test_the_disk_of_the_target_is_full(self, stored: Deployment, tmp_path: Path) -> None:
        with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=100k") as small:
            for target in (small, small / "new"):
                stored.restore(target).refused(1, f"{small} has 102400 bytes free", "restore elsewhere")
                assert list(small.iterdir()) == []

    def test_the_place_of_db_is_a_mount(self, stored: Deployment, tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        with mounted(tmp_path / "new" / "db", "-t", "tmpfs") as database:
            stored.restore(tmp_path / "new").refused(
                2, f"{database} is a mount point", f"mount the volume at {tmp_path}/new"
            )
            assert os.listdir(tmp_path / "new") == ["db"]  # noqa: PTH208


class TestRoots:
    """Roots that are not as usual, and work all the same."""

    def test_an_empty_database(self, new_server: NewServer, tmp_path: Path) -> None:
        server = new_server()
        empty = Deployment(server, fs_store(tmp_path), tmp_path / "state")
        names = server.execute("select table_name from tables() order by 1")

        empty.backup().done()
        empty.restore(tmp_path / "new").done()

        empty.assert_free()
        server.stop()
        again = new_server(root=tmp_path / "new")
        assert again.execute("select table_name from tables() order by 1") == names
        assert not (tmp_path / "new" / "_restore").exists()

    @pytest.mark.parametrize("how", ["symlink", "mount"])
    def test_db_lies_on_another_volume(self, new_server: NewServer, tmp_path: Path, how: str) -> None:
        """What is restored is a plain directory."""
        root, volume = tmp_path / "root", tmp_path / "volume"
        root.mkdir()
        volume.mkdir()
        with contextlib.ExitStack() as stack:
            if how == "mount":
                stack.enter_context(mounted(root / "db", "--bind", source=str(volume)))
            else:
                (root / "db").symlink_to(volume)
            server = stack.enter_context(QuestDBServer(root))
            server.execute(
                "create table t as (select x, x::timestamp ts from long_sequence(5)) timestamp(ts)"
            )
            moved = Deployment(server, fs_store(tmp_path), tmp_path / "state")

            moved.backup().done()

            moved.assert_free()
            moved.restore(tmp_path / "new").done()
        assert not (tmp_path / "new" / "db").is_symlink()
        if how == "symlink":
            assert new_server(root=tmp_path / "new").execute("select sum(x) from t") == [(15,)]


class TestAnotherUser:
    """A user without rights to the root, the store or the target."""

    @pytest.fixture
    def open_folder(self) -> Iterator[Path]:
        """A folder that every user may look into."""
        with tempfile.TemporaryDirectory(prefix="questdb-backup-") as name:
            Path(name).chmod(0o755)
            yield Path(name)

    def test_the_root_is_out_of_reach(self, here: Deployment) -> None:
        as_nobody(*here.arguments("backup")).refused(
            2, f"{here.server.root} cannot be looked into: Permission denied", "run as the user of the server"
        )
        assert here.names() == set()

    def test_the_root_is_not_writable(self, here: Deployment, open_folder: Path) -> None:
        (open_folder / "root" / "db").mkdir(parents=True)
        before = tree(open_folder)
        store = f"fs::root={open_folder}/data;atomic_write_dir={open_folder}/atomic;"

        ended = as_nobody(
            *("backup", "--root", f"{open_folder}/root", "--dsn", here.server.dsn, "--object-store", store)
        )

        ended.refused(2, f"{open_folder}/root: it is not writable for this user", "--state DIR")
        assert tree(open_folder) == before

    def test_the_store_is_not_writable(self, here: Deployment, open_folder: Path) -> None:
        (open_folder / "root" / "db").mkdir(parents=True)
        (open_folder / "state").mkdir()
        (open_folder / "state").chmod(0o777)
        where = ["--root", f"{open_folder}/root", "--dsn", here.server.dsn, "--state", f"{open_folder}/state"]

        for folder, words in (
            (open_folder, f"'{open_folder}/data'"),
            (here.state.parent, "Permission denied"),
        ):
            store = f"fs::root={folder}/data;atomic_write_dir={folder}/atomic;"
            for verb in ("backups", "prune"):
                ended = as_nobody(verb, *where, "--object-store", store)
                ended.refused(1, words, "give this user the right")
        here.assert_free()
        assert here.names() == set()

    def test_the_target_is_not_writable(self, here: Deployment, open_folder: Path) -> None:
        store = Deployment(here.server, fs_store(open_folder), here.state)
        store.backup().done()

        for target in (open_folder / "new", here.state / "new"):
            ended = as_nobody("restore", "--root", str(target), "--object-store", store.store_text)
            ended.refused(1, str(target), "Permission denied", "permissions")
            assert not target.exists()

    def test_the_name_in_the_root_can_be_read_by_all(self, here: Deployment) -> None:
        here.backup().done()
        assert (here.server.root / NAME_FILE).stat().st_mode & 0o444 == 0o444
