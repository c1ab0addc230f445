"""What a run stored before its checkpoint: which partitions, under which signature, in which units."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from questdb_backup import keys
from questdb_backup.codec import compress_text, decompress_text
from questdb_backup.source.base import PlannedTable
from questdb_backup.steps.run import Run
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import SettledPart, UnitGroup


@dataclass(slots=True)
class SettledTable:
    """A table as it was then, and its partitions: signature, first and last unit, by name."""

    facts: PlannedTable
    partitions: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def note(self, group: UnitGroup, unit: int) -> None:
        """The unit has a part of the partition."""
        assert group.signature is not None, "only such are settled"
        _, first, _ = self.partitions.get(group.partition, ("", unit, unit))
        self.partitions[group.partition] = (group.signature, first, unit)

    def find(self, partition: str, signature: str | None) -> SettledPart | None:
        """The partition, where it still is what was stored."""
        known, first, last = self.partitions.get(partition, (None, 0, 0))
        if signature is None or signature != known:
            return None
        return SettledPart(table=self.facts.table, partition=partition, first=first, last=last)


Settled = dict[str, SettledTable]


def encode_settled(settled: Settled) -> bytes:
    """The bytes of ``settled-index-<attempt>``."""
    rows = ({**asdict(table.facts), "partitions": table.partitions} for table in settled.values())
    return compress_text(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def read_settled(store: ObjectStore, run: Run, before: Sequence[Mapping[str, Any]]) -> Settled:
    """What this run has stored before its checkpoint; ``before`` is the work list of that, or empty."""
    key = keys.settled_index(run.instance, run.backup_timestamp, before[0]["attempt"]) if before else None
    found = store.read(key) if key else None
    settled: Settled = {}
    for line in decompress_text(found.data).splitlines() if found else ():
        row = json.loads(line)
        partitions = {name: (part[0], part[1], part[2]) for name, part in row.pop("partitions").items()}
        settled[row["table"]] = SettledTable(PlannedTable(**row), partitions)
    return settled
