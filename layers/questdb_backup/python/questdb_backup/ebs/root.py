"""The server root inside the snapshots of a run: found, opened, and compared with the previous run's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.errors import (
    ConfigurationError,
    DamagedVolumeError,
    SourceFileError,
    UnsupportedVolumeError,
)
from questdb_backup.source.base import EntryKind
from questdb_backup.source.listing import CHECKPOINT
from questdb_backup.volumes.base import Device
from questdb_backup.volumes.layout import Part, open_parts
from questdb_backup.volumes.mounts import Mounted, parse_mounts
from questdb_backup.volumes.search import DEPTH, find_roots
from questdb_backup.volumes.tree import VolumeTree

_Volumes = Sequence[tuple[VolumeSnapshot, Device]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRoot:
    """Where the root was found: the volume's place, the part of it, the path inside the file system."""

    tree: VolumeTree
    volume: int
    part: str
    path: str
    refused: tuple[str, ...] = ()
    """Parts that could not be opened, or not be searched, with the reason."""


@dataclass(frozen=True, slots=True)
class _Files:
    """A file system that was opened; ``where`` is its volume and the part of that, in words."""

    mounted: Mounted
    snapshot: VolumeSnapshot
    part: Part

    @property
    def where(self) -> str:
        return f"{self.snapshot.device} ({self.snapshot.volume_id}), {self.part.where}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A server root, ``path`` from the top of the file system; whether it has ``.checkpoint/db``."""

    files: _Files
    path: str
    checkpoint: bool

    def __str__(self) -> str:
        return f"/{self.path} on {self.files.where}"


@dataclass(slots=True)
class _Opened:
    found: list[_Files] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def open_server_root(
    volumes: _Volumes, *, server_root: str | None = None, mounts: Iterable[str] = ()
) -> ServerRoot:
    """Open every file system of the volumes and find the one root that holds ``.checkpoint/db``.

    ``server_root`` is its path inside its file system, None to find it; ``mounts``: see `parse_mounts`.
    Raise SourceFileError where there is none or more than one, ConfigurationError where a mount names
    no volume.
    """
    opened = _open(volumes)
    mounted_at = {at: _named(opened, at, name) for at, name in _mounts(mounts).items()}
    if server_root is None:
        found = list(_search(opened))
    else:
        found = list(_look(opened, server_root.strip("/"), mounted_at))
    places = [place for place in found if place.checkpoint]
    if len(places) > 1:
        raise _several(places)
    if not places:
        raise _none(volumes, opened, server_root, found or list(_search(opened)))
    (place,) = places
    return ServerRoot(
        tree=VolumeTree(place.files.mounted, place.path, mounted_at),
        volume=place.files.mounted.volume,
        part=place.files.part.where,
        path=place.path,
        refused=tuple(opened.refused),
    )


def _open(volumes: _Volumes) -> _Opened:
    opened = _Opened()
    for number, (snapshot, device) in enumerate(volumes):
        for part in open_parts(device):
            if part.files is not None:
                opened.found.append(_Files(Mounted(part.files, number), snapshot, part))
            elif part.refused:
                opened.refused.append(
                    f"{snapshot.device} ({snapshot.volume_id}), {part.where}: {part.refused}"
                )
    return opened


def _search(opened: _Opened) -> Iterator[_Place]:
    """All server roots; a file system that is damaged on the way is told among what was refused."""
    for files in opened.found:
        try:
            for root in find_roots(files.mounted.files):
                yield _Place(files, root.path, root.checkpoint)
        except (DamagedVolumeError, UnsupportedVolumeError) as error:
            opened.refused.append(f"{files.where}: {error}")


def _look(opened: _Opened, path: str, mounted_at: Mapping[str, Mounted]) -> Iterator[_Place]:
    for files in opened.found:
        try:
            entry = VolumeTree(files.mounted, path, mounted_at).stat(CHECKPOINT)
        except OSError:
            continue
        if entry.kind is EntryKind.DIRECTORY:
            yield _Place(files, path, checkpoint=True)


def _mounts(items: Iterable[str]) -> dict[str, str]:
    try:
        return parse_mounts(items)
    except ValueError as error:
        raise ConfigurationError(
            f"the parameter VolumeMounts is not understood: {error}",
            "say /mnt/ssd=/dev/sdg, or the volume's id, or the file system's label or UUID, comma separated",
        ) from error


def _named(opened: _Opened, path: str, name: str) -> Mounted:
    """The one file system that a mount's name means: device, volume id, label or UUID."""
    found = [files for files in opened.found if name in _names(files)]
    if len(found) == 1:
        return found[0].mounted
    if found:
        fact = "several file systems of that volume: " + ", ".join(files.part.where for files in found)
        known = found
    else:
        fact, known = "none of the volumes that were snapshotted", opened.found
    told = ", ".join(" ".join(filter(None, _names(files))) for files in known)
    refused = f"; not readable: {'; '.join(opened.refused)}" if opened.refused else ""
    raise ConfigurationError(
        f"{path}={name} of the parameter VolumeMounts names {fact}{refused}",
        f"name a file system by one of these (device, volume, label, UUID): {told or 'there is none'}",
    )


def _names(files: _Files) -> tuple[str, ...]:
    known = files.mounted.files
    return files.snapshot.device, files.snapshot.volume_id, known.label, known.uuid


def _several(places: Sequence[_Place]) -> SourceFileError:
    if len({place.path for place in places}) == len(places):
        hint = "name the right one by the parameter ServerRoot"
    else:
        hint = (
            "ServerRoot cannot tell them apart: name the volumes of the right one by the parameter VolumeIds"
        )
    return SourceFileError(f"several server roots hold a .checkpoint/db: {', '.join(map(str, places))}", hint)


def _none(
    volumes: _Volumes, opened: _Opened, server_root: str | None, found: Sequence[_Place]
) -> SourceFileError:
    """There is no root, or not where it was said to be; ``found`` are those that are somewhere else."""
    looked = "; ".join(files.where for files in opened.found)
    if not looked:
        looked = ", ".join(f"{snapshot.device} ({snapshot.volume_id})" for snapshot, _ in volumes)
    refused = f"; not readable: {'; '.join(opened.refused)}" if opened.refused else ""
    right = ", ".join(str(place) for place in found if place.checkpoint)
    bare = ", ".join(str(place) for place in found if not place.checkpoint)
    if server_root is not None:
        fact = f"/{server_root.strip('/')}, the parameter ServerRoot, holds no .checkpoint/db on {looked}"
    else:
        fact = f"no folder holds a .checkpoint/db on {looked}, {DEPTH} folders deep"
    if right:
        return SourceFileError(
            f"{fact}{refused}",
            f"{right} holds one: ServerRoot is the path inside the file system, not that on the host; empty,"
            " it is found by itself",
        )
    also = f"; a server root without one: {bare}" if bare else ""
    return SourceFileError(
        f"{fact}{also}{refused}",
        "see that DatabaseInstance is the database's, and that the volume of its root is among those above:"
        " the boot volume is snapshotted only where it is the only one, or VolumeIds names it."
        " `questdb-backup probe-volume --snapshot ID` tells what is on one",
    )
