"""The twin of EC2's volumes: they are made, initialized and attached after so many looks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from questdb_backup.ebs.volumes import RestoredVolume, VolumeSpec
from questdb_backup.errors import SnapshotError


@dataclass
class MemoryVolumes:
    """VolumeService in memory. ``slowness`` is how many looks each state lasts."""

    slowness: int = 1
    gib: int = 8
    calls: list[str] = field(default_factory=list)
    specs: dict[str, VolumeSpec] = field(default_factory=dict)
    fast: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Volumes by snapshot that end in another state than available."""
    _made: dict[str, tuple[RestoredVolume, Mapping[str, str]]] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    _looks: Counter[str] = field(default_factory=Counter)

    def create(self, spec: VolumeSpec, token: str, tags: Mapping[str, str]) -> str:
        self.calls.append("create")
        if token in self._tokens:
            return self._tokens[token]
        volume_id = f"vol-{len(self._made):017x}"
        self._tokens[token] = volume_id
        self.specs[volume_id] = spec
        self._made[volume_id] = (
            RestoredVolume(
                volume_id=volume_id,
                snapshot_id=spec.snapshot_id,
                state="creating",
                availability_zone=spec.availability_zone,
                size_gib=spec.size_gib or self.gib,
            ),
            tags,
        )
        return volume_id

    def find(self, tags: Mapping[str, str]) -> tuple[RestoredVolume, ...]:
        found = [name for name, (_, own) in self._made.items() if tags.items() <= own.items()]
        return tuple(self._look(name) for name in found)

    def _look(self, name: str) -> RestoredVolume:
        volume, tags = self._made[name]
        self._looks[name] += 1
        if volume.state == "creating" and self._looks[name] > self.slowness:
            volume = replace(volume, state=self.refused.get(volume.snapshot_id, "available"))
            self._looks[name] = 0
        elif volume.instance_id and not volume.is_attached and self._looks[name] > self.slowness:
            volume = replace(volume, is_attached=True)
        self._made[name] = volume, tags
        return volume

    def initialized_percent(self, volume_id: str) -> int:
        self.calls.append("initialized")
        self._looks["percent " + volume_id] += 1
        return min(100, 50 * self._looks["percent " + volume_id])

    def attach(self, volume_id: str, instance_id: str, device: str) -> None:
        self.calls.append("attach")
        volume, tags = self._made[volume_id]
        if device in self.used_devices(instance_id):
            raise SnapshotError(f"{device} is in use on {instance_id}")
        self._made[volume_id] = (
            replace(volume, state="in-use", instance_id=instance_id, device=device),
            tags,
        )
        self._looks[volume_id] = 0

    def used_devices(self, instance_id: str) -> frozenset[str]:
        volumes = (volume for volume, _ in self._made.values())
        return frozenset(each.device for each in volumes if each.instance_id == instance_id and each.device)

    def fast_restore_states(self, snapshot_ids: Sequence[str], zone: str) -> dict[str, str]:
        states = {}
        for each in snapshot_ids:
            if (each, zone) in self.fast:
                states[each] = self.fast[each, zone]
                following = {"enabling": "optimizing", "optimizing": "enabled", "disabling": "disabled"}
                self.fast[each, zone] = following.get(states[each], states[each])
        return states

    def enable_fast_restore(self, snapshot_ids: Sequence[str], zone: str) -> None:
        self.calls.append("enable")
        self.fast |= {(each, zone): "enabling" for each in snapshot_ids}

    def disable_fast_restore(self, snapshot_ids: Sequence[str], zone: str) -> None:
        self.calls.append("disable")
        self.fast |= {(each, zone): "disabling" for each in snapshot_ids}
