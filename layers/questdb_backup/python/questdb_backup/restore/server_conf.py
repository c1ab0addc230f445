"""The one setting that a restored root needs: QuestDB has to rebuild the column indexes.

Index files are changed in place, so a copy can be ahead of its rows or torn; without the setting some
filters answer wrong, in silence. A server that does not know the setting refuses to start with it.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from questdb_backup.errors import ConfigurationError
from questdb_backup.questdb.features import parse_version, rebuilds_indexes
from questdb_backup.server_conf import with_property

PROPERTY = "cairo.checkpoint.recovery.rebuild.column.indexes"
_WHY = (
    "set by questdb-backup restore: a copied index can be ahead of its rows; needed for the first start only"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change to ``conf/server.conf`` that is not made yet."""

    apply: Callable[[], None]
    undo: Callable[[], None]
    note: str | None = None


def judge_rebuild(recorded: str | None, wanted: str | None) -> tuple[bool, list[str]]:
    """Whether the property can be set, and notes for the user where it cannot.

    ``recorded`` is the version that made the backup, ``wanted`` the one that will open it; None and what
    is no release are unknown. Where neither is known it is set: a server that refuses to start is seen, a
    wrong answer is not.
    """
    version = wanted or recorded
    if parse_version(version) is None or rebuilds_indexes(version):
        return True, []
    return False, [
        f"QuestDB {version} cannot rebuild column indexes in recovery: REINDEX the indexed columns after the"
        f" first start; a newer server needs {PROPERTY}=true in conf/server.conf (restore with"
        " --server-version to have it set)"
    ]


def set_rebuild(root: Path, tree: Path, *, rebuild: bool = True) -> Edit:
    """Have ``conf/server.conf`` set the property: the root's own file, else the backup's, else a new one.

    Without ``rebuild`` the property is left out. ``apply`` raises ConfigurationError where the root's file
    cannot be written.
    """
    target, restored = root / "conf" / "server.conf", tree / "conf" / "server.conf"
    if not rebuild and (target.exists() or not restored.is_file()):
        return Edit(apply=lambda: None, undo=lambda: None)
    if target.exists():
        return _edit_existing(target.resolve())
    text = _read(restored) if restored.is_file() else ""
    mode = stat.S_IMODE(restored.stat().st_mode) if restored.is_file() else 0o644
    made: list[Path] = []

    def apply() -> None:
        if not target.parent.exists():
            target.parent.mkdir()
            made.append(target.parent)
        after = with_property(text, PROPERTY, "true", why=_WHY) if rebuild else text
        _replace(target, after, mode, None)
        made.append(target)

    def undo() -> None:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()

    note = f"set {PROPERTY}=true in {target}: the first start rebuilds the indexes" if rebuild else None
    return Edit(apply=apply, undo=undo, note=note)


def _edit_existing(target: Path) -> Edit:
    before = _read(target)
    after = with_property(before, PROPERTY, "true", why=_WHY)
    if after == before:
        return Edit(apply=lambda: None, undo=lambda: None)
    info = target.stat()

    def write(text: str) -> None:
        try:
            _replace(target, text, stat.S_IMODE(info.st_mode), info)
        except OSError as error:
            raise ConfigurationError(
                f"{PROPERTY}=true cannot be added to {target}: {error.strerror}",
                "add it by hand: without it a restored database can answer wrong; then restore again",
            ) from error

    note = f"kept {target} and added {PROPERTY}=true to it"
    return Edit(apply=lambda: write(after), undo=lambda: write(before), note=note)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _replace(target: Path, text: str, mode: int, owner: os.stat_result | None) -> None:
    """Write the file so that it is there whole and durable, or as it was."""
    temporary = target.with_name(f".{target.name}.questdb-backup")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            os.fchmod(file.fileno(), mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
