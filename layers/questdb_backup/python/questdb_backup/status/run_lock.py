"""Whether a run is alive on this machine: a lock that the kernel frees when its process dies."""

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from questdb_backup.errors import BackupInProgressError, ConfigurationError

_TRIES = 10
_WAIT_SECONDS = 0.02
_STATE_HINT = "make it readable and writable for this user, or name another folder with `--state DIR`"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """Who wrote the lock file last, for messages; only the lock itself says whether it is alive."""

    pid: int
    run: str | None = None


class RunLock:
    """An exclusive ``flock`` on a file, which stays there, empty, when the lock is freed.

    Of several, in one process or many, one is held at a time. A program that a child process executes
    does not inherit it; a child that only forks would keep it alive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write this process into it; a probe in progress is waited for (0.2 s).

        Raise BackupInProgressError, naming the process, while another lock is held on the file, and
        ConfigurationError where the file cannot be used.
        """
        descriptor = _open(self._path)
        try:
            if not _taken(descriptor, tries=_TRIES):
                raise BackupInProgressError(
                    f"a backup is in progress on this machine: {_described(read_holder(self._path))}",
                    "wait for it, or stop it with `questdb-backup abort`",
                )
            _write(descriptor, _encoded(LockHolder(pid=os.getpid())))
        except OSError as error:
            os.close(descriptor)
            raise _unusable(self._path, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def record(self, run: str) -> None:
        """Write the run that the holding process does, once it has a name."""
        if self._descriptor is not None:
            _write(self._descriptor, _encoded(LockHolder(pid=os.getpid(), run=run)))

    def release(self) -> None:
        """Free the lock; nothing where it is not held."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _write(descriptor, b"")
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_held(path: Path) -> bool:
    """Whether some process holds the lock; the lock is not kept. A file that is not there is not held.

    Raise ConfigurationError where the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        # shared, so that two probes at once do not take each other for a run
        return not _taken(descriptor, tries=1, how=fcntl.LOCK_SH)
    except OSError as error:
        raise _unusable(path, error) from error
    finally:
        os.close(descriptor)


def read_holder(path: Path) -> LockHolder | None:
    """Who wrote the lock file last; None where nobody did, or it cannot be read."""
    try:
        value = json.loads(path.read_text())
        return LockHolder(pid=value["pid"], run=value["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # only a message would have named it


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(path, error) from error


def _taken(descriptor: int, *, tries: int, how: int = fcntl.LOCK_EX) -> bool:
    for attempt in range(tries):
        if attempt:
            time.sleep(_WAIT_SECONDS)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _write(descriptor: int, data: bytes) -> None:
    with suppress(OSError):  # a full disk: only a message lacks the name then
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


def _encoded(holder: LockHolder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _described(holder: LockHolder | None) -> str:
    if holder is None:
        return "its process is unknown"
    return f"process {holder.pid}" + (f", run {holder.run}" if holder.run else "")


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"the lock file {path} cannot be used: {error.strerror}", _STATE_HINT)
