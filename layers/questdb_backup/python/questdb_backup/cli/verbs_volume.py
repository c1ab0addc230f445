"""The verb probe-volume: what is on a disk image or an EBS snapshot, and what of it can be read."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from questdb_backup.cli.render import format_bytes, to_text
from questdb_backup.cli.verb import Outcome, Verb
from questdb_backup.errors import ConfigurationError, DamagedVolumeError, UnsupportedVolumeError
from questdb_backup.local.options import Place
from questdb_backup.volumes.base import Device, FileSystem, ImageDevice
from questdb_backup.volumes.detect import LVM
from questdb_backup.volumes.layout import Part, open_parts
from questdb_backup.volumes.search import DEPTH, FoundRoot, find_roots
from questdb_backup.volumes.walk import described

_HELP = "say what is on a volume and whether the ebs source can read it"
_DESCRIPTION = f"""
Lists the partitions, logical volumes and file systems of a disk image or an EBS snapshot, and the server
roots of QuestDB on them, searched {DEPTH} folders deep. Nothing is mounted or changed; journals and logs
are replayed in memory. Exit code 0: at least one file system can be read. 1: none can.
"""
_COLUMNS = ("part", "size", "what", "label", "uuid", "state", "ebs source", "QuestDB")


_Entries = dict[str, tuple[str, int, str]]


@dataclass(frozen=True, slots=True)
class _Report:
    """One part; ``number`` counts from 1 in the order of the disk. ``entries`` only with ``--hash``."""

    number: int
    part: Part
    roots: tuple[FoundRoot, ...] = ()
    entries: _Entries = field(default_factory=dict)
    damage: str | None = None

    @property
    def readable(self) -> FileSystem | None:
        return None if self.damage else self.part.files

    @property
    def refused(self) -> str | None:
        return self.damage or self.part.refused

    def to_json(self) -> dict[str, Any]:
        files = self.part.files
        return {
            "part": self.number,
            "where": self.part.where,
            "offset": self.part.offset,
            "size": self.part.size,
            "what": self.part.what or None,
            "label": files.label if files else None,
            "uuid": files.uuid if files else None,
            "dirty": files.was_dirty if files else None,
            "readable": self.readable is not None,
            "refused": self.refused,
            "questdb": [asdict(root) for root in self.roots],
        }


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.description = " ".join(_DESCRIPTION.split())
    volume = parser.add_mutually_exclusive_group(required=True)
    volume.add_argument("--image", metavar="FILE", help="a disk image, or a block device of this host")
    volume.add_argument(
        "--snapshot",
        metavar="ID",
        help="an EBS snapshot, read through the EBS direct APIs (the AWS charges apply)",
    )
    parser.add_argument(
        "--hash",
        action="store_true",
        help="read every file; --json then has entries: {path: [type, size, value]}, type d, f or l, value a"
        " symlink's target or a file's BLAKE2b of 12 bytes; where several file systems can be read, the"
        " paths begin with part<n>/, n as in parts",
    )


def _probe(arguments: argparse.Namespace, _place: Place) -> Outcome:
    with ExitStack() as resources:
        device = _device(arguments, resources)
        reports = [_report(number, part, arguments.hash) for number, part in enumerate(open_parts(device), 1)]
        size = device.size
    value: dict[str, Any] = {
        "image": arguments.image,
        "snapshot": arguments.snapshot,
        "size": size,
        "parts": [report.to_json() for report in reports],
    }
    if arguments.hash:
        value["entries"] = _entries(reports)
    return Outcome(
        value=value,
        text="" if arguments.json else "\n".join(_lines(reports, value.get("entries"))),
        code=0 if any(report.readable for report in reports) else 1,
    )


def _device(arguments: argparse.Namespace, resources: ExitStack) -> Device:
    if arguments.snapshot is not None:
        from questdb_backup.ebs.blocks import SnapshotDevice
        from questdb_backup.ebs.direct import BotoDirectApi

        api = BotoDirectApi()
        resources.callback(api.close)
        return SnapshotDevice(api, arguments.snapshot)
    try:
        image = ImageDevice(Path(arguments.image))
    except OSError as error:
        raise ConfigurationError(
            f"the image {arguments.image} cannot be opened: {error.strerror}",
            "give --image a disk image or a block device that this user can read",
        ) from error
    resources.callback(image.close)
    return image


def _report(number: int, part: Part, with_entries: bool) -> _Report:
    if part.files is None:
        return _Report(number, part)
    try:
        entries = dict(described(part.files)) if with_entries else {}
        return _Report(number, part, tuple(find_roots(part.files)), entries)
    except (DamagedVolumeError, UnsupportedVolumeError) as error:
        return _Report(number, part, damage=str(error))


def _entries(reports: list[_Report]) -> _Entries:
    readable = [report for report in reports if report.readable]
    if len(readable) == 1:
        return readable[0].entries
    return {f"part{one.number}/{path}": entry for one in readable for path, entry in one.entries.items()}


def _lines(reports: list[_Report], entries: _Entries | None) -> Iterator[str]:
    yield _table(reports)
    for report in reports:
        if report.refused:
            yield f"part {report.number}, {report.part.where}: {report.refused}"
    if entries is not None:
        size = sum(size for kind, size, _ in entries.values() if kind == "f")
        yield f"read {len(entries)} directories, files and symlinks, {format_bytes(size)}"


def _table(reports: list[_Report]) -> str:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.MARKDOWN)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for report in reports:
        table.add_row(*(Text(" ".join(cell.split())) for cell in _row(report)))
    return to_text(table)


def _row(report: _Report) -> Iterator[str]:
    part, files = report.part, report.part.files
    yield f"{report.number}: {part.where}"
    yield format_bytes(part.size)
    yield part.what or "unknown"
    yield files.label if files else ""
    yield files.uuid if files else ""
    yield ("dirty" if files.was_dirty else "clean") if files else ""
    yield "yes" if report.readable else "its volumes" if part.what == LVM and not report.refused else "no"
    yield ", ".join(_root_words(root) for root in report.roots)


def _root_words(root: FoundRoot) -> str:
    return f"/{root.path} ({'has' if root.checkpoint else 'no'} .checkpoint/db)"


VERBS = (Verb(name="probe-volume", help=_HELP, configure=_configure, run=_probe),)
