from io import StringIO

import pytest
from rich.console import Console

from questdb_backup.cli.render import (
    COLUMNS,
    BackupProgress,
    Progress,
    backups_table,
    format_bytes,
    print_error,
    to_text,
)
from questdb_backup.errors import TargetNotEmptyError
from questdb_backup.status.base import LiveRun

COMPLETE = {
    "backup_timestamp": "2025-07-30T12:49:30.554262Z",
    "backup_instance_name": "gentle-forest-orchid",
    "status": "backup complete",
    "progress_percent": 100,
    "start_ts": "2025-07-30T12:49:30.554262Z",
    "end_ts": "2025-07-30T16:19:48.554262Z",
    "backup_error": None,
    "cleanup_error": None,
}
FAILED = COMPLETE | {
    "status": "backup failed",
    "progress_percent": 35,
    "backup_error": "no [red]route[/]\nto host",
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(*, terminal: bool) -> tuple[Console, StringIO]:
    out = StringIO()
    return Console(file=out, force_terminal=terminal, width=100), out


def test_the_table_has_the_six_columns_of_backups_behind_timestamp_and_instance() -> None:
    header, rule, *rows = to_text(backups_table([COMPLETE, FAILED])).splitlines()

    assert tuple(cell.strip() for cell in header.strip("|").split("|")) == COLUMNS
    assert COLUMNS[2:] == (
        "status",
        "progress_percent",
        "start_ts",
        "end_ts",
        "backup_error",
        "cleanup_error",
    )
    assert set(rule) <= set("|-: ")
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == [
        "" if value is None else str(value) for value in COMPLETE.values()
    ]


def test_where_stdout_is_no_terminal_every_backup_is_one_line_with_its_error_as_it_is() -> None:
    lines = to_text(backups_table([COMPLETE, FAILED])).splitlines()

    assert len(lines) == 4
    assert "no [red]route[/] to host" in lines[3]


def test_in_a_narrow_terminal_nothing_is_cut_off() -> None:
    text = to_text(backups_table([COMPLETE]), width=80)

    assert max(map(len, text.splitlines())) <= 80
    assert "".join(line.split("|")[1].strip() for line in text.splitlines()[2:]).endswith(
        "2025-07-30T12:49:30.554262Z"
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3000 * 1024**5, "3000.0 PiB"),
    ],
)
def test_sizes_are_told_in_binary_units(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_an_error_goes_to_stderr_as_fact_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(TargetNotEmptyError("The local database is not empty", "restore into a new root"))

    captured = capsys.readouterr()
    assert captured.err == "The local database is not empty. Hint: restore into a new root.\n"
    assert captured.out == ""


def test_without_a_terminal_progress_is_a_line_every_few_seconds() -> None:
    shown, out = console(terminal=False)
    clock = Clock()
    with Progress("restore", console=shown, clock=clock) as progress:
        progress.update(0, 0)
        clock.now += 6
        progress.update(0, 0)
        clock.now += 1
        for done in range(0, 101, 10):
            progress.update(done * 1024**2, 400 * 1024**2)
            clock.now += 1

    assert out.getvalue().splitlines() == [
        "restore: preparing",
        "restore: 40.0 MiB of 400.0 MiB (10%), 10.0 MiB/s, 0:00:36 left",
        "restore: 90.0 MiB of 400.0 MiB (22%), 10.0 MiB/s, 0:00:31 left",
    ]


def test_what_was_done_before_the_first_look_does_not_count_into_the_rate() -> None:
    shown, out = console(terminal=False)
    clock = Clock()
    with Progress("restore", console=shown, clock=clock) as progress:
        progress.update(500, 1000)
        clock.now += 10
        progress.update(600, 1000)

    assert out.getvalue() == "restore: 600 B of 1000 B (60%), 10 B/s, 0:00:40 left\n"


def test_in_a_terminal_the_bar_shows_bytes_and_goes_away() -> None:
    shown, out = console(terminal=True)
    clock = Clock()
    with BackupProgress(console=shown, clock=clock) as progress:
        clock.now += 1
        progress.show(None)
        progress.show(
            LiveRun(run="r", token=1, holder="h", expires_at="", total_bytes=4 * 1024**2, done_bytes=1024**2)
        )

    text = out.getvalue()
    assert "1.0/4.0 MiB" in text
    assert text.endswith("\x1b[2K") or "\x1b[1A" in text


def test_a_run_that_is_over_at_once_draws_no_bar() -> None:
    shown, out = console(terminal=True)
    with Progress("restore", console=shown, clock=Clock()) as progress:
        progress.update(1, 2)
        progress.update(2, 2)

    assert out.getvalue() == ""


def test_the_live_status_of_a_backup_becomes_a_line() -> None:
    shown, out = console(terminal=False)
    clock = Clock()
    with BackupProgress(console=shown, clock=clock) as progress:
        clock.now += 6
        progress.show(LiveRun(run="r", token=1, holder="h", expires_at="", total_bytes=10, done_bytes=5))

    assert out.getvalue() == "backup: 5 B of 10 B (50%)\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_backup_that_is_held_down_says_so(terminal: bool) -> None:
    shown, out = console(terminal=terminal)
    told_first = "4.0 MiB/s: the WAL of trades is 300 transactions behind"
    clock, told = Clock(), [told_first, None]
    with BackupProgress(held_down=lambda: told[0], console=shown, clock=clock) as progress:
        clock.now += 6
        progress.show(LiveRun(run="r", token=1, holder="h", expires_at="", total_bytes=10, done_bytes=5))
        held = out.getvalue()
        if not terminal:
            told.pop(0)
            clock.now += 6
            progress.show(LiveRun(run="r", token=1, holder="h", expires_at="", total_bytes=10, done_bytes=5))

    if terminal:
        assert "backup, held down" in out.getvalue()
    else:
        assert held == f"backup: 5 B of 10 B (50%); held down: {told_first}\n"
        assert "held down" not in out.getvalue()[len(held) :]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_quiet_run_shows_nothing(terminal: bool) -> None:
    shown, out = console(terminal=terminal)
    clock = Clock()
    with BackupProgress(quiet=True, console=shown, clock=clock) as progress:
        clock.now += 60
        progress.update(1, 2)

    assert out.getvalue() == ""
