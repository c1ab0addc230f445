"""Whether the server that was asked is the one that serves this root.

Before anything is held by what the server tells of itself; after CREATE by the checkpoint itself.
"""

import os
from contextlib import suppress
from pathlib import Path

from questdb_backup.clock import parse_timestamp
from questdb_backup.errors import PreflightError

_SLACK_SECONDS = 5.0
_ONE_SERVER = "give --root and the connection (PGHOST, PGPORT, --dsn) of one and the same server"
_LOCKS = Path("/proc/locks")


def refuse_other_data_id(root: Path, ours: str | None, told: str | None) -> None:
    """Raise PreflightError where the server tells another data id than the root has.

    A server that tells one has it in the ``db/.data_id`` of its root, whatever path that has for it.
    """
    if told is None or told == ours:
        return
    raise _other(f"its data ID is {told}, {root / 'db' / '.data_id'} has {ours or 'none'}", root)


def refuse_other_root(root: Path, told: str | None, locks: Path = _LOCKS) -> None:
    """Raise PreflightError where the server tells a root that is another one on this very host.

    Its path may be a container's or another host's. So it counts only where a server of this host
    works on it, and none on ours.
    """
    if told is None or not _is_served(Path(told), locks) or _is_served(root, locks):
        return
    raise _other(f"it serves {told}", root)


def refuse_foreign_root(root: Path, started_at: str) -> None:
    """Raise PreflightError unless ``.checkpoint/db`` of the root is as new as the checkpoint.

    CREATE removes and makes that folder anew, so an older or missing one tells that the server at
    the other end of the connection serves another root.
    """
    folder = root / ".checkpoint" / "db"
    try:
        made_at = max(
            path.stat().st_ctime for path in (folder, folder.parent / "_checkpoint_meta.d") if path.exists()
        )
    except (OSError, ValueError):
        made_at = 0.0
    if made_at >= parse_timestamp(started_at).timestamp() - _SLACK_SECONDS:
        return
    found = "is missing" if not made_at else "is older than the checkpoint"
    raise PreflightError(
        f"{folder} {found}: the server that was asked does not serve {root}",
        f"{_ONE_SERVER}; an absolute cairo.root puts the checkpoint elsewhere: set cairo.root=db",
    )


def _other(reason: str, root: Path) -> PreflightError:
    return PreflightError(f"the server that was asked does not serve {root}: {reason}", _ONE_SERVER)


def _is_served(root: Path, locks: Path) -> bool:
    """Whether a server that this host's kernel knows holds the lock of the root's list of tables."""
    with suppress(OSError):
        lock = (root / "db" / "tables.d.lock").stat()
        name = f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"
        return any(name in line.split() for line in locks.read_text().splitlines())
    return False
