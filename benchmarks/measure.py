"""Run a command and measure it with all its descendants: wall, processor and the peak of their memory."""

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_SECONDS = 0.02
_RESCAN_EVERY = 5
"""Samples between two looks for new descendants: the look at all of /proc is what costs."""
_PSS_EVERY = 25
_ORPHAN_SECONDS = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 4 << 20


class CommandFailedError(RuntimeError):
    """A measured command gave another exit code than 0; the message has its command line and output."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took.

    Attributes:
        wall_seconds: from before the fork until the exit of the command's own process.
        cpu_seconds: user and system, of the process and every descendant that ended.
        peak_rss: bytes; the highest sum of the resident sets of all its processes, sampled every 20 ms, at
            least the largest single one, where that is above this process's own, which a child inherits.
            Pages that processes share count once for each.
        peak_pss: bytes; the same with shared pages divided, sampled every half second.
        load: the machine's load average of one minute at the start.
        output: its stdout.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_rss: int
    peak_pss: int
    load: float
    output: str


def _environment() -> dict[str, str]:
    """This process's, but a command in Python keeps its bytecode, as one that was installed has it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Measured:
    """Run ``command`` as a user would, in a fresh process; give what it took.

    Dirty pages of earlier commands are written back before the clock starts. Output goes through a file in
    ``folder``. Raise CommandFailedError where the command fails.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.sync()
    with _adopting_orphans(), (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        load = os.getloadavg()[0]
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            env={**_environment(), **(environment or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        try:
            _wait(process.pid)
            wall = time.perf_counter() - started
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            sampler.finish()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime + _reap(sampler.known - {process.pid})
    output = (folder / "stdout").read_text(errors="replace")
    if process.returncode:
        errors = (folder / "stderr").read_text(errors="replace")
        raise CommandFailedError(f"{' '.join(command)}\nexit code {process.returncode}\n{output}\n{errors}")
    return Measured(
        wall_seconds=wall,
        cpu_seconds=cpu,
        peak_rss=max(sampler.peak_rss, usage.ru_maxrss * 1024 if usage.ru_maxrss > own else 0),
        peak_pss=sampler.peak_pss,
        load=load,
        output=output,
    )


def _wait(pid: int) -> None:
    """Return when the process has ended; it is left to be waited for."""
    pid_fd = os.pidfd_open(pid)
    try:
        select.select([pid_fd], [], [])
    finally:
        os.close(pid_fd)


def warm(root: Path) -> None:
    """Read every file under ``root``, so that it is in the page cache."""
    buffer = bytearray(_READ_BYTES)
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def stored(*folders: Path) -> tuple[int, int]:
    """Bytes and number of the files under the folders; a file with several links counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values()), len(sizes)


def remove(path: Path) -> None:
    """Remove a folder, whatever modes a restore gave to what it holds."""
    if path.exists():
        subprocess.run(["chmod", "-R", "u+rwX", str(path)], check=True)
        shutil.rmtree(path)


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Be the parent of descendants whose own parent ends, so that their processor time is counted."""
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)


def _set_subreaper(value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _reap(left: set[int]) -> float:
    """Wait a moment for descendants that outlived the command, then end them; give their CPU seconds."""
    total = 0.0
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while left:
        for pid in sorted(left):
            try:
                reaped, _, usage = os.wait4(pid, os.WNOHANG)
            except ChildProcessError:
                left.discard(pid)
                continue
            if reaped:
                left.discard(pid)
                total += usage.ru_utime + usage.ru_stime
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return total


class _Sampler(threading.Thread):
    """Sums the memory of a process and its descendants until it is told to finish."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.known = {pid}
        self.peak_rss = 0
        self.peak_pss = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        turn = 0
        while True:
            if turn % _RESCAN_EVERY == 0:
                self.known = descendants(self._pid) | {
                    pid for pid in self.known if Path(f"/proc/{pid}").exists()
                }
            self.peak_rss = max(self.peak_rss, sum(map(_rss, self.known)))
            if turn % _PSS_EVERY == _PSS_EVERY - 1:
                self.peak_pss = max(self.peak_pss, sum(map(_pss, self.known)))
            turn += 1
            if self._done.wait(_SAMPLE_SECONDS):
                return

    def finish(self) -> None:
        """Stop sampling."""
        self._done.set()
        self.join()


def descendants(pid: int) -> set[int]:
    """A process and all whose parents lead to it."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(
                    Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1]
                )
    found = {pid}
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
