"""Whether the checkpoint that the server made is the one below this root."""

from pathlib import Path

from questdb_backup.clock import parse_timestamp
from questdb_backup.errors import PreflightError

_SLACK_SECONDS = 5.0


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
        "give --root and the connection (PGHOST, PGPORT, --dsn) of one and the same server;"
        " with an absolute cairo.root the checkpoint stands beside that folder",
    )
