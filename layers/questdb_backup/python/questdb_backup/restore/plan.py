"""The plan of a restore: its units of work, each to be found without reading the others.

plan.jsonl     a line per unit
plan.index     a line of fixed length per unit: where its line begins, and the bytes it has to write;
               the plan is whole when this is there
"""

import json
from collections.abc import Iterable, Iterator

from questdb_backup.errors import RestoreFailedError
from questdb_backup.restore.contents import Piece
from questdb_backup.restore.small_files import SmallFiles

_PLAN, _INDEX = "plan.jsonl", "plan.index"
_INDEX_LINE = 40  # two numbers of 19 digits, a space and a newline


class PlanFiles(SmallFiles):
    """The plan in an open directory."""

    def write_plan(self, units: Iterable[list[Piece]]) -> None:
        """Write the plan, one unit in memory."""
        index: list[str] = []
        self._write(_PLAN, self._plan_lines(units, index))
        self._write(_INDEX, index)

    def _plan_lines(self, units: Iterable[list[Piece]], index: list[str]) -> Iterator[str]:
        offset = 0
        for unit in units:
            line = json.dumps([piece.to_json() for piece in unit], separators=(",", ":")) + "\n"
            index.append(f"{offset:019} {sum(piece.bytes for piece in unit):019}\n")
            offset += len(line)
            yield line

    def has_plan(self) -> bool:
        """Whether the plan is whole."""
        return self._has(_INDEX)

    def units(self) -> Iterator[list[Piece]]:
        """The plan, one unit at a time."""
        with self._lines(_PLAN) as file:
            for line in file:
                yield [Piece.from_json(piece) for piece in json.loads(line)]

    def unit(self, number: int) -> list[Piece]:
        """One unit. Raise RestoreFailedError where the plan has none of that number."""
        with self._lines(_INDEX) as index, self._lines(_PLAN) as plan:
            index.seek(_INDEX_LINE * number)
            place = index.readline()
            if not place:
                raise RestoreFailedError(
                    f"the plan in {self.path} has no unit {number}", "start the restore again"
                )
            plan.seek(int(place.split()[0]))
            return [Piece.from_json(piece) for piece in json.loads(plan.readline())]

    def unit_sizes(self) -> list[int]:
        """Bytes that each unit has to write."""
        with self._lines(_INDEX) as file:
            return [int(line.split()[1]) for line in file]
