"""``EbsStandin``: the whole thing in a ``with`` statement."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal

from standin.ebs.calls import CallLog
from standin.ebs.clock import StandinClock
from standin.ebs.cloud import Cloud, new_id
from standin.ebs.direct import DirectApi, Paging
from standin.ebs.faults import Faults
from standin.ebs.model import GIB, Attachment, Delays, Instance, Snapshot, SnapshotEnd, Volume
from standin.ebs.quotas import Quotas, Throttle
from standin.ebs.server import Server, Service


class EbsStandin:
    """EC2 and the EBS direct APIs of one account and Region, on a free port of 127.0.0.1.

    ``folder`` takes the image files of snapshots and of volumes that are created; where it and the
    volumes' images lie on one file system with reflinks, snapshots are atomic under running writers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        region: str = "us-east-1",
        account: str = "123456789012",
        frozen_clock: bool = False,
        delays: Delays | None = None,
        quotas: Quotas | None = None,
        paging: Paging | None = None,
        throttle_by_clock: bool = False,
        around_clones: Callable[[], AbstractContextManager[object]] = nullcontext,
        port: int = 0,
    ) -> None:
        """Set the terms.

        Args:
            folder: where image files are made; it is created.
            region: the Region's name.
            account: the owner's id.
            frozen_clock: whether time passes only by ``clock.advance``.
            delays: how long things take; by default nothing does.
            quotas: by default AWS's.
            paging: what the service is free to do with pages; can be changed later (``paging``).
            throttle_by_clock: whether request rates are counted by ``clock`` instead of real time.
            around_clones: a context that is held while the images of one call are cloned, say to stop
                the writers where clones are not atomic or several volumes must be of one instant.
            port: 0 for a free one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.clock = StandinClock(frozen=frozen_clock)
        quotas = quotas or Quotas()
        seconds = self.clock.seconds if throttle_by_clock else time.monotonic
        self._cloud = Cloud(
            folder,
            region=region,
            account=account,
            clock=self.clock,
            delays=delays or Delays(),
            quotas=quotas,
            throttle=Throttle(quotas, seconds),
            around_clones=around_clones,
        )
        self.paging = paging or Paging()
        self.region = region
        self._server = Server(Service(self._cloud, DirectApi(self._cloud, self.paging)), port)

    def __enter__(self) -> "EbsStandin":
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def endpoint(self) -> str:
        """The URL of both services."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that bring any AWS client here."""
        return {
            "AWS_ENDPOINT_URL_EBS": self.endpoint,
            "AWS_ENDPOINT_URL_EC2": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "standin",
            "AWS_SECRET_ACCESS_KEY": "standin",
        }

    @property
    def calls(self) -> CallLog:
        """What was asked so far."""
        return self._cloud.calls

    @property
    def faults(self) -> Faults:
        """What is to go wrong."""
        return self._cloud.faults

    @property
    def delays(self) -> Delays:
        """How long things take; may be replaced at any time."""
        return self._cloud.delays

    @delays.setter
    def delays(self, value: Delays) -> None:
        self._cloud.delays = value

    def add_instance(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        zone: str | None = None,
        state: str = "running",
        instance_id: str | None = None,
    ) -> str:
        """Its id."""
        with self._cloud.lock:
            instance = Instance(
                instance_id=instance_id or new_id("i"),
                zone=zone or self._cloud.zones[0],
                state=state,
                tags=dict(tags or {}),
                launched=self.clock.now(),
            )
            self._cloud.instances[instance.instance_id] = instance
            return instance.instance_id

    def add_volume(
        self,
        instance_id: str | None,
        *,
        image: Path,
        device: str = "/dev/sdf",
        root: bool = False,
        tags: Mapping[str, str] | None = None,
        volume_id: str | None = None,
        encrypted: bool = False,
        kms_key_id: str | None = None,
        size_gib: int | None = None,
    ) -> str:
        """The id of a volume whose bytes are those of ``image``, which others may go on writing.

        Its size is by default the image's, rounded up to GiB; what is past the image's end was never
        written.
        """
        with self._cloud.lock:
            now = self.clock.now()
            instance = self._cloud.instance(instance_id) if instance_id else None
            name = volume_id or new_id("vol")
            self._cloud.volumes[name] = Volume(
                volume_id=name,
                image=image,
                size_gib=size_gib or max(1, -(-image.stat().st_size // GIB)),
                zone=instance.zone if instance else self._cloud.zones[0],
                encrypted=encrypted,
                kms_key_id=kms_key_id,
                iops=3000,
                throughput=125,
                tags=dict(tags or {}),
                created=now,
                ready=now,
                lineage=name,
                attachment=Attachment(
                    instance_id=instance.instance_id,
                    device=device,
                    is_root=root,
                    attached=now,
                    requested=now,
                )
                if instance
                else None,
            )
            return name

    def set_instance_state(self, instance_id: str, state: str) -> None:
        """As ``stopped``."""
        with self._cloud.lock:
            self._cloud.instance(instance_id).state = state

    def end_snapshot(self, snapshot_id: str, ends: SnapshotEnd = "completed", message: str = "") -> None:
        """Let it end now: as ``completed``, ``error`` or ``recoverable``, with EC2's StateMessage."""
        with self._cloud.lock:
            snapshot = self._cloud.snapshot(snapshot_id)
            snapshot.ends, snapshot.message = ends, message
            snapshot.completes = min(snapshot.completes, self.clock.now())
            snapshot.readable = min(snapshot.readable, self.clock.now())

    def doom_snapshot(self, snapshot_id: str, message: str, ends: SnapshotEnd = "error") -> None:
        """Let it end so when its time comes."""
        with self._cloud.lock:
            snapshot = self._cloud.snapshot(snapshot_id)
            snapshot.ends, snapshot.message = ends, message

    def lock_snapshot(self, snapshot_id: str, seconds: float) -> None:
        """Snapshot Lock: it cannot be deleted for so long."""
        with self._cloud.lock:
            until = self.clock.now() + timedelta(seconds=seconds)
            self._cloud.snapshot(snapshot_id).locked_until = until

    def use_snapshot(self, snapshot_id: str, image_id: str | None) -> None:
        """Register an AMI from it (None: deregister), so that it cannot be deleted."""
        with self._cloud.lock:
            self._cloud.snapshot(snapshot_id).used_by = image_id

    def archive_snapshot(self, snapshot_id: str, tier: Literal["standard", "archive"] = "archive") -> None:
        """Move it to that tier."""
        with self._cloud.lock:
            self._cloud.snapshot(snapshot_id).tier = tier

    def drop_snapshot(self, snapshot_id: str) -> None:
        """Delete it behind the caller's back."""
        with self._cloud.lock:
            self._cloud.drop_snapshot(snapshot_id)

    def detach(self, volume_id: str) -> None:
        """Take the volume off its instance."""
        with self._cloud.lock:
            self._cloud.volume(volume_id).attachment = None

    def disable_key(self, kms_key_id: str) -> None:
        """Let the KMS key be unusable: volumes that need it end as ``error``."""
        with self._cloud.lock:
            self._cloud.unusable_keys.add(kms_key_id)

    def snapshots(self) -> list[Snapshot]:
        """All that exist, oldest first."""
        with self._cloud.lock:
            return list(self._cloud.snapshots.values())

    def snapshot_image(self, snapshot_id: str) -> Path:
        """The file with the snapshot's bytes; not to be written."""
        return self._cloud.snapshot(snapshot_id).content.path

    def volume_image(self, volume_id: str) -> Path:
        """The file with the volume's bytes."""
        return self._cloud.volume(volume_id).image
