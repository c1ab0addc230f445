"""What a restore is asked for, and the restore as it travels through the workflow's state."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from questdb_backup.clock import parse_timestamp
from questdb_backup.errors import ConfigurationError
from questdb_backup.restore.volume_request import VolumeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """The input of the restore's state machine; everything may be left out.

    ``root``: the target, absent where the deployment mounts one. ``instance``: needed where the store
    has several. ``timestamp``: the newest backup at or before it is taken. ``server_version``: the
    version that is going to open the root. ``force``: open it although the versions do not fit.
    ``dry_run``: judge everything, change nothing. ``keep_instance``: the restored root goes on under
    the backup's instance name. ``target``: ``path`` (the default) or ``volume``: EBS volumes are made of
    the backup's own snapshots, as ``volume`` says, where those were kept.
    """

    root: str | None = None
    instance: str | None = None
    timestamp: str | None = None
    server_version: str | None = None
    force: bool = False
    dry_run: bool = False
    keep_instance: bool = False
    target: str | None = None
    volume: VolumeRequest | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "RestoreRequest":
        """Check the fields. Raise ConfigurationError for an unknown field or a value of another type."""
        known = {field.name: field.type for field in fields(cls)}
        volume = VolumeRequest.from_json(value["volume"]) if value.get("volume") is not None else None
        value = {name: given for name, given in value.items() if name != "volume"}
        for name, given in value.items():
            if name not in known:
                raise ConfigurationError(
                    f"a restore has no field '{name}'", f"it may have {', '.join(sorted(known))}"
                )
            wanted = bool if known[name] is bool else str
            if not isinstance(given, wanted) and not (given is None and wanted is str):
                kind = "true or false" if wanted is bool else "text"
                raise ConfigurationError(f"the restore's field '{name}' is {given!r}", f"it is {kind}")
        request = cls(
            volume=volume, **{name: given for name, given in value.items() if given not in ("", None)}
        )
        if request.target not in (None, "path", "volume"):
            raise ConfigurationError(f"a restore has no target '{request.target}'", "it is path or volume")
        if (request.target == "volume") != (volume is not None):
            raise ConfigurationError(
                "the target 'volume' and the field 'volume' go together",
                'say {"target": "volume", "volume": {"availability_zone": "eu-west-1a"}}',
            )
        if request.timestamp is not None:
            parse_timestamp(request.timestamp)
        return request

    def to_json(self) -> dict[str, Any]:
        """What is asked for, without what is left out."""
        value = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        return value if self.volume is None else {**value, "volume": self.volume.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """One restore under way. ``execution`` owns the staging directory; sizes are in bytes.

    ``rebuild_indexes``: the server that will open the root knows the setting for it.
    """

    execution: str
    root: str
    instance: str
    backup_timestamp: str
    manifest_key: str
    manifest_digest: str
    server_version: str | None
    tables: int
    files: int
    bytes: int
    keep_instance: bool = False
    rebuild_indexes: bool = True
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Restore":
        """From the workflow's state."""
        return cls(**{**value, "notes": tuple(value["notes"])})

    def to_json(self) -> dict[str, Any]:
        """To the workflow's state."""
        return {**asdict(self), "notes": list(self.notes)}

    @property
    def target(self) -> Path:
        """The server root that is made."""
        return Path(self.root)

    def result(self, *more_notes: str) -> dict[str, Any]:
        """The JSON of `restore`; ``server_version`` is the one to run."""
        return {
            "root": self.root or None,
            "backup_timestamp": self.backup_timestamp,
            "backup_instance_name": self.instance,
            "tables": self.tables,
            "files": self.files,
            "bytes": self.bytes,
            "server_version": self.server_version,
            "notes": [*self.notes, *more_notes],
        }
