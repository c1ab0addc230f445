"""The seams of the EBS route: what EC2 does with snapshots, and what the EBS direct APIs give of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from questdb_backup.errors import VolumeUnavailableError

BLOCK_BYTES = 512 << 10
"""The only block size of the EBS direct APIs."""

RUN_TAG = "questdb-backup:run"
"""Tag of a snapshot: the backup_timestamp of the run that made it."""
INSTANCE_TAG = "questdb-backup:instance"
"""Tag of a snapshot: the backup_instance_name."""
STACK_TAG = "questdb-backup:stack"
"""Tag of a snapshot: the name of the stack; permissions are bound to it."""
CHECKPOINT_TAG = "questdb-backup:checkpoint"
"""Tag of a snapshot: ``started_at`` of the checkpoint that was held; a run may need several rounds."""

KEPT_UNTIL_TAG = "questdb-backup:kept-until"
"""Tag of a snapshot: before this time, ISO 8601 UTC, no sweep deletes it: a restore makes volumes of it."""


class UnknownOutcomeError(VolumeUnavailableError):
    """CreateSnapshots was sent and not answered: it may have taken effect, or may yet do so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedVolume:
    """A volume of an EC2 instance; ``device`` is the attachment's name, say ``/dev/sdf``."""

    volume_id: str
    device: str
    size: int
    """Bytes."""
    is_root: bool
    """Whether the instance boots from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot as DescribeSnapshots tells: ``state`` is EC2's word (pending, completed, error, ...)."""

    snapshot_id: str
    volume_id: str
    state: str
    message: str
    """EC2's StateMessage; "" where there is none."""
    progress_percent: int
    size: int
    """Bytes of the volume."""
    started_at: str
    """ISO 8601 UTC."""
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSnapshot:
    """One volume of a run, as it travels through the workflow's state and stands in the manifest."""

    volume_id: str
    device: str
    snapshot_id: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "VolumeSnapshot":
        """From the state or the manifest."""
        return cls(**value)

    def to_json(self) -> dict[str, str]:
        """To the state or the manifest."""
        return asdict(self)


def volumes_of(state: Mapping[str, Any] | None) -> tuple[VolumeSnapshot, ...]:
    """The volumes in ``$.snapshots`` of the workflow's state; none where the source is another one."""
    return tuple(map(VolumeSnapshot.from_json, state["volumes"])) if state else ()


class Ec2(Protocol):
    """What a backup asks of EC2. All raise SnapshotError (refused) and VolumeUnavailableError (busy)."""

    def find_instance(self, selector: str) -> str:
        """The instance's id: ``selector`` is one, or ``tag-key=tag-value`` that one running instance has."""

    def volumes(self, instance_id: str) -> tuple[AttachedVolume, ...]:
        """The volumes that are attached to it, sorted by device name."""

    def instance_state(self, instance_id: str) -> str:
        """EC2's word, say ``running`` or ``stopped``."""

    def create_snapshots(
        self,
        instance_id: str,
        tags: Mapping[str, str],
        *,
        without_root: bool,
        without: Sequence[str],
    ) -> tuple[Snapshot, ...]:
        """One crash-consistent set of the attached volumes, but for the root or those of these ids.

        One request and no other, as the checkpoint is held meanwhile. It is sent once and never retried,
        not by the SDK either: there is no client token. Raise UnknownOutcomeError where it may have taken
        effect: the caller finds by tag what came of it. With VolumeUnavailableError it has not.
        """

    def find_snapshots(self, tags: Mapping[str, str]) -> tuple[Snapshot, ...]:
        """Own snapshots that have all these tags, oldest first."""

    def describe_snapshots(self, snapshot_ids: Sequence[str]) -> tuple[Snapshot, ...]:
        """Those of them that exist, in the order asked."""

    def tag_snapshots(self, snapshot_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Add these tags to them; one of the same name is replaced."""

    def delete_snapshot(self, snapshot_id: str) -> bool:
        """Delete it; False where it was gone already. Raise SnapshotError where it is locked or in use."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block that was written: ``token`` is what GetSnapshotBlock wants with the index."""

    index: int
    token: str


class DirectApi(Protocol):
    """The EBS direct APIs, read only.

    All raise SnapshotError (refused, unknown, not completed) and VolumeUnavailableError (no answer, or
    throttled for longer than the adapter itself waits).
    """

    def volume_size(self, snapshot_id: str) -> int:
        """Bytes of the volume."""

    def list_blocks(self, snapshot_id: str, first: int, end: int) -> Iterator[Block]:
        """Written blocks with ``first <= index < end``, ascending; all others are zeros."""

    def list_changed(self, first_snapshot_id: str, second_snapshot_id: str) -> Iterator[int]:
        """Indexes of blocks that were written, or went, between the two; ascending.

        Raise SnapshotError where they are not of one lineage, or the list takes too long for a step.
        """

    def get_block(self, snapshot_id: str, block: Block) -> bytes:
        """The block's BLOCK_BYTES bytes, checked against the checksum that came with them.

        Raise TokenExpiredError where the token is not valid any more: list the block again.
        """

    def counting(self, *, workers: int = 1) -> "DirectApi":
        """The same, whose `requests` start at zero; of the rate limit it has one worker's share."""

    @property
    def requests(self) -> dict[str, int]:
        """What was asked, as AWS bills it: ``list_requests`` (pages) and ``get_requests`` (blocks)."""
