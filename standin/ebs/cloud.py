"""The pretended account and Region: what exists, and how it comes to be and goes."""

import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path

from standin.ebs.calls import CallLog
from standin.ebs.clock import StandinClock
from standin.ebs.errors import ServiceError, instance_not_found, snapshot_not_found, volume_not_found
from standin.ebs.faults import Faults
from standin.ebs.images import Image, clone
from standin.ebs.model import Delays, FastRestore, Instance, Snapshot, Volume
from standin.ebs.quotas import Quotas, Throttle

ZONE_LETTERS = "abc"


class Cloud:
    """All state. Hold ``lock`` while more than one thing is looked at or changed."""

    def __init__(
        self,
        folder: Path,
        *,
        region: str,
        account: str,
        clock: StandinClock,
        delays: Delays,
        quotas: Quotas,
        throttle: Throttle,
        around_clones: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.folder = folder
        self.region = region
        self.account = account
        self.clock = clock
        self.delays = delays
        self.quotas = quotas
        self.throttle = throttle
        self.around_clones = around_clones
        self.calls = CallLog()
        self.faults = Faults()
        self.lock = threading.RLock()
        self.instances: dict[str, Instance] = {}
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.fast_restores: dict[tuple[str, str], FastRestore] = {}
        self.unusable_keys: set[str] = set()
        self.client_tokens: dict[str, tuple[Mapping[str, object], str]] = {}

    @property
    def zones(self) -> list[str]:
        """Names of the Availability Zones."""
        return [self.region + letter for letter in ZONE_LETTERS]

    def zone_id(self, zone: str) -> str:
        """The zone's id, as ``use1-az1``."""
        area, direction, number = self.region.split("-")[:3]
        return f"{area}{direction[0]}{number}-az{ZONE_LETTERS.index(zone[-1]) + 1}"

    def instance(self, instance_id: str) -> Instance:
        """Raise ServiceError where there is none."""
        found = self.instances.get(instance_id)
        if not found:
            raise instance_not_found(instance_id)
        return found

    def volume(self, volume_id: str) -> Volume:
        """Raise ServiceError where there is none."""
        found = self.volumes.get(volume_id)
        if not found:
            raise volume_not_found(volume_id)
        return found

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Raise ServiceError where there is none."""
        found = self.snapshots.get(snapshot_id)
        if not found:
            raise snapshot_not_found(snapshot_id)
        return found

    def volumes_of(self, instance_id: str) -> list[Volume]:
        """The attached volumes, by device name."""
        own = (
            (volume.attachment.device, volume)
            for volume in self.volumes.values()
            if volume.attachment and volume.attachment.instance_id == instance_id
        )
        return [volume for _, volume in sorted(own, key=lambda pair: pair[0])]

    def take_snapshots(
        self, volumes: Collection[Volume], description: str, tags: Callable[[Volume], dict[str, str]]
    ) -> list[Snapshot]:
        """One snapshot of each, all started at one moment; the clones are made back to back."""
        now = self.clock.now()
        self._check_limits(volumes, now)
        cloned = []
        with self.around_clones():
            for volume in volumes:
                snapshot_id = new_id("snap")
                path = self.folder / f"{snapshot_id}.img"
                cloned.append((volume, snapshot_id, path, clone(volume.image, path)))
        return [
            self._add_snapshot(volume, snapshot_id, path, atomic, description, tags(volume), now)
            for volume, snapshot_id, path, atomic in cloned
        ]

    def _add_snapshot(
        self,
        volume: Volume,
        snapshot_id: str,
        path: Path,
        atomic: bool,
        description: str,
        tags: dict[str, str],
        now: datetime,
    ) -> Snapshot:
        completes = now + timedelta(seconds=self.delays.snapshot)
        snapshot = Snapshot(
            snapshot_id=snapshot_id,
            volume_id=volume.volume_id,
            size_gib=volume.size_gib,
            description=description,
            tags=tags,
            content=Image(path, volume.content),
            lineage=volume.lineage,
            atomic=atomic,
            encrypted=volume.encrypted,
            kms_key_id=volume.kms_key_id,
            started=now,
            completes=completes,
            visible=now + timedelta(seconds=self.delays.describe),
            readable=completes + timedelta(seconds=self.delays.readable),
        )
        self.snapshots[snapshot_id] = snapshot
        volume.content = snapshot.content
        volume.last_snapshot = now
        return snapshot

    def _check_limits(self, volumes: Collection[Volume], now: datetime) -> None:
        pending = [each for each in self.snapshots.values() if each.state(now) == "pending"]
        if len(pending) + len(volumes) > self.quotas.pending_snapshots:
            raise ServiceError(
                "PendingSnapshotLimitExceeded",
                "You have reached the limit of pending snapshots for your account.",
            )
        interval = self.quotas.snapshot_interval
        for volume in volumes:
            if volume.last_snapshot and (now - volume.last_snapshot).total_seconds() < interval:
                raise ServiceError(
                    "SnapshotCreationPerVolumeRateExceeded",
                    "The maximum per volume CreateSnapshot request rate has been exceeded. "
                    "Use an increasing or variable sleep interval between requests.",
                )
            own = sum(each.volume_id == volume.volume_id for each in pending)
            if own >= self.quotas.pending_per_volume:
                raise ServiceError(
                    "ConcurrentSnapshotLimitExceeded",
                    "Maximum allowed in-progress snapshots for a single volume exceeded.",
                )

    def drop_snapshot(self, snapshot_id: str) -> None:
        """Remove it, its file and its fast restores; later snapshots keep all that they have."""
        self.snapshots.pop(snapshot_id).content.remove()
        for pair in [pair for pair in self.fast_restores if pair[0] == snapshot_id]:
            del self.fast_restores[pair]


def new_id(kind: str) -> str:
    """As ``snap-0123456789abcdef0``."""
    return f"{kind}-0{secrets.token_hex(8)}"
