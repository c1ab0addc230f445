import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from questdb_backup.errors import BackupInProgressError, ConfigurationError
from questdb_backup.status.run_lock import LockHolder, RunLock, is_held, read_holder

RUN = "2024-08-24T12:34:56.789123Z"

HOLDER = f"""
import subprocess, sys
from pathlib import Path
from questdb_backup.status.run_lock import RunLock

lock = RunLock(Path(sys.argv[1]))
lock.acquire()
lock.record("{RUN}")
# a child that outlives its parent, and is not told to close what it inherits
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backup" / "run.lock"


@contextmanager
def held_by_a_process(path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds the lock, and the id of its child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    child = 0
    try:
        child = int(process.stdout.readline())
        yield process, child
    finally:
        process.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_lock_is_held_inside_and_free_outside(path: Path) -> None:
    assert not is_held(path)
    with RunLock(path):
        assert is_held(path)
    assert not is_held(path)
    with RunLock(path):
        assert is_held(path)


def test_a_probe_makes_no_file_and_keeps_no_lock(path: Path) -> None:
    assert not is_held(path)
    assert not path.parent.exists()
    with RunLock(path):
        pass
    assert not is_held(path)
    with RunLock(path):
        pass


def test_a_second_lock_in_the_same_process_is_refused(path: Path) -> None:
    with RunLock(path) as lock:
        lock.record(RUN)
        with pytest.raises(BackupInProgressError, match=f"process {os.getpid()}, run {RUN}"):
            RunLock(path).acquire()
        with pytest.raises(BackupInProgressError):
            lock.acquire()
        assert is_held(path)
    assert not is_held(path)


def test_the_holder_is_written_for_messages_and_goes_with_the_lock(path: Path) -> None:
    assert read_holder(path) is None
    with RunLock(path) as lock:
        assert read_holder(path) == LockHolder(pid=os.getpid())
        lock.record(RUN)
        assert read_holder(path) == LockHolder(pid=os.getpid(), run=RUN)
        lock.record("r")
        assert read_holder(path) == LockHolder(pid=os.getpid(), run="r")
    assert read_holder(path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_holder_that_cannot_be_read_does_not_matter(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert read_holder(path) is None
    assert not is_held(path)
    with RunLock(path):
        path.write_text(text)
        with pytest.raises(BackupInProgressError, match="unknown"):
            RunLock(path).acquire()


def test_releasing_what_is_not_held_is_nothing(path: Path) -> None:
    lock = RunLock(path)
    lock.release()
    lock.record(RUN)
    with lock:
        lock.release()
        assert not is_held(path)
    assert not is_held(path)


def test_another_process_that_holds_the_lock_is_seen_and_named(path: Path) -> None:
    with held_by_a_process(path) as (process, _):
        assert is_held(path)
        assert read_holder(path) == LockHolder(pid=process.pid, run=RUN)
        with pytest.raises(BackupInProgressError, match=f"process {process.pid}, run {RUN}"):
            RunLock(path).acquire()


def test_the_lock_of_a_killed_process_is_free_at_once_though_its_child_lives(path: Path) -> None:
    with held_by_a_process(path) as (process, child):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_held(path)
        with RunLock(path):
            assert read_holder(path) == LockHolder(pid=os.getpid())
        os.kill(child, 0)


def test_of_eight_that_take_the_lock_at_once_one_has_it(path: Path) -> None:
    barrier = threading.Barrier(8)

    def take(_: int) -> RunLock | None:
        barrier.wait()
        lock = RunLock(path)
        try:
            lock.acquire()
        except BackupInProgressError:
            return None
        return lock

    with ThreadPoolExecutor(8) as pool:
        holders = [lock for lock in pool.map(take, range(8)) if lock]
    assert len(holders) == 1
    holders[0].release()


def test_a_probe_does_not_take_another_probe_for_a_run(path: Path) -> None:
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_held(path)


def test_a_start_waits_for_a_probe_that_is_there(path: Path) -> None:
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        timer = threading.Timer(0.03, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        with RunLock(path):
            assert is_held(path)
        timer.join()


@pytest.mark.parametrize("place", ["file/run.lock", "folder"])
def test_a_path_that_cannot_be_locked_is_a_configuration_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="--state DIR"):
        RunLock(tmp_path / place).acquire()


def test_a_probe_of_a_path_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="--state DIR"):
        is_held(tmp_path / "file" / "run.lock")
