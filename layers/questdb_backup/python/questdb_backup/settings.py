"""The settings of the product: every ``backup.*`` property, from the first place that gives it.

The places, in order: command-line flags (``--compression-level`` for ``backup.compression.level``), the
environment (``QDB_BACKUP_COMPRESSION_LEVEL``, QuestDB's own rule), ``conf/backup.conf`` of the server
root, ``conf/server.conf``. A blank value counts as not given. Every value remembers its place, so that
an error can name it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.cron import parse_cron
from questdb_backup.errors import ConfigurationError
from questdb_backup.instance_name import is_instance_name
from questdb_backup.properties import parse_properties
from questdb_backup.schedule import Schedule, check_time_zone

_ENVIRONMENT_PREFIX = "QDB_BACKUP_"
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LEAST_READ_LIMIT = 1 << 20
_ALWAYS_ON = ("backup.enable.partition.hashes", "backup.verify.partition.hashes")


def cpu_count() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of the ``backup.*`` properties; None where a property has no default and is not given."""

    enabled: bool = False
    """Only the schedule asks for it."""
    object_store: str | None = field(default=None, repr=False)
    """The connection string; it may hold secrets. Parsed where the store is opened."""
    schedule_cron: str | None = None
    schedule_tz: str = "UTC"
    cleanup_keep_latest_n: int = 5
    compression_level: int = 5
    """1-22, a zstd level."""
    compression_threads: int = field(default_factory=cpu_count)
    instance_name: str | None = None
    restore_timestamp: str | None = None
    read_limit: int | None = None
    """Bytes per second; None is no limit."""
    nice: int = 10
    io_priority: str = "best-effort"
    """A word of `IoPriority`."""
    throttle: bool = True
    """Whether the reading of a live root gives way to the server."""
    throttle_wal_lag: int = 200
    """Transactions: about what QuestDB applies to a table in one go."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Property name to the place that gave it; a property with its default is not in it."""
    warnings: tuple[str, ...] = ()

    @property
    def schedule(self) -> Schedule | None:
        """When backups are due; None where they are started by hand only."""
        return Schedule(cron=self.schedule_cron, tz=self.schedule_tz) if self.schedule_cron else None

    def require_object_store(self) -> str:
        """The connection string. Raise ConfigurationError where no place gives it."""
        if self.object_store is None:
            raise ConfigurationError(
                "backup.object.store is not set",
                "set it in conf/backup.conf of the server root, as QDB_BACKUP_OBJECT_STORE or with"
                " --object-store, say fs::root=/mnt/backups;atomic_write_dir=/mnt/backups/atomic;",
            )
        return self.object_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """A documented property: its field in `Settings` and how its text is read (ValueError: how it is not)."""

    name: str
    read: Callable[[str], Any]

    @property
    def attribute(self) -> str:
        """The field of `Settings`."""
        return self.name.removeprefix("backup.").replace(".", "_")

    @property
    def flag(self) -> str:
        """The command-line flag, without its dashes."""
        return self.name.removeprefix("backup.").replace(".", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "QDB_" + self.name.upper().replace(".", "_")


def _read_flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text.lower() == "true"


def _read_number(low: int, high: int | None = None) -> Callable[[str], int]:
    wanted = f"a whole number from {low} to {high}" if high else f"a whole number of at least {low}"

    def read(text: str) -> int:
        digits = text.removeprefix("+")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
            raise ValueError(f"is not {wanted}")
        if int(digits) < low or (high is not None and int(digits) > high):
            raise ValueError(f"is not {wanted}")
        return int(digits)

    return read


def _read_switch(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise ValueError("is neither on nor off")
    return text.lower() == "on"


def _read_word(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return text.lower()

    return read


def _read_size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", text, re.IGNORECASE)
    size = int(match[1]) * _SIZES[match[2].upper()] if match else 0
    if size < _LEAST_READ_LIMIT:
        raise ValueError("is not a number of bytes of at least 1M, say 50M or 1G")
    return size


def _read_cron(text: str) -> str:
    parse_cron(text)
    return text


def _read_time_zone(text: str) -> str:
    check_time_zone(text)
    return text


def _read_instance_name(text: str) -> str:
    if not is_instance_name(text):
        raise ValueError("is not three lower-case words like gentle-forest-orchid")
    return text


def _read_timestamp(text: str) -> str:
    return format_timestamp(parse_timestamp(text))


PROPERTIES = (
    Property(name="backup.enabled", read=_read_flag),
    Property(name="backup.object.store", read=str),
    Property(name="backup.schedule.cron", read=_read_cron),
    Property(name="backup.schedule.tz", read=_read_time_zone),
    Property(name="backup.cleanup.keep.latest.n", read=_read_number(1)),
    Property(name="backup.compression.level", read=_read_number(1, 22)),
    Property(name="backup.compression.threads", read=_read_number(1)),
    Property(name="backup.instance.name", read=_read_instance_name),
    Property(name="backup.restore.timestamp", read=_read_timestamp),
    Property(name="backup.read.limit", read=_read_size),
    Property(name="backup.nice", read=_read_number(0, 19)),
    Property(name="backup.io.priority", read=_read_word("idle", "best-effort", "none")),
    Property(name="backup.throttle", read=_read_switch),
    Property(name="backup.throttle.wal.lag", read=_read_number(1)),
)
_NAMES = tuple(known.name for known in PROPERTIES)


def load_settings(flags: Mapping[str, str | None], environ: Mapping[str, str], root: Path | None) -> Settings:
    """Read the settings; ``flags`` by their names without dashes in front, None where not given.

    Words of a flag may be joined by ``-`` or ``_``; flags that are no property are not looked at.
    Raise ConfigurationError for a bad value, with its origin, and for an unknown ``backup.*`` property
    in ``backup.conf``.
    """
    backup_conf, server_conf = _read_files(root)
    places = _places(flags, environ, backup_conf, server_conf)
    values, origins = {}, {}
    for known in PROPERTIES:
        for place in places:
            text, origin = place.get(known.name, (None, ""))
            if text is not None and text.strip():
                values[known.attribute] = _read(known, text.strip(), origin)
                origins[known.name] = origin
                break
    warnings = (
        *_environment_warnings(environ),
        *_always_on_warnings(backup_conf),
        *_always_on_warnings(server_conf),
        *_server_conf_warnings(server_conf),
    )
    return Settings(**values, origins=origins, warnings=warnings)


def _places(
    flags: Mapping[str, str | None], environ: Mapping[str, str], *files: "_File"
) -> list[Mapping[str, tuple[str | None, str]]]:
    """Property name to text and origin, of each place in its order."""
    return [
        {
            known.name: (flags.get(known.flag) or flags.get(known.attribute), f"--{known.flag}")
            for known in PROPERTIES
        },
        {known.name: (environ.get(known.variable), known.variable) for known in PROPERTIES},
        *({name: (value, str(file.path)) for name, value in file.properties.items()} for file in files),
    ]


def _read(known: Property, text: str, origin: str) -> Any:
    try:
        return known.read(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{known.name}={text} (from {origin}): {error.fact}", error.hint) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{known.name}={text} (from {origin}) {error}", "correct it there, or leave it out"
        ) from None


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    properties: Mapping[str, str]
    """Its ``backup.*`` properties only."""


def _read_files(root: Path | None) -> tuple[_File, _File]:
    if root is None:
        return _File(Path(), {}), _File(Path(), {})
    backup_conf = _read_file(root / "conf" / "backup.conf")
    for name in backup_conf.properties:
        if name not in _NAMES and name not in _ALWAYS_ON:
            raise ConfigurationError(f"{backup_conf.path} has an unknown property {name}", _nearest(name))
    return backup_conf, _read_file(root / "conf" / "server.conf")


def _read_file(path: Path) -> _File:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return _File(path, {})
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", "check its permissions"
        ) from error
    found = parse_properties(text)
    return _File(path, {name: value for name, value in found.items() if name.startswith("backup.")})


def _nearest(name: str) -> str:
    near = get_close_matches(name, _NAMES, n=1)
    return f"the nearest known name is {near[0]}" if near else f"known are {', '.join(_NAMES)}"


def _environment_warnings(environ: Mapping[str, str]) -> Iterator[str]:
    """A misspelt variable would leave a default in force, say for the number of backups to keep."""
    known = {each.variable for each in PROPERTIES}
    for name in sorted(environ):
        if name.startswith(_ENVIRONMENT_PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.9)
            if near:
                yield f"{name} is not a setting and is not used; the nearest known name is {near[0]}"


def _always_on_warnings(file: _File) -> Iterator[str]:
    for name in _ALWAYS_ON:
        if name in file.properties:
            yield f"{name} in {file.path} has no effect: hashes are always computed and verified"


def _server_conf_warnings(file: _File) -> Iterator[str]:
    if file.properties:
        yield (
            f"{file.path} has {', '.join(sorted(file.properties))}: a QuestDB OSS server rejects them there"
            f" under config.validation.strict=true; move them to {file.path.with_name('backup.conf')}"
        )
    for name in sorted(file.properties):
        if name not in _NAMES and name not in _ALWAYS_ON:
            yield f"{name} in {file.path} is unknown and not used; {_nearest(name)}"
