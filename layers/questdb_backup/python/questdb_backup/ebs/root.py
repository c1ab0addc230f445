"""The server root inside the snapshots of a run: found, opened, and compared with the previous run's."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.errors import ConfigurationError, SourceFileError
from questdb_backup.source.base import EntryKind
from questdb_backup.source.listing import CHECKPOINT
from questdb_backup.volumes.base import Device, FileSystem
from questdb_backup.volumes.layout import Part, open_parts
from questdb_backup.volumes.search import find_roots
from questdb_backup.volumes.tree import Mounted, VolumeTree, parse_mounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRoot:
    """Where the root was found: the volume's place, the part of it, the path inside the file system."""

    tree: VolumeTree
    volume: int
    part: str
    path: str
    refused: tuple[str, ...] = ()
    """Parts that could not be opened, with the reason."""


@dataclass(slots=True)
class _Opened:
    found: list[tuple[Mounted, Part]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def open_server_root(
    volumes: Sequence[tuple[VolumeSnapshot, Device]],
    *,
    server_root: str | None = None,
    mounts: Iterable[str] = (),
) -> ServerRoot:
    """Open every file system of the volumes and find the one root that holds ``.checkpoint/db``.

    ``server_root`` is its path inside its file system, None to find it; ``mounts``: see `parse_mounts`.
    Raise SourceFileError where there is none or more than one, ConfigurationError where a mount names
    no volume.
    """
    opened = _open(volumes)
    places = list(_places(opened, server_root))
    if len(places) != 1:
        raise _not_one(volumes, opened, places, server_root)
    (mounted, part, path) = places[0]
    mounted_at = {at: _named(opened, volumes, at, name) for at, name in _mounts(mounts).items()}
    return ServerRoot(
        tree=VolumeTree(mounted, path, mounted_at),
        volume=mounted.volume,
        part=part.where,
        path=path,
        refused=tuple(opened.refused),
    )


def _open(volumes: Sequence[tuple[VolumeSnapshot, Device]]) -> _Opened:
    opened = _Opened()
    for place, (snapshot, device) in enumerate(volumes):
        for part in open_parts(device):
            if part.files is not None:
                opened.found.append((Mounted(part.files, place), part))
            elif part.refused:
                opened.refused.append(f"{snapshot.device} {part.where}: {part.refused}")
    return opened


def _places(opened: _Opened, server_root: str | None) -> Iterator[tuple[Mounted, Part, str]]:
    for mounted, part in opened.found:
        if server_root is None:
            for found in find_roots(mounted.files):
                if found.checkpoint:
                    yield mounted, part, found.path
        elif _has_checkpoint(mounted.files, server_root):
            yield mounted, part, server_root.strip("/")


def _has_checkpoint(files: FileSystem, path: str) -> bool:
    try:
        return VolumeTree(Mounted(files, 0), path).stat(CHECKPOINT).kind is EntryKind.DIRECTORY
    except OSError:
        return False


def _mounts(items: Iterable[str]) -> dict[str, str]:
    try:
        return parse_mounts(items)
    except ValueError as error:
        raise ConfigurationError(
            f"the mounts of the database's volumes are not understood: {error}",
            "say /mnt/ssd=/dev/sdg, or the volume's id, or the file system's label or UUID, comma separated",
        ) from error


def _named(
    opened: _Opened, volumes: Sequence[tuple[VolumeSnapshot, Device]], path: str, name: str
) -> Mounted:
    """The one file system that a mount's name means: device, volume id, label or UUID."""
    found = [
        mounted
        for mounted, _ in opened.found
        if name
        in (
            volumes[mounted.volume][0].device,
            volumes[mounted.volume][0].volume_id,
            mounted.files.label,
            mounted.files.uuid,
        )
    ]
    if len(found) == 1:
        return found[0]
    what = "several file systems" if found else "no file system"
    known = ", ".join(
        f"{volumes[mounted.volume][0].device} {mounted.files.uuid}" for mounted, _ in opened.found
    )
    raise ConfigurationError(
        f"the mount {path}={name} names {what} of the instance's volumes", f"they have: {known or 'none'}"
    )


def _not_one(
    volumes: Sequence[tuple[VolumeSnapshot, Device]],
    opened: _Opened,
    places: list[tuple[Mounted, Part, str]],
    server_root: str | None,
) -> SourceFileError:
    where = ", ".join(f"{snapshot.device} ({snapshot.volume_id})" for snapshot, _ in volumes)
    if places:
        found = ", ".join(f"/{path} on {volumes[mounted.volume][0].device}" for mounted, _, path in places)
        return SourceFileError(
            f"several server roots hold a .checkpoint/db: {found}", "name the right one: ebs.server.root"
        )
    told = (
        f"/{server_root.strip('/')} holds no .checkpoint/db" if server_root else "no .checkpoint/db was found"
    )
    refused = f"; not readable: {'; '.join(opened.refused)}" if opened.refused else ""
    return SourceFileError(
        f"{told} on {where}{refused}",
        "see that the instance is the database's, and that the volume of its root is among those snapshotted;"
        " questdb-backup probe-volume --snapshot ID tells what is on one",
    )
