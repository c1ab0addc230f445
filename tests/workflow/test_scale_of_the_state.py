"""Ten tebibytes pass through the workflow, and its state stays small."""

import json
import tracemalloc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.codec import compress_text
from questdb_backup.engine.history import HISTORY_LIMIT
from questdb_backup.engine.payload import PAYLOAD_LIMIT
from questdb_backup.services import Services
from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, PlannedTable
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.run import Run
from questdb_backup.units import UnitResult, encode_result
from tests.support.kit import INSTANCE, DictSource, Kit

GIB = 1 << 30
TIB = 1 << 40
MAX_UNITS = 10_000


class Sizes(DictSource):
    """A database of sizes alone: so many partitions with so many files of one size."""

    def __init__(self, partitions: int, files: int, size: int) -> None:
        super().__init__({})
        self._shape = (partitions, files, size)

    def tables(self) -> Iterator[PlannedTable]:
        yield PlannedTable(table="t~1", name="t", kind="wal")

    def outlines(self) -> Iterator[GroupOutline]:
        for number in range(self._shape[0]):
            yield GroupOutline(
                table="t~1",
                partition=f"{number:020d}",
                signature=None,
                list_files=partial(self._columns, number),
            )

    def _columns(self, number: int) -> Iterator[PlannedFile]:
        _, files, size = self._shape
        for index in range(files):
            path = f"db/t~1/2026-{number}/column_{index}.d"
            yield PlannedFile(path=path, kind=EntryKind.FILE, mode=0o644, size=size, exact=True)


class Weighed:
    """Remembers the largest event and result of the handlers."""

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, value: Any) -> Any:
        self.largest = max(self.largest, len(json.dumps(value)))
        return value


def test_ten_tebibytes_stay_within_the_limits_of_step_functions(capsys: pytest.CaptureFixture[str]) -> None:
    kit = Kit(Sizes(partitions=1024, files=10, size=GIB))
    payload = Weighed()
    seen: dict[str, Any] = {}

    def upload(event: dict[str, Any]) -> dict[str, Any]:
        payload(event)
        run, number = event["run"]["backup_timestamp"], event["item"]["unit"]
        result = UnitResult(number=number, attempt=0, packs={}, counters={"units": 1}, items=())
        kit.store.create(keys.result(INSTANCE, run, number, 0), encode_result(result))
        return {}

    def plan(event: dict[str, Any]) -> Any:
        seen.update(payload(_plan(kit.services, payload(event))))
        return seen

    result = kit.backup(PlanBackup=plan, UploadPartitions=upload)
    assert result.status == "SUCCEEDED", (result.error, result.cause)
    assert seen["bytes"] == 10 * TIB
    assert seen["units"] <= MAX_UNITS
    assert isinstance(result.output, dict)
    assert result.output["units"] == seen["units"], "every unit was run and collected"
    assert result.events < HISTORY_LIMIT
    assert payload.largest < PAYLOAD_LIMIT
    with capsys.disabled():
        print(f"\n10 TiB: {seen['units']} units, {result.events} events, at most {payload.largest} bytes")


def _plan(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    run = Run.from_json(event["run"])
    return plan_backup(services, run, "path", "9.3.4", event["fence"]["started_at"], 0)


class Forgetful:
    """A store that keeps the catalog alone: what is measured is the planner."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create(self, key: str, data: bytes) -> None:
        assert key


def _peak(files: int) -> int:
    kit = Kit(Sizes(partitions=files // 100, files=100, size=1 << 20))
    services = kit.make_services(store=Forgetful(kit.store))
    run = acquire_lock(services, "execution", {})["run"]
    tracemalloc.start()
    try:
        plan = _plan(services, {"run": run, "fence": {"started_at": "2026-01-01T00:00:00.000000Z"}})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plan["bytes"] == files << 20
    return peak


def test_the_planners_memory_does_not_grow_with_the_number_of_files() -> None:
    compress_text(b"warm up")
    few, many = _peak(8_000), _peak(80_000)
    assert many < 2 * few, (few, many)
