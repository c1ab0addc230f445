"""A server or a folder of the store that is no good: exit code, words, the database free."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.bad_input.conftest import mounted
from tests.support.deployment import Deployment, run_here, run_installed
from tests.support.live import checkpoint, fs_store
from tests.support.questdb_server import free_port

pytestmark = pytest.mark.integration


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
