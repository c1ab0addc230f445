"""What is wrong is one clear error, in time: exit code, words, nothing changed, the database free."""

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
from tests.integration.conftest import NewServer
from tests.support.deployment import TABLE, Deployment, Ended, run_here, run_installed, tree
from tests.support.live import checkpoint, fs_store
from tests.support.questdb_server import QuestDBServer, free_port

pytestmark = pytest.mark.integration
NEWER = seal({"format": 2, "instances": [], "instance": "x"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    with QuestDBServer(tmp_path_factory.mktemp("bad-input") / "root") as questdb:
        questdb.execute(TABLE)
        questdb.wait_applied()
        yield questdb


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("QDB_", "PG", "AWS_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def here(server: QuestDBServer, tmp_path: Path) -> Iterator[Deployment]:
    """A store and a state folder of the test's own; the server must be free in the end."""
    deployment = Deployment(server, fs_store(tmp_path), tmp_path / "state")
    yield deployment
    held, started_at = checkpoint(server)
    if held:
        server.execute("checkpoint release")
        pytest.fail(f"the test left a checkpoint, started at {started_at}")


@pytest.fixture(scope="module")
def stored(server: QuestDBServer, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """One backup that tests only read."""
    folder = tmp_path_factory.mktemp("stored")
    deployment = Deployment(server, fs_store(folder), folder / "state")
    deployment.backup().done()
    return deployment


@contextlib.contextmanager
def mounted(folder: Path, *options: str, source: str = "tmpfs") -> Iterator[Path]:
    """A mount on the folder; the test is skipped, aloud, where this user may not mount."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, source, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def as_nobody(*arguments: str) -> Ended:
    """The installed command as a user without rights."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("dropping privileges needs root and setpriv")
    wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode != 0:
        pytest.skip("setpriv cannot drop privileges here")
    return run_installed(*arguments, wrapper=wrapper)


class TestNothingIsTouched:
    """Wrong words: exit code 2 before anything is opened, made or asked."""

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--root", "{tmp}/nope"], ["{tmp}/nope does not exist", "-d folder"]),
            (["--root", "{tmp}/nodb"], ["{tmp}/nodb has no db folder", "-d folder"]),
            (["--root", "{tmp}/file"], ["{tmp}/file is not a directory", "-d folder"]),
            (
                ["--compression-level", "0"],
                ["backup.compression.level=0 (from --compression-level)", "1 to 22"],
            ),
            (["--compression-level", "23"], ["backup.compression.level=23", "1 to 22"]),
            (["--compression-level", "fast"], ["backup.compression.level=fast", "1 to 22"]),
            (["--compression-threads", "0"], ["backup.compression.threads=0", "at least 1"]),
            (["--cleanup-keep-latest-n", "0"], ["backup.cleanup.keep.latest.n=0", "at least 1"]),
            (
                ["--schedule-cron", "0 25 * * *"],
                ["backup.schedule.cron=0 25 * * *", "(from --schedule-cron)"],
            ),
            (["--schedule-cron", "daily"], ["backup.schedule.cron=daily", "minute, hour"]),
            (["--schedule-tz", "Mars/Base"], ["backup.schedule.tz=Mars/Base", "Europe/London"]),
            (["--instance-name", "X"], ["backup.instance.name=X", "gentle-forest-orchid"]),
            (["--enabled", "maybe"], ["backup.enabled=maybe", "neither true nor false"]),
            (["--dsn", "host=1 =x"], ["--dsn cannot be parsed", "host=127.0.0.1"]),
            (["--object-store", "gs3::bucket=x;"], ["unknown scheme 'gs3'", "use s3 or fs"]),
            (["--object-store", "azblob::x=y;"], ["azblob", "use s3 or fs"]),
            (["--object-store", "bucket=x"], ["has no scheme", "s3::"]),
            (["--object-store", "s3::root=x;"], ["'bucket' is missing", "s3 needs bucket"]),
            (["--object-store", "fs::root={tmp}/s;"], ["'atomic_write_dir' is missing", "fs needs"]),
            (
                ["--object-store", "fs::root={tmp}/s;atomic_write_dir={tmp}/a;color=red;"],
                ["unknown option 'color' for fs", "known are root, atomic_write_dir"],
            ),
            (["--object-store", "s3::bucket=b;hunter2;"], ["number 2 has no '='", "name=value"]),
            (
                ["--object-store", "s3::bucket=b;access_key_id=a;secret_access_key=hun;ter2;"],
                ["number 4 has no '='", "cannot hold ';'"],
            ),
            (
                ["--object-store", "s3::bucket=b;secret_access_key=hunter2;"],
                ["'access_key_id' is missing beside 'secret_access_key'", "give both"],
            ),
            (
                ["--object-store", "s3::bucket=b;endpoint=ftp://me:hunter2@there;"],
                ["endpoint 'ftp://***@there'", "http://host:port"],
            ),
            (["--object-store", "fs::root=there;atomic_write_dir=/x;"], ["'there'", "absolute"]),
            (["--object-store", "fs::root={tmp}/file;atomic_write_dir={tmp}/a;"], ["{tmp}/file", "a folder"]),
            (["--stack", "prod"], ["--dsn does not go with --stack", "leave one of them out"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
    )
    def test_a_backup_with_wrong_words(
        self, here: Deployment, tmp_path: Path, more: list[str], words: list[str]
    ) -> None:
        (tmp_path / "nodb").mkdir()
        (tmp_path / "file").touch()
        before = tree(tmp_path, here.server.root)

        ended = here.backup(*(text.replace("{tmp}", str(tmp_path)) for text in more))

        error = ended.refused(2, *(word.replace("{tmp}", str(tmp_path)) for word in words))
        assert "hunter2" not in error
        assert "ter2" not in error
        left = {path for path in tree(tmp_path, here.server.root) if not path.startswith(str(here.state))}
        assert left <= set(before)

    def test_the_installed_command_says_the_same(self, here: Deployment, tmp_path: Path) -> None:
        before = tree(tmp_path)

        ended = run_installed("backup", "--json", "--root", "/no/such/root")

        ended.refused(2, "the server root /no/such/root does not exist")
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("verb", ["prune", "verify", "guard", "serve", "restore-on-start"])
    def test_a_verb_that_no_stack_has(self, verb: str) -> None:
        run_here(verb, "--stack", "prod").refused(2, f"not with {verb}", f"run {verb} without --stack")

    def test_serve_does_not_start_on_a_wrong_store(self, here: Deployment) -> None:
        ended = run_here(
            *here.arguments("serve", "--schedule-cron", "0 2 * * *", "--object-store", "s3::hunter2;")
        )

        assert "hunter2" not in ended.refused(2, "has no '='")

    def test_an_unknown_property_in_backup_conf(self, here: Deployment, tmp_path: Path) -> None:
        root = tmp_path / "other"
        (root / "db").mkdir(parents=True)
        (root / "conf").mkdir()
        (root / "conf" / "backup.conf").write_text("backup.keep.latest.n=3\n")

        ended = here.backup(root=root)

        ended.refused(2, f"{root}/conf/backup.conf", "backup.keep.latest.n", "backup.cleanup.keep.latest.n")
        assert here.names() == set()


class TestWarnings:
    """What is allowed and yet no good is told once, and the verb goes on."""

    def test_settings_are_warned_of_once_by_every_verb(self, stored: Deployment, tmp_path: Path) -> None:
        root = tmp_path / "other"
        (root / "db").mkdir(parents=True)
        (root / "conf").mkdir()
        (root / "conf" / "server.conf").write_text("backup.compression.level=3\n")
        misspelt = {"QDB_BACKUP_COMPRESSION_LEVL": "3"}

        for verb in ("backups", "verify"):
            ended = run_installed(
                verb, "--root", str(root), "--object-store", stored.store_text, environment=misspelt
            )
            ended.done()
            assert len(ended.warnings) == len(ended.told) == 2
            assert "QDB_BACKUP_COMPRESSION_LEVL is not a setting" in ended.err
            assert f"{root}/conf/server.conf has backup.compression.level" in ended.err

    def test_a_restore_takes_no_settings_from_its_target(self, stored: Deployment, tmp_path: Path) -> None:
        root = tmp_path / "new"
        (root / "conf").mkdir(parents=True)
        (root / "conf" / "backup.conf").write_text("backup.no.such.property=1\n")

        ended = stored.restore(root)

        ended.done()
        assert ended.told == []
        assert stored.restore(tmp_path / "newer").code == 0

    def test_restore_on_start_takes_them_from_its_root(self, tmp_path: Path) -> None:
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf" / "server.conf").write_text("backup.compression.level=3\n")

        ended = run_here("restore-on-start", "--root", str(tmp_path))

        assert (ended.done(), len(ended.warnings)) == ("", 1)

    def test_the_preflight_warns_in_the_same_form(self, here: Deployment) -> None:
        ended = run_installed(*here.arguments("backup"))

        ended.done()
        (line,) = [line for line in ended.warnings if "QuestDB #6903" in line]
        assert ". Hint: upgrade to 9.4.0 or newer." in line
        assert ended.warnings == ended.told


class TestTheServer:
    """No server, another server, or one that is taken: the run is told as failed, and no pack is stored."""

    def assert_nothing_stored(self, here: Deployment, *words: str) -> None:
        here.assert_failed(*words)
        names = {key.rpartition("/")[2] for key in here.names()}
        assert names == {"instances.json", "catalog.json"}

    def test_it_is_down(self, here: Deployment) -> None:
        port = free_port()

        ended = here.backup("--dsn", f"host=127.0.0.1 port={port} user=admin password=quest")

        ended.refused(1, "no connection to QuestDB", f"port {port}", "see that the server runs")
        self.assert_nothing_stored(here, f"port {port}")

    def test_it_refuses_the_password(self, here: Deployment) -> None:
        ended = run_installed(*here.arguments("backup", "--dsn", f"{here.server.dsn} password=hunter2"))

        error = ended.refused(1, "QuestDB refused the connection", "check user, password")
        assert "hunter2" not in error
        self.assert_nothing_stored(here, "refused the connection")

    def test_it_serves_another_root(self, here: Deployment, tmp_path: Path) -> None:
        (tmp_path / "other" / "db").mkdir(parents=True)

        ended = here.backup(root=tmp_path / "other")

        ended.refused(1, f"the server that was asked does not serve {tmp_path}/other", "--dsn")
        self.assert_nothing_stored(here, "has none")

    def test_it_serves_the_root_that_this_one_was_copied_from(self, here: Deployment, tmp_path: Path) -> None:
        shutil.copytree(here.server.root, tmp_path / "copy")

        ended = here.backup(root=tmp_path / "copy")

        ended.refused(1, f"does not serve {tmp_path}/copy: it serves {here.server.root}", "--dsn")
        self.assert_nothing_stored(here, "it serves")

    def test_somebody_else_holds_a_checkpoint(self, here: Deployment) -> None:
        here.server.execute("checkpoint create")
        before = checkpoint(here.server)
        try:
            ended = here.backup()
            assert checkpoint(here.server) == before
        finally:
            here.server.execute("checkpoint release")

        ended.refused(1, f"started at {before[1]:%Y-%m-%dT%H:%M:%S.%fZ}", "not ours", "CHECKPOINT RELEASE")
        self.assert_nothing_stored(here, "not ours")
        here.assert_usable()


class TestTheFolderOfTheStore:
    """A store in a folder that is not there, cannot be written, or is full."""

    def test_its_parent_is_missing(self, here: Deployment, tmp_path: Path) -> None:
        gone = f"fs::root={tmp_path}/gone/data;atomic_write_dir={tmp_path}/gone/atomic;"

        for verb in ("backup", "backups", "prune", "verify"):
            run_here(*here.arguments(verb, "--object-store", gone)).refused(
                1, f"'{tmp_path}/gone/data' cannot be made", "mount the disk or make the folder"
            )
        assert not (tmp_path / "gone").exists()

    def test_it_is_read_only(self, here: Deployment, tmp_path: Path) -> None:
        here.backup().done()
        with mounted(tmp_path / "seen", "--bind", "-o", "ro", source=str(tmp_path / "store")) as seen:
            store = f"fs::root={seen}/data;atomic_write_dir={seen}/atomic;"
            before = here.names()

            run_here(*here.arguments("backup", "--object-store", store)).refused(
                1, f"{seen}/data", "Read-only file system", "mount it writable"
            )

            here.assert_free()
            assert here.names() == before
            run_here("restore", "--root", str(tmp_path / "new"), "--object-store", store).done()

    def test_it_fills_up_while_data_is_copied(self, here: Deployment, tmp_path: Path) -> None:
        with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=300k") as small:
            tight = Deployment(here.server, fs_store(small), here.state)

            tight.backup().refused(1, "No space left on device", "packs/", "free space or raise the quota")

            tight.assert_failed("No space left on device")
            subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
            tight.assert_usable()

    def test_it_is_full_before_anything_is_written(self, here: Deployment, tmp_path: Path) -> None:
        with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k") as small:
            tight = Deployment(here.server, fs_store(small), here.state)
            run_here(*tight.arguments("backups")).done()
            with contextlib.suppress(OSError), (small / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass

            tight.backup().refused(1, "instances.json", "No space left on device", "free space")

            assert tight.names() == set()
            (small / "filler").unlink()
            subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
            tight.assert_usable()

    def test_the_status_file_is_no_status_file(self, here: Deployment) -> None:
        here.backup().done()
        (here.state / "status.sqlite").write_bytes(b"no such thing" * 500)
        before = here.names()

        for verb in ("backup", "abort", "guard", "backups"):
            ended = run_here(*here.arguments(verb))
            ended.refused(2, f"{here.state}/status.sqlite is damaged", "move it away")

        assert here.names() == before
        (here.state / "status.sqlite").rename(here.state / "away")
        here.assert_usable()


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
