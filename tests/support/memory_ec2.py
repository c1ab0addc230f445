"""EC2 in memory: `Ec2` with instances, volumes and snapshots that are completed after so many looks."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from questdb_backup.clock import Clock, format_timestamp, system_clock
from questdb_backup.ebs.base import AttachedVolume, Snapshot, UnknownOutcomeError
from questdb_backup.errors import SnapshotError, VolumeUnavailableError

GIB = 1 << 30


@dataclass
class _Instance:
    state: str
    tags: dict[str, str]
    volumes: list[AttachedVolume] = field(default_factory=list)


@dataclass
class _Made:
    snapshot: Snapshot
    looks_left: int
    hidden_for: int
    end: tuple[str, str]
    is_locked: bool = False


@dataclass
class MemoryEc2:
    """Change the fields at any time; they hold for snapshots that are made from then on.

    Attributes:
        looks: so many descriptions find a snapshot pending.
        hidden_for: so many lists and descriptions do not show a new snapshot yet.
        end: state and message that pending ends with.
        calls: names of the methods that were called.
    """

    clock: Clock = system_clock
    looks: int = 1
    hidden_for: int = 0
    end: tuple[str, str] = ("completed", "")
    calls: list[str] = field(default_factory=list)
    _instances: dict[str, _Instance] = field(default_factory=dict)
    _made: dict[str, _Made] = field(default_factory=dict)
    _lost: list[str] = field(default_factory=list)
    _busy: int = 0
    _next: dict[str, str] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # ---- What a test does

    def name_next(self, **ids: str) -> None:
        """The next ids: ``i``, ``vol``, ``snap``."""
        self._next = ids

    def add_instance(self, *, state: str = "running", **tags: str) -> str:
        """Its id."""
        instance_id = self._id("i")
        self._instances[instance_id] = _Instance(state, tags)
        return instance_id

    def set_state(self, instance_id: str, state: str) -> None:
        self._instances[instance_id].state = state

    def add_volume(
        self, instance_id: str, device: str = "/dev/sdf", *, root: bool = False, size: int = GIB
    ) -> str:
        """The id of a volume of so many bytes."""
        volume = AttachedVolume(volume_id=self._id("vol"), device=device, size=size, is_root=root)
        self._instances[instance_id].volumes.append(volume)
        return volume.volume_id

    def detach(self, volume_id: str) -> None:
        for instance in self._instances.values():
            instance.volumes = [each for each in instance.volumes if each.volume_id != volume_id]

    def lose_answer(self, when: str) -> None:
        """The next CreateSnapshots is not answered: ``before`` or ``after`` it took effect."""
        self._lost.append(when)

    def be_busy(self, times: int = 1) -> None:
        """The next calls are asked to slow down."""
        self._busy = times

    def end_snapshot(self, snapshot_id: str, state: str = "completed", message: str = "") -> None:
        """It is pending no more."""
        made = self._made[snapshot_id]
        made.looks_left, made.end = 0, (state, message)

    def lock_snapshot(self, snapshot_id: str) -> None:
        self._made[snapshot_id].is_locked = True

    def drop_snapshot(self, snapshot_id: str) -> None:
        """Delete it behind the caller's back."""
        del self._made[snapshot_id]

    def snapshots(self) -> list[Snapshot]:
        """All that there are, oldest first."""
        with self._lock:
            return [self._shown(made) for made in self._made.values()]

    # ---- Ec2

    def find_instance(self, selector: str) -> str:
        self._pass("find_instance")
        key, is_tag, value = selector.partition("=")
        if not is_tag:
            self._known(selector)
            return selector
        found = [
            name
            for name, each in self._instances.items()
            if each.state == "running" and each.tags.get(key) == value
        ]
        if len(found) != 1:
            raise SnapshotError(f"{len(found) or 'no'} running instances have the tag {selector}")
        return found[0]

    def instance_state(self, instance_id: str) -> str:
        self._pass("instance_state")
        return self._known(instance_id).state

    def volumes(self, instance_id: str) -> tuple[AttachedVolume, ...]:
        self._pass("volumes")
        return tuple(sorted(self._known(instance_id).volumes, key=lambda volume: volume.device))

    def create_snapshots(
        self, instance_id: str, tags: Mapping[str, str], *, without_root: bool, without: Sequence[str]
    ) -> tuple[Snapshot, ...]:
        self._pass("create_snapshots")
        with self._lock:
            lost = self._lost.pop() if self._lost else ""
            made = [] if lost == "before" else self._make(instance_id, tags, without_root, without)
            if lost:
                raise UnknownOutcomeError("creating snapshots: the connection was closed without an answer")
            return tuple(made)

    def find_snapshots(self, tags: Mapping[str, str]) -> tuple[Snapshot, ...]:
        self._pass("find_snapshots")
        with self._lock:
            seen = [made for made in self._made.values() if self._is_seen(made)]
            found = [self._shown(each) for each in seen if tags.items() <= each.snapshot.tags.items()]
            return tuple(sorted(found, key=lambda snapshot: (snapshot.started_at, snapshot.snapshot_id)))

    def describe_snapshots(self, snapshot_ids: Sequence[str]) -> tuple[Snapshot, ...]:
        self._pass("describe_snapshots")
        with self._lock:
            known = [self._made[each] for each in snapshot_ids if each in self._made]
            seen = [made for made in known if self._is_seen(made)]
            shown = tuple(map(self._shown, seen))
            for made in seen:
                made.looks_left = max(0, made.looks_left - 1)
            return shown

    def tag_snapshots(self, snapshot_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        self._pass("tag_snapshots")
        with self._lock:
            for each in snapshot_ids:
                if each not in self._made:
                    raise SnapshotError(f"tagging {each}: it does not exist")
                made = self._made[each]
                made.snapshot = replace(made.snapshot, tags={**made.snapshot.tags, **tags})

    def delete_snapshot(self, snapshot_id: str) -> bool:
        self._pass("delete_snapshot")
        with self._lock:
            made = self._made.get(snapshot_id)
            if made and made.is_locked:
                raise SnapshotError(f"deleting {snapshot_id}: SnapshotLocked: it is locked")
            return self._made.pop(snapshot_id, None) is not None

    # ---- Inside

    def _pass(self, name: str) -> None:
        with self._lock:
            self.calls.append(name)
            if self._busy:
                self._busy -= 1
                raise VolumeUnavailableError(f"{name}: RequestLimitExceeded", "AWS is busy")

    def _known(self, instance_id: str) -> _Instance:
        if instance_id not in self._instances:
            raise SnapshotError(f"InvalidInstanceID.NotFound: {instance_id}")
        return self._instances[instance_id]

    def _make(
        self, instance_id: str, tags: Mapping[str, str], without_root: bool, without: Sequence[str]
    ) -> list[Snapshot]:
        volumes = self._known(instance_id).volumes
        data = {volume.volume_id for volume in volumes if not volume.is_root}
        if not data.issuperset(without):
            raise SnapshotError(
                "creating snapshots: InvalidParameterValue: a volume to exclude is not attached"
            )
        started_at = format_timestamp(self.clock())
        wanted = [
            volume
            for volume in volumes
            if volume.volume_id not in without and not (volume.is_root and without_root)
        ]
        return [self._add(volume, tags, started_at) for volume in wanted]

    def _add(self, volume: AttachedVolume, tags: Mapping[str, str], started_at: str) -> Snapshot:
        snapshot = Snapshot(
            snapshot_id=self._id("snap"),
            volume_id=volume.volume_id,
            state="pending",
            message="",
            progress_percent=0,
            size=volume.size,
            started_at=started_at,
            tags=dict(tags),
        )
        self._made[snapshot.snapshot_id] = _Made(snapshot, self.looks, self.hidden_for, self.end)
        return snapshot

    def _is_seen(self, made: _Made) -> bool:
        made.hidden_for -= 1
        return made.hidden_for < 0

    def _shown(self, made: _Made) -> Snapshot:
        if made.looks_left:
            return made.snapshot
        state, message = made.end
        percent = 100 if state == "completed" else 0
        return replace(made.snapshot, state=state, message=message, progress_percent=percent)

    def _id(self, kind: str) -> str:
        return self._next.pop(kind, None) or f"{kind}-{next(self._numbers):017x}"
