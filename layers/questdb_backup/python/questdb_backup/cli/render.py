"""What people see: the table of backups, the progress of a run, an error. JSON is not made here.

rich is imported where it draws: a run that is over before there is something to see does without.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from questdb_backup.errors import BackupToolError
from questdb_backup.status.base import LiveRun

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn, TaskID
    from rich.table import Table
    from rich.text import Text

COLUMNS = (
    "backup_timestamp",
    "backup_instance_name",
    "status",
    "progress_percent",
    "start_ts",
    "end_ts",
    "backup_error",
    "cleanup_error",
)
"""The six columns of `backups()` behind the two that tell backups and instances apart."""

_BAR_SECONDS = 0.5
_LINE_SECONDS = 5.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def print_error(error: BackupToolError) -> None:
    """Tell the error on stderr, as ``fact. Hint: action``."""
    print(error, file=sys.stderr)


def print_warnings(warnings: Iterable[str]) -> None:
    """Tell each on stderr, as ``warning: ...``."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


class WarningLines(logging.Handler):
    """What the package logs, on stderr: ``warning: ...``; what is only information, as it is.

    The stream is looked up for each line: a progress bar puts its own in the place of stderr.
    """

    @classmethod
    def install(cls) -> None:
        """Have the package's log told so in this process; doing it again changes nothing."""
        package = logging.getLogger("questdb_backup")
        if not any(isinstance(known, cls) for known in package.handlers):
            package.addHandler(cls())

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one record."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        print(f"{level}{self.format(record)}", file=sys.stderr)


def format_bytes(size: float) -> str:
    """``1.5 GiB``; whole below 1 KiB."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def backups_table(rows: Sequence[Mapping[str, Any]]) -> "Table":
    """The table of `backups()`; each row has `COLUMNS`, None or missing is blank."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for column in COLUMNS:
        numeric = column == "progress_percent"
        table.add_column(column, overflow="fold", justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in COLUMNS))
    return table


def _cell(value: Any) -> "Text":
    """Plain text: the words of an error are not markup."""
    from rich.text import Text

    return Text("" if value is None else " ".join(str(value).split()))


def to_text(table: "Table", width: int | None = None) -> str:
    """The table as text, as wide as the terminal, or as wide as it wants to be where stdout is none."""
    from rich.console import Console

    if width is None and sys.stdout.isatty():
        width = Console().width
    console = Console(file=StringIO(), width=width or sys.maxsize, color_system=None)
    if width is None:
        console.width = console.measure(table).maximum
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


class _Told:
    """How far something is, on stderr: a bar in a terminal, else lines. Use it as a context manager."""

    def __init__(self, what: str, console: "Console | None" = None) -> None:
        self._what = what
        self._console = console
        self._draws = sys.stderr.isatty() if console is None else console.is_terminal
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _columns(self) -> "Iterable[ProgressColumn]":
        """What stands behind the bar."""
        raise NotImplementedError

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            *self._columns(),
            console=self._console or Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._what, total=None)
        self._bar.start()

    def _draw(self, done: int, total: int, doing: str = "") -> None:
        assert self._bar is not None, "started"
        assert self._task is not None, "added with the bar"
        what = f"{self._what}, {doing}" if doing else self._what
        self._bar.update(self._task, completed=done, total=total or None, description=what)

    def _tell(self, words: str) -> None:
        print(f"{self._what}: {words}", file=self._console.file if self._console else sys.stderr)


class Progress(_Told):
    """Bytes, rate and time left of one run; of lines one every few seconds.

    The bar appears when the run has gone on for half a second. Call `update` as often as wished, from one
    thread. ``quiet`` shows nothing; ``clock`` gives seconds.
    """

    def __init__(
        self,
        what: str,
        *,
        quiet: bool = False,
        console: "Console | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(what, console)
        self._quiet = quiet
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._bar_at = clock() + _BAR_SECONDS
        self._line_at = clock() + _LINE_SECONDS

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Show how far the run is; a total of 0 is not known yet."""
        if self._quiet:
            return
        if not self._draws:
            self._line(done_bytes, total_bytes)
        elif self._bar is not None or self._clock() >= self._bar_at:
            if self._bar is None:
                self._start()
            self._draw(done_bytes, total_bytes)

    def _columns(self) -> "Iterable[ProgressColumn]":
        from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

        return DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()

    def _line(self, done_bytes: int, total_bytes: int) -> None:
        now = self._clock()
        if self._first is None and total_bytes:
            self._first = (now, done_bytes)
        if now >= self._line_at:
            self._line_at = now + _LINE_SECONDS
            self._tell(self._words(done_bytes, total_bytes, now))

    def _words(self, done_bytes: int, total_bytes: int, now: float) -> str:
        if not total_bytes or self._first is None:
            return "preparing"
        percent = min(100, 100 * done_bytes // total_bytes)
        words = f"{format_bytes(done_bytes)} of {format_bytes(total_bytes)} ({percent}%)"
        began, already = self._first
        rate = (done_bytes - already) / (now - began) if now > began else 0.0
        if rate <= 0:
            return words
        return f"{words}, {format_bytes(rate)}/s, {format_seconds((total_bytes - done_bytes) / rate)} left"


class BackupProgress(Progress):
    """The progress of a backup, from its live status; ``held_down`` tells why it is slow, where it is."""

    def __init__(
        self,
        *,
        held_down: Callable[[], str | None] = lambda: None,
        quiet: bool = False,
        console: "Console | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("backup", quiet=quiet, console=console, clock=clock)
        self._held_down = held_down

    def show(self, live: LiveRun | None) -> None:
        """Show how far the run is; None: the status knows of none at this moment."""
        if live is not None:
            self.update(live.done_bytes, live.total_bytes)

    def _draw(self, done: int, total: int, doing: str = "") -> None:
        super()._draw(done, total, "held down" if self._held_down() else doing)

    def _words(self, done_bytes: int, total_bytes: int, now: float) -> str:
        words, why = super()._words(done_bytes, total_bytes, now), self._held_down()
        return f"{words}; held down: {why}" if why else words


class PercentProgress(_Told):
    """How far a run elsewhere is, by its percentage and what it is doing; a line for each new one."""

    _shown: tuple[int, str] | None = None

    def __enter__(self) -> Self:
        if self._draws:
            self._start()
        return self

    def show(self, percent: int | None, doing: str = "") -> None:
        """Show them; None: not known at this moment."""
        if percent is None or (percent, doing) == self._shown:
            return
        self._shown = percent, doing
        if self._draws:
            self._draw(percent, 100, doing)
        else:
            self._tell(f"{percent}%, {doing}" if doing else f"{percent}%")

    def _columns(self) -> "Iterable[ProgressColumn]":
        from rich.progress import TaskProgressColumn, TimeElapsedColumn

        return TaskProgressColumn(), TimeElapsedColumn()


def format_seconds(seconds: float) -> str:
    """``1:02:03``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"
