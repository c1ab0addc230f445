"""What `check` found, for people and as JSON."""

from dataclasses import dataclass, field
from typing import Any

from questdb_backup.check.inventory import SHOWN, Tally


@dataclass(kw_only=True)
class BackupHealth:
    """Whether a listed backup can be restored in full, as far as it was looked at.

    ``damaged_files`` counts files that cannot be brought back, ``files`` names the first of them.
    """

    backup_timestamp: str
    error: str | None = None
    damaged_files: int = 0
    files: list[str] = field(default_factory=list)

    @property
    def restorable(self) -> bool:
        """Whether nothing of it is missing or damaged."""
        return self.error is None and not self.damaged_files

    def add(self, path: str, files: int = 1) -> None:
        """Note files that are lost."""
        self.damaged_files += files
        if len(self.files) < SHOWN:
            self.files.append(path)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "backup_timestamp": self.backup_timestamp,
            "restorable": self.restorable,
            "error": self.error,
            "damaged_files": self.damaged_files,
            "files": self.files,
        }


@dataclass(kw_only=True)
class InstanceReport:
    """One instance. ``problems`` make the exit code 1; ``notes`` do not.

    ``orphans`` are old enough to be removed, ``young`` ones are within the grace. ``unjudged`` could not
    be told apart: something that would name them cannot be read. ``judged``: orphans may be removed.
    """

    instance: str
    problems: list[str] = field(default_factory=list)
    damaged: int = 0
    notes: list[str] = field(default_factory=list)
    backups: list[BackupHealth] = field(default_factory=list)
    damaged_packs: tuple[str, ...] = ()
    judged: bool = True
    orphans: Tally = field(default_factory=Tally)
    young: Tally = field(default_factory=Tally)
    waiting: Tally = field(default_factory=Tally)
    live: Tally = field(default_factory=Tally)
    unjudged: Tally = field(default_factory=Tally)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "backup_instance_name": self.instance,
            "problems": self.problems,
            "damaged": self.damaged,
            "notes": self.notes,
            "backups": [backup.to_json() for backup in self.backups],
            "damaged_packs": list(self.damaged_packs),
            "orphans": self.orphans.to_json(),
            "young_orphans": self.young.to_json(),
            "waiting": self.waiting.to_json(),
            "live": self.live.to_json(),
            "unjudged": self.unjudged.to_json(),
        }


@dataclass(kw_only=True)
class StoreReport:
    """Everything below ``_backup/``."""

    problems: list[str] = field(default_factory=list)
    instances: list[InstanceReport] = field(default_factory=list)
    foreign: Tally = field(default_factory=Tally)
    objects: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or damaged; orphans and foreign objects harm nobody."""
        return not self.problems and not any(instance.problems for instance in self.instances)

    def to_json(self) -> dict[str, Any]:
        """The JSON of `check`."""
        return {
            "ok": self.ok,
            "problems": [*self.problems, *(text for one in self.instances for text in one.problems)],
            "instances": [instance.to_json() for instance in self.instances],
            "foreign": self.foreign.to_json(),
            "objects": self.objects,
            "bytes": self.bytes,
        }
