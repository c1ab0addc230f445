"""The composition root of one machine: what the command line says becomes configuration and adapters."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from questdb_backup.errors import ConfigurationError
from questdb_backup.gentle.base import Throttle
from questdb_backup.gentle.priority import IoPriority, Priorities
from questdb_backup.questdb.base import Database
from questdb_backup.services import GRACE_SECONDS, Config, Services
from questdb_backup.settings import Settings, load_settings
from questdb_backup.source.base import Source
from questdb_backup.source.clones import Clones
from questdb_backup.status.base import StatusStore
from questdb_backup.stores.base import ObjectStore

STATE_FOLDER = "backup"
MOST_WORKERS = 4
"""Units at a time: each holds two packs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a verb was given; plain values, so that the watchdog can be told the same.

    ``flags`` are settings by their flag's name. ``source`` is ``path`` or ``frozen``.
    """

    root: str | None = None
    source: str = "path"
    dsn: str | None = None
    state: str | None = None
    server_version: str | None = None
    grace_hours: float | None = None
    flags: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Where one machine keeps the live status and its locks: ``ROOT/backup`` or ``--state DIR``."""

    path: Path

    @property
    def status(self) -> Path:
        """The SQLite file of the live status."""
        return self.path / "status.sqlite"

    @property
    def run_lock(self) -> Path:
        """Held while a run is alive."""
        return self.path / "run.lock"

    @property
    def guard_lock(self) -> Path:
        """Held while a guard acts: one at a time."""
        return self.path / "guard.lock"

    @property
    def watchdog_log(self) -> Path:
        """What the watchdog had to say."""
        return self.path / "watchdog.log"


class Place:
    """One machine's services for the given options; nothing is opened before it is asked for."""

    def __init__(self, options: Options, environ: Mapping[str, str]) -> None:
        self.options = options
        self._environ = environ

    @cached_property
    def root(self) -> Path | None:
        """The server root, absolute. Raise ConfigurationError where it is none."""
        if self.options.root is None:
            return None
        root = Path(self.options.root).absolute()
        try:
            problem = _not_a_root(root)
        except OSError as error:
            raise ConfigurationError(
                f"the server root {root} cannot be looked into: {error.strerror}",
                "run as the user of the server, or as root",
            ) from error
        if problem:
            raise ConfigurationError(problem, "give --root as QuestDB's -d folder")
        return root

    @cached_property
    def settings(self) -> Settings:
        """The settings, from flags, environment and the root's conf folder."""
        return load_settings(self.options.flags, self._environ, self.root)

    def check_words(self) -> None:
        """Raise ConfigurationError where the object store or the server is named wrongly; open nothing."""
        from questdb_backup.stores.connection_string import parse_connection_string

        parse_connection_string(self.settings.require_object_store())
        self._conninfo()

    @cached_property
    def state(self) -> StateFolder:
        """Where the live status is. Raise ConfigurationError without a root and a state folder."""
        if self.options.state is not None:
            return StateFolder(Path(self.options.state).absolute())
        if self.root is None:
            raise ConfigurationError("this verb needs the server root", "give --root, or --state DIR")
        if not os.access(self.root, os.W_OK):
            raise ConfigurationError(
                f"the live status cannot be kept in {self.root}: it is not writable for this user",
                "run as the server's user, or give --state DIR",
            )
        folder = self.root / STATE_FOLDER
        # A copy of a live root has the state of that root's run, which is not dead and not ours to end.
        return StateFolder(folder / "frozen" if self.options.source == "frozen" else folder)

    @cached_property
    def services(self) -> Services:
        """Everything a step may use."""
        settings, options = self.settings, self.options
        return Services(
            config=Config(
                source=options.source,
                root=self.root,
                instance_name=settings.instance_name,
                server_version=options.server_version,
                release_timeout_seconds=10.0,
                grace_seconds=GRACE_SECONDS if options.grace_hours is None else options.grace_hours * 3600.0,
                keep_latest_n=settings.cleanup_keep_latest_n,
                compression_level=settings.compression_level,
                compression_threads=settings.compression_threads,
                max_concurrency=min(settings.compression_threads, MOST_WORKERS),
                largest_unit_bytes=self._largest_unit_bytes(),
            ),
            make_store=self._store,
            make_status=self._status,
            make_database=self._database,
            make_source=self._source,
            make_clones=self._clones,
            make_throttle=self._throttle,
            lower_priorities=Priorities(nice=settings.nice, io=IoPriority(settings.io_priority)).lower_thread,
        )

    def _store(self) -> ObjectStore:
        from questdb_backup.stores.open import open_store

        return open_store(
            self.settings.require_object_store(), max_connections=self.settings.compression_threads + 4
        )

    def _status(self) -> StatusStore:
        from questdb_backup.status.sqlite import SqliteStatusStore

        return SqliteStatusStore(self.state.status)

    def _database(self) -> Database:
        from questdb_backup.questdb.pgwire import PgwireDatabase

        return PgwireDatabase(self._conninfo())

    def _largest_unit_bytes(self) -> int | None:
        from questdb_backup.gentle.build import largest_unit_bytes

        return largest_unit_bytes(
            read_limit=self.settings.read_limit,
            follows_pressure=self._follows_pressure,
            workers=min(self.settings.compression_threads, MOST_WORKERS),
        )

    @property
    def _follows_pressure(self) -> bool:
        return self.settings.throttle and self.options.source == "path"

    def _throttle(self) -> Throttle:
        from questdb_backup.gentle.build import open_throttle

        settings = self.settings
        return open_throttle(
            read_limit=settings.read_limit,
            follows_pressure=self._follows_pressure,
            wal_lag=settings.throttle_wal_lag,
            workers=min(settings.compression_threads, MOST_WORKERS),
            conninfo=self._conninfo,
        )

    def _conninfo(self) -> str:
        from questdb_backup.questdb.conninfo import conninfo_from

        return conninfo_from(self.options.dsn, self._environ)

    def _clones(self) -> Clones:
        from questdb_backup.source.clones import FileClones, NoClones

        root = self.root
        return NoClones() if root is None else FileClones(root, root / STATE_FOLDER / "clones")

    def _source(self, version: str | None) -> Source:
        from questdb_backup.source.path import CheckpointSource, LocalTree

        root = self.root
        if root is None:
            raise ConfigurationError("no server root is set", "give --root with QuestDB's root directory")
        return CheckpointSource(LocalTree(root), server_version=version)


def _not_a_root(root: Path) -> str | None:
    """Why the path is no server root; None where it is one. Raise OSError where it may not be known."""
    if not root.exists():
        return f"the server root {root} does not exist"
    if not root.is_dir():
        return f"the server root {root} is not a directory"
    if not (root / "db").is_dir():
        return f"{root} has no db folder, so it is no QuestDB root"
    return None
