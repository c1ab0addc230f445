"""Lower priorities: each in a process of its own, since nobody gets them back."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from questdb_backup.gentle import priority
from questdb_backup.gentle.priority import IoPriority, Priorities, io_priority_value

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux'")

_CHILD = """
import os, sys, threading
from questdb_backup.gentle.priority import IoPriority, Priorities, get_io_priority
priorities = Priorities(nice=int(sys.argv[1]), io=IoPriority(sys.argv[2]))
os.nice(int(sys.argv[3]))
def tell():
    print(os.getpriority(os.PRIO_PROCESS, 0), get_io_priority())
def work():
    priorities.lower_thread()
    priorities.lower_thread()
    tell()
    child = threading.Thread(target=tell)
    child.start()
    child.join()
thread = threading.Thread(target=work)
thread.start()
thread.join()
tell()
"""


def lowered(nice: int, io: str, already: int = 0) -> list[tuple[int, int]]:
    """Nice and I/O priority of a thread that lowered itself, of one that it started, of the main thread."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(nice), io, str(already)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    first, second, third = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    return [(first[0], first[1]), (second[0], second[1]), (third[0], third[1])]


BASE = os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("io", list(IoPriority))
def test_a_thread_lowers_itself_and_what_it_starts_but_not_the_main_thread(io: IoPriority) -> None:
    mine, child, main = lowered(BASE + 3, io)
    if io is not IoPriority.NONE:
        assert mine[1] == io_priority_value(io)
    assert mine == child
    assert mine[0] == BASE + 3
    assert main[0] == BASE
    assert main[1] not in (io_priority_value(IoPriority.IDLE), io_priority_value(IoPriority.BEST_EFFORT))


def test_a_thread_that_is_nicer_already_stays_so() -> None:
    mine, _, main = lowered(BASE + 3, "none", already=5)
    assert mine[0] == main[0] == BASE + 5


_SESSION = """
from pathlib import Path
from questdb_backup.gentle.priority import Priorities
Priorities(nice=7).lower_thread()
print(Path("/proc/self/autogroup").read_text().split()[2])
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel does not group sessions")
@pytest.mark.parametrize("is_leader", [True, False])
def test_a_session_of_its_own_is_lowered_and_that_of_a_shell_is_not(is_leader: bool) -> None:
    shell = [] if is_leader else ["sh", "-c", 'python="$1"; shift; "$python" "$@"; exit $?', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-c", _SESSION],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert done.stdout.split() == (["7"] if is_leader else ["0"])
    assert done.stderr == ""


def test_nice_0_and_none_change_nothing() -> None:
    mine, child, main = lowered(0, "none")
    assert mine == child == main


def test_the_numbers_are_the_kernels() -> None:
    assert io_priority_value(IoPriority.BEST_EFFORT) == 0x4007
    assert io_priority_value(IoPriority.IDLE) >> 13 == 3


def test_what_the_kernel_refuses_is_logged_once_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    priorities = Priorities(io=IoPriority.IDLE)
    threads = [threading.Thread(target=priorities.lower_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            "backup.io.priority is not in force: the system call is not known for riscv64",
        )
    ]


def test_an_error_of_the_system_call_is_an_oserror_with_its_number() -> None:
    with pytest.raises(OSError) as caught:
        priority.set_io_priority(7 << 13)
    assert caught.value.errno is not None
