"""Whether a server root and a server are fit for a backup: facts, and what follows from them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from questdb_backup.errors import PreflightError
from questdb_backup.questdb.features import Version, parse_version

SUPPORTED_FILE_SYSTEMS = frozenset({"apfs", "ext4", "ntfs", "ntfs3", "overlay", "xfs", "zfs"})
"""The list of QuestDB's backup page, in the kernel's names."""

_WARN_BELOW = 0.50
_REFUSE_BELOW = 0.10
_OLDEST: Version = (8, 1, 1)
_HAZARDS: tuple[tuple[Version, str], ...] = (
    (
        (8, 3, 0),
        "while a checkpoint is held it purges no partition of any table, so the disk fills faster, and its"
        " recovery can delete a partition that is referenced (QuestDB #5443, #5444)",
    ),
    (
        (9, 3, 4),
        "it cannot make indexes anew in recovery, so their files are copied while they change and may be"
        " torn: after a restore REINDEX the indexed columns (QuestDB #6564)",
    ),
    (
        (9, 3, 4),
        "it does not count squashes of partitions, so unchanged partitions are read and compared by"
        " content (QuestDB #6647)",
    ),
    (
        (9, 3, 3),
        "it throws a finished checkpoint away where flushing the disk takes longer than query.timeout,"
        " 60 s by default (QuestDB #6785)",
    ),
    (
        (9, 4, 0),
        "a partition that is rewritten while CHECKPOINT CREATE runs may be purged before its table is"
        " pinned; the backup then fails with the missing file and must be started again (QuestDB #6903)",
    ),
)


@dataclass(frozen=True, slots=True)
class Volume:
    """Where a path of the root lies. Sizes in bytes; ``fs_type`` as in ``/proc/mounts``, "" unknown."""

    path: str
    real: str
    device: int
    fs_type: str
    total: int
    free: int

    @property
    def free_share(self) -> float:
        """The free part of the volume, 0 to 1; 1 where the file system tells no size."""
        return self.free / self.total if self.total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFacts:
    """What `inspect_root` saw.

    ``volumes``: ``db``, ``.checkpoint`` (where it stands, or will: the root) and each symlink below
    ``db``, one per path. ``broken_links``: symlinks of tables and partitions that lead nowhere.
    ``left_out``: symlinks in ``conf`` that lead out of the root.
    """

    root: str
    exists: bool
    has_db: bool
    has_checkpoint: bool = False
    has_restore_trigger: bool = False
    volumes: tuple[Volume, ...] = ()
    broken_links: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def devices(self) -> frozenset[int]:
        """The volumes' device numbers: more than one, and no snapshot of one volume is enough."""
        return frozenset(volume.device for volume in self.volumes)


@dataclass(frozen=True, slots=True)
class Finding:
    """``level`` is ``refuse`` or ``warn``."""

    level: str
    text: str
    hint: str


def inspect_root(root: Path) -> RootFacts:
    """Look at a server root; nothing is changed. Raise PreflightError where it may not be read."""
    try:
        return _inspect(root)
    except OSError as error:
        raise PreflightError(
            f"{root} cannot be inspected: {error}", "run as the user of the server, or as root"
        ) from error


def _inspect(root: Path) -> RootFacts:
    exists, db, checkpoint = root.is_dir(), root / "db", root / ".checkpoint"
    if not exists or not db.is_dir():
        return RootFacts(root=str(root), exists=exists, has_db=False)
    mounts = _mounts()
    links = list(_links(db))
    found = [link for link in links if link.exists()]
    places = {"db": db, ".checkpoint": checkpoint if checkpoint.exists() else root}
    places |= {str(link.relative_to(root)): link for link in found}
    return RootFacts(
        root=str(root),
        exists=True,
        has_db=True,
        has_checkpoint=(checkpoint / "db").is_dir(),
        has_restore_trigger=(root / "_restore").exists(),
        volumes=tuple(_volume(name, path, mounts) for name, path in places.items()),
        broken_links=tuple(str(link.relative_to(root)) for link in links if not link.exists()),
        left_out=tuple(_leaving(root)),
    )


