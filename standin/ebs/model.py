"""What exists in the pretended account: instances, volumes, snapshots, and their states by the clock."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from standin.ebs.images import Image

GIB = 1 << 30
SnapshotEnd = Literal["completed", "error", "recoverable"]


@dataclass(kw_only=True)
class Instance:
    """An EC2 instance; it exists to have volumes."""

    instance_id: str
    zone: str
    state: str
    tags: dict[str, str]
    launched: datetime


@dataclass(kw_only=True)
class Attachment:
    """Where a volume hangs."""

    instance_id: str
    device: str
    is_root: bool
    attached: datetime
    """When it is (or will be) attached: ``attaching`` before."""
    requested: datetime


@dataclass(kw_only=True)
class Volume:
    """An EBS volume over an image file that others may write to at any time."""

    volume_id: str
    image: Path
    size_gib: int
    zone: str
    volume_type: str = "gp3"
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = False
    kms_key_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    created: datetime
    ready: datetime
    """``creating`` before."""
    fails: bool = False
    """Whether it ends as ``error`` instead of ``available`` (a key that cannot be used)."""
    attachment: Attachment | None = None
    snapshot_id: str | None = None
    content: Image | None = None
    """What it was made from, or the content of its newest snapshot: the parent of the next one."""
    lineage: str
    """The volume whose snapshots all this descends from."""
    initialization_rate: int | None = None
    """MiB/s."""
    initialized: datetime | None = None
    """When all blocks have arrived; None for a volume that was not made from a snapshot."""
    fast_restored: bool = False
    last_snapshot: datetime | None = None

    def state(self, now: datetime) -> str:
        """EC2's word for it."""
        if now < self.ready:
            return "creating"
        if self.fails:
            return "error"
        return "in-use" if self.attachment else "available"


@dataclass(kw_only=True)
class Snapshot:
    """A snapshot: the content is taken at once, the states are a matter of the clock."""

    snapshot_id: str
    volume_id: str
    size_gib: int
    description: str
    tags: dict[str, str]
    content: Image
    lineage: str
    atomic: bool
    """Whether the clone was one (see ``images.clone``)."""
    encrypted: bool
    kms_key_id: str | None
    started: datetime
    completes: datetime
    visible: datetime
    """From when DescribeSnapshots shows it."""
    readable: datetime
    """From when the direct APIs know it."""
    ends: SnapshotEnd = "completed"
    message: str = ""
    tier: Literal["standard", "archive"] = "standard"
    locked_until: datetime | None = None
    used_by: str | None = None
    """The AMI that was registered from it."""

    def state(self, now: datetime) -> str:
        """EC2's word for it."""
        return "pending" if now < self.completes else self.ends

    def progress(self, now: datetime) -> str:
        """As ``40%``."""
        if now >= self.completes:
            return "100%" if self.ends == "completed" else "0%"
        whole = (self.completes - self.started) / timedelta(seconds=1)
        return f"{int(100 * ((now - self.started) / timedelta(seconds=1)) / whole)}%"


@dataclass(kw_only=True)
class FastRestore:
    """Fast snapshot restore of one snapshot in one zone."""

    snapshot_id: str
    zone: str
    size_gib: int
    enabling: datetime
    optimizing: datetime
    enabled: datetime
    disabling: datetime | None = None
    disabled: datetime | None = None
    credits: float = 0.0
    """Volumes that could be made with it at ``credits_at``."""
    credits_at: datetime

    def state(self, now: datetime) -> str:
        """EC2's word for it."""
        if self.disabling:
            return "disabled" if self.disabled and now >= self.disabled else "disabling"
        if now < self.optimizing:
            return "enabling"
        return "optimizing" if now < self.enabled else "enabled"

    def spend_credit(self, now: datetime) -> bool:
        """Whether a volume that is made now is fully initialized at once; if so it costs a credit.

        Credits are zero at first and fill at ``min(10, 1024 / GiB)`` an hour, up to as many, at least 1.
        """
        if self.state(now) != "enabled":
            return False
        rate = min(10.0, 1024 / self.size_gib)
        hours = (now - self.credits_at) / timedelta(hours=1)
        self.credits = min(max(1.0, rate), self.credits + hours * rate)
        self.credits_at = now
        if self.credits < 1:
            return False
        self.credits -= 1
        return True


@dataclass(frozen=True, kw_only=True)
class Delays:
    """How long things take, in seconds of the stand-in's clock."""

    snapshot: float = 0.0
    """From ``pending`` to the end, each snapshot."""
    describe: float = 0.0
    """Until DescribeSnapshots shows a new snapshot: EC2 is eventually consistent."""
    readable: float = 0.0
    """From ``completed`` until the direct APIs know the snapshot."""
    volume: float = 0.0
    """From ``creating`` to ``available``."""
    attach: float = 0.0
    """From ``attaching`` to ``attached``."""
    enable_fast_restore: float = 0.0
    """From ``enabling`` to ``optimizing``, and from ``disabling`` to ``disabled``."""
    optimize_fast_restore_tib: float = 3600.0
    """From ``optimizing`` to ``enabled``, each TiB."""
    initialization_report: float = 0.0
    """From ``available`` until DescribeVolumeStatus tells of the initialization."""
    default_initialization_rate: float = 60.0
    """MiB/s at which a volume's blocks arrive without any option."""
