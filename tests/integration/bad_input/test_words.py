"""Wrong words: one clear error before anything is opened, and warnings where they are enough."""

from pathlib import Path

import pytest

from tests.support.deployment import Deployment, run_here, run_installed, tree

pytestmark = pytest.mark.integration


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
