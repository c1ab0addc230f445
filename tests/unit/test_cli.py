"""The command line itself: words, options, exit codes, and what goes to which stream."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import questdb_backup
from questdb_backup.cli import main as command
from questdb_backup.cli.main import build_parser, load_verbs, main
from questdb_backup.cli.verb import Outcome, Verb, no_arguments
from questdb_backup.errors import BackupToolError, ConfigurationError, StoreUnavailableError
from questdb_backup.local.options import Place

pytestmark = pytest.mark.usefixtures("own_environment")
SETTINGS = (
    "--enabled",
    "--object-store",
    "--schedule-cron",
    "--schedule-tz",
    "--cleanup-keep-latest-n",
    "--compression-level",
    "--compression-threads",
    "--instance-name",
)
PACKAGES = Path(questdb_backup.__file__).parents[1]


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings from outside; the command takes SIGTERM over, the tests' own handler comes back."""
    for name in [name for name in os.environ if name.startswith("QDB_")]:
        monkeypatch.delenv(name)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A server root with a schedule."""
    (tmp_path / "root" / "db").mkdir(parents=True)
    (tmp_path / "root" / "conf").mkdir()
    return configured(
        tmp_path / "root", "backup.schedule.cron=0 2 * * 1-5", "backup.schedule.tz=Europe/Berlin"
    )


def configured(root: Path, *lines: str) -> Path:
    (root / "conf" / "backup.conf").write_text("".join(f"{line}\n" for line in lines))
    return root


def usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_help_lists_every_verb_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for verb in load_verbs():
        assert f" {verb.name} {verb.help}" in words


def test_the_documented_verbs_are_there_once() -> None:
    names = [verb.name for verb in load_verbs()]
    assert len(names) == len(set(names))
    assert {
        "backup",
        "backups",
        "abort",
        "restore",
        "restore-on-start",
        "verify",
        "prune",
        "guard",
        "serve",
    } <= set(names)


def test_every_verb_is_found_by_its_name() -> None:
    for verb in load_verbs():
        assert load_verbs(verb.name) == (verb,)


@pytest.mark.parametrize("verb", [verb.name for verb in load_verbs()])
def test_every_verb_takes_the_common_options_and_every_setting(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    words = capsys.readouterr().out.split()
    assert {"--json", "--root", "--dsn", "--state", "--stack", *SETTINGS} <= set(words)
    assert "--restore-timestamp" not in words


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"questdb-backup {questdb_backup.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["backupp"],
        ["backup", "--jso"],
        ["backup", "--no-such"],
        ["backup", "extra"],
        ["backup", "--root"],
        ["prune", "--grace-hours", "many"],
        ["--json", "backups"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_so_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    usage_error(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: questdb-backup")


@pytest.mark.parametrize("json_wanted", [[], ["--json"]])
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["backup"], "give --root"),
        (["abort"], "give --root"),
        (["guard"], "give --root"),
        (["serve"], "give --root"),
        (["restore"], "give --root NEWROOT"),
        (["restore-on-start"], "give --root ROOT"),
        (["backups"], "--object-store"),
        (["prune"], "--object-store"),
        (["verify"], "--object-store"),
        (["prune", "--grace-hours", "-1"], "0 or more hours"),
        (["prune", "--grace-hours", "nan"], "0 or more hours"),
        (["prune", "--grace-hours", "inf"], "0 or more hours"),
        (["check", "--grace-hours", "1e12"], "0 or more hours"),
        (["backups", "--root", "/no/such/root"], "-d folder"),
        (["backups", "--compression-level", "99"], "1 to 22"),
    ],
)
def test_wrong_configuration_ends_with_2_and_a_hint_on_stderr(
    arguments: list[str], hint: str, json_wanted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *json_wanted]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert hint in captured.err
    assert captured.err.count("\n") == 1


def test_what_fails_ends_with_1_also_where_json_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/atomic;"
    arguments = ["restore", "--root", str(tmp_path / "new"), "--object-store", store, "--json"]

    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ". Hint: " in captured.err


def test_a_store_without_backups_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    store = f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/atomic;"

    assert main(["backups", "--object-store", store]) == 0
    assert capsys.readouterr().out == "no backups yet\n"
    assert main(["backups", "--object-store", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def a_verb(outcome: Outcome | BaseException) -> argparse.Namespace:
    def act(_arguments: argparse.Namespace, _place: Place) -> Outcome:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    arguments = build_parser().parse_args(["backups"])
    arguments.verb = Verb(name="act", help="", configure=no_arguments, run=act)
    return arguments


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("fact", "hint"), 2),
        (StoreUnavailableError("fact", "hint"), 1),
        (BackupToolError("fact", "hint"), 1),
    ],
)
def test_each_family_of_errors_has_its_exit_code(
    error: BackupToolError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(a_verb(error), {}) == code
    assert capsys.readouterr().err == "fact. Hint: hint.\n"


def test_a_verb_gives_its_own_code_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = a_verb(Outcome(value={"ok": False}, text="two problems", code=1))

    assert command.run(arguments, {}) == 1
    assert capsys.readouterr().out == "two problems\n"
    arguments.json = True
    assert command.run(arguments, {}) == 1
    assert json.loads(capsys.readouterr().out) == {"ok": False}


def test_no_text_prints_no_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(a_verb(Outcome(value=None)), {}) == 0
    assert capsys.readouterr().out == ""


class TestServe:
    """The schedule in words, and its end."""

    def test_explain_tells_words_five_runs_and_what_to_paste_into_the_template(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["serve", "--root", str(root), "--explain"]) == 0
        words, head, *rest = capsys.readouterr().out.splitlines()
        assert words.startswith("at 02:00")
        assert words.endswith("(Europe/Berlin)")
        assert head == "next runs (UTC):"
        assert all(line.startswith("  20") for line in rest[:5])
        assert rest[5:] == [
            "backup.enabled is false: none of them starts until it is set to true",
            "parameters of the template on AWS:",
            "  ScheduleExpression=cron(0 2 ? * MON,TUE,WED,THU,FRI *)",
            "  ScheduleExpression2=",
            "  ScheduleTimezone=Europe/Berlin",
        ]

    def test_explain_gives_the_same_as_json(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        configured(root, "backup.schedule.cron=0 0 1 * 1", "backup.enabled=true")

        assert main(["serve", "--root", str(root), "--explain", "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert value["enabled"] is True
        assert len(value["next_runs"]) == 5
        assert value["eventbridge"] == {
            "ScheduleExpression": "cron(0 0 1 * ? *)",
            "ScheduleExpression2": "cron(0 0 ? * MON *)",
            "ScheduleTimezone": "UTC",
        }
        assert value["expressions"] == ["cron(0 0 1 * ? *)", "cron(0 0 ? * MON *)"]

    def test_explain_says_where_two_expressions_do_not_do(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configured(root, "backup.schedule.cron=0 0 1,L * 1", "backup.enabled=true")

        assert main(["serve", "--root", str(root), "--explain"]) == 0
        out = capsys.readouterr().out
        assert "these are 3, the template takes two" in out
        assert out.count("  cron(") == 3
        assert main(["serve", "--root", str(root), "--explain", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["eventbridge"] is None

    def test_without_a_schedule_it_is_wrong_configuration(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configured(root)

        assert main(["serve", "--root", str(root)]) == 2
        assert "backup.schedule.cron is not set" in capsys.readouterr().err

    def test_it_does_not_start_without_a_store(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["serve", "--root", str(root)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "backup.object.store is not set" in captured.err

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_is_how_it_ends(self, root: Path, tmp_path: Path, number: signal.Signals) -> None:
        store = f"fs::root={tmp_path}/store;atomic_write_dir={tmp_path}/atomic;"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "questdb_backup.cli.main"),
                *("serve", "--root", str(root), "--object-store", store),
            ],
            env={**os.environ, "PYTHONPATH": str(PACKAGES)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("at 02:00")
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
