"""What a step may use: the configuration of this deployment, and the adapters, built when first asked for.

Which adapters these are is decided in one place, `bootstrap`; tests put others in.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from questdb_backup.clock import Clock, format_timestamp, system_clock
from questdb_backup.ebs.base import DirectApi, Ec2
from questdb_backup.ebs.volumes import VolumeService
from questdb_backup.errors import ConfigurationError
from questdb_backup.gentle.base import NoThrottle, Throttle
from questdb_backup.questdb.base import Database
from questdb_backup.source.base import Source
from questdb_backup.source.clones import Clones, NoClones
from questdb_backup.status.base import StatusStore
from questdb_backup.stores.base import ObjectStore

logger = logging.getLogger("questdb_backup")

SOURCES = ("path", "frozen", "ebs")
GRACE_SECONDS = 48 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One deployment: a stack on AWS, or a server root on this machine.

    ``window_seconds``: how long after its intent a CREATE may still begin. ``lease_seconds``: how
    long a holder may be silent; longer than any single step. ``grace_seconds``: how long packs stay
    after the backup that needed them was removed. ``largest_unit_bytes``: what one worker can surely
    read within its task's time, however it is held down; None where nothing holds it down.
    """

    source: str = "path"
    root: Path | None = None
    instance_name: str | None = None
    stack_id: str | None = None
    stack_name: str = "questdb-backup"
    server_version: str | None = None
    window_seconds: float = 5.0
    lease_seconds: float = 900.0
    release_timeout_seconds: float = 60.0
    grace_seconds: float = GRACE_SECONDS
    keep_latest_n: int = 5
    compression_level: int = 5
    compression_threads: int = 2
    max_concurrency: int = 2
    ebs_instance: str | None = None
    ebs_volume_ids: tuple[str, ...] = ()
    keep_ebs_snapshots: int = 1
    ebs_server_root: str | None = None
    ebs_mounts: tuple[str, ...] = ()
    largest_unit_bytes: int | None = None
    restore_root: Path | None = None
    object_store: str | None = field(default=None, repr=False)
    """The connection string, for the command that a restore without a target answers with."""

    def require_root(self) -> Path:
        """The server root. Raise ConfigurationError where none is set."""
        if self.root is None:
            raise ConfigurationError("no server root is set", "give --root with QuestDB's root directory")
        return self.root


class Metrics(Protocol):
    """Where figures of a run go: CloudWatch on AWS, nowhere on one machine."""

    def add(self, name: str, value: float, unit: str, **dimensions: str) -> None:
        """Emit one figure; ``unit`` is CloudWatch's name of it, say ``Seconds``."""


class NoMetrics:
    """The twin for one machine: the status and the counters hold the same figures."""

    def add(self, name: str, value: float, unit: str, **dimensions: str) -> None:
        """Do nothing."""


def _codec_threads(threads: int) -> Executor:
    return ThreadPoolExecutor(threads, thread_name_prefix="codec")


def _leave_priorities() -> None:
    """Nothing else runs beside a Lambda."""


def _no_ec2() -> Ec2:
    raise ConfigurationError(
        "EC2 is not asked in this deployment", "the source ebs is for the deployed stack"
    )


def _no_direct() -> DirectApi:
    raise ConfigurationError(
        "EBS snapshots are not read in this deployment", "the source ebs is for the deployed stack"
    )


def _no_volumes() -> VolumeService:
    raise ConfigurationError("volumes cannot be made in this deployment", "restore to a path")


@dataclass(kw_only=True)
class Services:
    """Configuration and adapters. The factories are called once, at the first use."""

    config: Config
    make_store: Callable[[], ObjectStore]
    make_status: Callable[[], StatusStore]
    make_database: Callable[[], Database]
    make_source: Callable[[str | None], Source]
    """Given the server version, the source of the files."""
    make_clones: Callable[[], Clones] = NoClones
    make_ec2: Callable[[], Ec2] = _no_ec2
    make_direct: Callable[[], DirectApi] = _no_direct
    make_volumes: Callable[[], VolumeService] = _no_volumes
    worker_limit: Callable[[], int | None] = lambda: None
    """How many workers the platform lets run at once; None where there is no limit, or it is not known."""
    make_throttle: Callable[[], Throttle] = NoThrottle
    lower_priorities: Callable[[], None] = _leave_priorities
    """Lowers the calling thread; a worker calls it before it reads, again and again does no harm."""
    make_codec_pool: Callable[[int], Executor] = _codec_threads
    metrics: Metrics = field(default_factory=NoMetrics)
    clock: Clock = system_clock
    sleep: Callable[[float], object] = time.sleep

    @cached_property
    def store(self) -> ObjectStore:
        """The object store of ``backup.object.store``."""
        return self.make_store()

    @cached_property
    def codec_pool(self) -> Executor:
        """Where chunks are encoded and decoded: ``backup.compression.threads`` for all workers together."""
        return self.make_codec_pool(self.config.compression_threads)

    @cached_property
    def status(self) -> StatusStore:
        """The live status."""
        return self.make_status()

    @cached_property
    def database(self) -> Database:
        """The server."""
        return self.make_database()

    @cached_property
    def clones(self) -> Clones:
        """What keeps files of the root, so that the checkpoint can be released before they are read."""
        return self.make_clones()

    @cached_property
    def ec2(self) -> Ec2:
        """The instance, its volumes and their snapshots."""
        return self.make_ec2()

    @cached_property
    def direct(self) -> DirectApi:
        """What is in the snapshots."""
        return self.make_direct()

    @cached_property
    def volumes(self) -> VolumeService:
        """What makes volumes of snapshots."""
        return self.make_volumes()

    @cached_property
    def throttle(self) -> Throttle:
        """What a worker asks before it reads from the source."""
        return self.make_throttle()

    @property
    def held_down(self) -> str | None:
        """How the throttle holds reading down now; None also where no worker has asked for one yet."""
        throttle: Throttle | None = vars(self).get("throttle")
        return throttle.held_down if throttle else None

    def now(self) -> str:
        """This machine's clock, as a timestamp."""
        return format_timestamp(self.clock())
