"""Which backup a restore takes, and whether a server may open it: pure decisions."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TypeVar

from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.errors import ConfigurationError, NoRestorePointError, VersionMismatchError
from questdb_backup.retention import StatusRow
from questdb_backup.words import BackupStatus

Row = TypeVar("Row", bound=StatusRow)

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?![\d.])", re.ASCII)


def choose_instance(names: Sequence[str], asked: str | None) -> str:
    """The asked instance, or the only one of the store.

    Raise NoRestorePointError where the store has none or not the asked one, ConfigurationError where
    it has several and none is asked for; both list what there is.
    """
    options = sorted(names)
    if not options:
        raise NoRestorePointError(
            "nothing is stored here: the store holds no backup instance",
            "check the bucket and the root in backup.object.store; where it held backups,"
            " `questdb-backup check` tells what is lost",
        )
    listed = f"the store holds {', '.join(options)}"
    if asked is None:
        if len(options) == 1:
            return options[0]
        raise ConfigurationError(
            f"several backup instances share the store: {', '.join(options)}",
            "name one with backup.instance.name (on the command line --instance-name)",
        )
    if asked not in options:
        near = get_close_matches(asked, options, n=1)
        hint = f"the nearest one is {near[0]}; {listed}" if near else listed
        raise NoRestorePointError(f"no backup instance is named '{asked}'", hint)
    return asked


def choose_restore_point(rows: Iterable[Row], timestamp: str | None) -> Row:
    """The newest complete backup at or before ``timestamp`` (any form `parse_timestamp` reads; None: now).

    Raise NoRestorePointError where there is none, with the range that is there.
    """
    complete = sorted(
        (row for row in rows if row.status == BackupStatus.BACKUP_COMPLETE),
        key=lambda row: row.backup_timestamp,
    )
    if not complete:
        raise NoRestorePointError(
            "the backup instance has no complete backup", "`questdb-backup backups` shows what became of them"
        )
    if timestamp is None:
        return complete[-1]
    limit = format_timestamp(parse_timestamp(timestamp))
    found = [row for row in complete if row.backup_timestamp <= limit]
    if not found:
        raise NoRestorePointError(
            f"backup restore error: No backup timestamp found that is <= {limit}", _range_hint(complete)
        )
    return found[-1]


def _range_hint(complete: Sequence[StatusRow]) -> str:
    first, last = complete[0].backup_timestamp, complete[-1].backup_timestamp
    if first == last:
        return f"the only complete backup is {first}"
    return f"the {len(complete)} complete backups range from {first} to {last}"


def judge_server_version(recorded: str | None, wanted: str | None, *, force: bool) -> list[str]:
    """Whether the server version ``wanted`` may open a backup of version ``recorded``; notes for the user.

    The major versions have to be the same, and the server not older than the backup: QuestDB itself
    checks neither, and an older one can misread files of a newer one. None stands for unknown: the
    notes then say what to look out for. ``force`` turns the refusal into a note.

    Raise VersionMismatchError, or ConfigurationError where ``wanted`` is no version.
    """
    have, want = _parse_version(recorded), _parse_version(wanted)
    if wanted is not None and want is None:
        raise ConfigurationError(f"'{wanted}' is not a QuestDB version", "write it as 9.3.4")
    if have is None:
        named = f" ('{recorded}' is no release)" if recorded else ""
        return [
            f"the backup does not record the QuestDB version it was made with{named}:"
            " open it with the same version, or a newer one of the same major version"
        ]
    if want is None:
        return [
            f"the backup was made with QuestDB {recorded}: open it with that or a newer {have[0]}.x version"
        ]
    problem = _mismatch(have, want, f"{recorded}", f"{wanted}")
    if problem is None:
        return []
    if force:
        return [f"{problem}; forced"]
    raise VersionMismatchError(
        problem,
        f"start QuestDB {recorded} or a newer {have[0]}.x on the restored root, or restore with --force",
    )


def _mismatch(have: tuple[int, ...], want: tuple[int, ...], recorded: str, wanted: str) -> str | None:
    if have[0] != want[0]:
        return f"QuestDB {wanted} and the backup's {recorded} have different major versions"
    if want < have:
        return f"QuestDB {wanted} is older than {recorded}, which made the backup"
    return None


def _parse_version(text: str | None) -> tuple[int, ...] | None:
    match = _VERSION.match(text.strip()) if text else None
    return tuple(int(part or 0) for part in match.groups()) if match else None
