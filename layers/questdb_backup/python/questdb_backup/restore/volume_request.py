"""What a restore to volumes is asked for."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from questdb_backup.errors import ConfigurationError

_MIN_RATE, _MAX_RATE = 100, 300
"""MiB/s; what EC2 takes for VolumeInitializationRate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest:
    """Volumes made of the EBS snapshots that were kept of a backup.

    ``availability_zone``: where. ``volume_type``, ``size_gib`` (not below the snapshot's), ``iops``,
    ``throughput`` (MiB/s): as in CreateVolume. A new volume fetches each block from S3 when it is
    first read, which is slow; ``initialization_rate`` (100 to 300 MiB/s, charged by the GiB) fetches
    all of it at once and is waited for, ``fast_snapshot_restore`` prepares the snapshot before
    (about an hour a TiB, charged by the hour, switched off afterwards). ``attach_to``: the instance
    that gets the volumes, under the device names of old where those are free.
    """

    availability_zone: str
    volume_type: str = "gp3"
    size_gib: int | None = None
    iops: int | None = None
    throughput: int | None = None
    initialization_rate: int | None = None
    fast_snapshot_restore: bool = False
    attach_to: str | None = None

    @classmethod
    def from_json(cls, value: Any) -> "VolumeRequest":
        """Check the fields. Raise ConfigurationError."""
        if not isinstance(value, dict):
            raise ConfigurationError(f"the restore's field 'volume' is {value!r}", "it is an object")
        known = {field.name: str(field.type) for field in fields(cls)}
        for name, given in value.items():
            if name not in known:
                raise ConfigurationError(
                    f"a restore to a volume has no field '{name}'", f"it may have {', '.join(sorted(known))}"
                )
            if given is not None and not _fits(given, known[name]):
                raise ConfigurationError(
                    f"the field '{name}' of 'volume' is {given!r}",
                    "numbers are whole and above zero, switches are true or false, all else is text",
                )
        if not value.get("availability_zone"):
            raise ConfigurationError(
                "a restore to a volume needs its zone", 'say {"availability_zone": "eu-west-1a"}'
            )
        request = cls(**{name: given for name, given in value.items() if given not in ("", None)})
        return request._checked()

    def _checked(self) -> "VolumeRequest":
        rate = self.initialization_rate
        if rate is not None and not _MIN_RATE <= rate <= _MAX_RATE:
            raise ConfigurationError(
                f"initialization_rate is {rate} MiB/s", f"it is {_MIN_RATE} to {_MAX_RATE}"
            )
        if rate is not None and self.fast_snapshot_restore:
            raise ConfigurationError(
                "initialization_rate and fast_snapshot_restore exclude each other", "give one of them"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """What is asked for, without what is left out."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


def _fits(given: Any, kind: str) -> bool:
    if "bool" in kind:
        return isinstance(given, bool)
    if "int" in kind:
        return isinstance(given, int) and not isinstance(given, bool) and given > 0
    return isinstance(given, str)