def judge_root(facts: RootFacts) -> list[Finding]:
    """What speaks against a backup of this root, and what its owner should know."""
    if not facts.exists:
        return [
            Finding("refuse", f"{facts.root} is no directory", "give the server root, the -d of the server")
        ]
    if not facts.has_db:
        hint = "give the folder that holds db, conf and log; cairo.root must be the db in there"
        return [Finding("refuse", f"{facts.root} has no db", hint)]
    findings = [*_file_systems(facts), *_free_space(facts)]
    for link in facts.broken_links:
        text = f"{link} is a symlink that leads nowhere"
        findings.append(
            Finding("warn", text, "mount its volume, else a table that needs it fails the backup")
        )
    for link in facts.left_out:
        text = f"{link} leads out of the server root, so it is not in the backup"
        findings.append(Finding("warn", text, "keep a copy of it elsewhere, or put the file itself there"))
    if facts.has_restore_trigger:
        text = (
            f"{facts.root} has a file _restore: with a checkpoint, the next start of the server rolls it back"
        )
        findings.append(Finding("warn", text, "remove the file, unless a restore is under way"))
    return findings


def judge_server(version: str | None) -> list[Finding]:
    """What the server's version means for a backup; None is an unknown version."""
    parsed = parse_version(version)
    if parsed is None:
        text = "the version of the server is not known"
        return [Finding("warn", text, "8.1.1 is the oldest that can be backed up, 9.3.4 or newer is advised")]
    if parsed < _OLDEST:
        text = f"QuestDB {version} has no CHECKPOINT"
        return [Finding("refuse", text, "upgrade the server: 8.1.1 is the oldest, 9.3.4 or newer is advised")]
    return [
        Finding("warn", f"QuestDB {version}: {hazard}", f"upgrade to {'.'.join(map(str, floor))} or newer")
        for floor, hazard in _HAZARDS
        if parsed < floor
    ]


def _file_systems(facts: RootFacts) -> Iterator[Finding]:
    unsupported = {
        volume.fs_type: volume.path
        for volume in facts.volumes
        if volume.fs_type and volume.fs_type not in SUPPORTED_FILE_SYSTEMS
    }
    for fs_type, path in sorted(unsupported.items()):
        text = f"{path} is on {fs_type}, which QuestDB does not support"
        yield Finding("warn", text, "use ext4, XFS, ZFS, APFS, NTFS or OverlayFS")


def _free_space(facts: RootFacts) -> Iterator[Finding]:
    """A checkpoint keeps what it references, so the volume fills while it is held."""
    by_device = {volume.device: volume for volume in reversed(facts.volumes)}
    for volume in sorted(by_device.values(), key=lambda found: found.path):
        share = f"{volume.free_share:.0%} of the volume of {volume.path} is free ({volume.free >> 20} MiB)"
        if volume.free_share < _REFUSE_BELOW:
            yield Finding("refuse", share, "free space or grow the volume: 50 % is advised, 10 % the least")
        elif volume.free_share < _WARN_BELOW:
            yield Finding("warn", share, "QuestDB advises 50 %, because a held checkpoint delays purges")


def _links(db: Path) -> Iterator[Path]:
    """Symlinks among the tables and their partitions."""
    with os.scandir(db) as tables:
        for table in sorted(tables, key=lambda entry: entry.name):
            if table.is_symlink():
                yield Path(table.path)
            # A table may be dropped meanwhile.
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(table.path) as parts:
                yield from sorted(Path(part.path) for part in parts if part.is_symlink())


def _leaving(root: Path) -> Iterator[str]:
    inside = root.resolve()
    for path in (root / "conf", *sorted((root / "conf").rglob("*"))):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            yield str(path.relative_to(root))


def _volume(name: str, path: Path, mounts: list[tuple[str, str]]) -> Volume:
    real = path.resolve()
    space = os.statvfs(real)
    return Volume(
        path=name,
        real=str(real),
        device=real.stat().st_dev,
        fs_type=_fs_type(str(real), mounts),
        total=space.f_blocks * space.f_frsize,
        free=space.f_bavail * space.f_frsize,
    )


def _mounts(source: Path = Path("/proc/mounts")) -> list[tuple[str, str]]:
    """Mount points with their types, in the order they were mounted; none where the host does not tell."""
    try:
        lines = source.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    fields = (line.split(" ") for line in lines)
    return [(_unescape(field[1]), field[2]) for field in fields if len(field) > 2]


def _unescape(text: str) -> str:
    """Blanks and backslashes of a mount point are octal in ``/proc/mounts``."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _fs_type(real: str, mounts: list[tuple[str, str]]) -> str:
    """The type of the longest mount point above the path; of equal ones the last, which hides the others."""
    best, found = -1, ""
    for point, fs_type in mounts:
        if len(point) >= best and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, found = len(point), fs_type
    return found
