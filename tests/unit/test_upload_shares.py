"""Units out of snapshots share what EBS lets through: among those workers that there really are."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from questdb_backup import keys
from questdb_backup.ebs.direct import BotoDirectApi
from questdb_backup.steps.lock import acquire_lock
from questdb_backup.steps.plan import plan_backup
from questdb_backup.steps.run import Run
from questdb_backup.steps.upload import upload_partitions
from questdb_backup.units import Unit, encode_unit
from tests.support.backups import VERSION, make_root, make_services
from tests.support.memory_direct_api import MemoryDirectApi


class Asked(MemoryDirectApi):
    """Keeps how many workers it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[int] = []

    def counting(self, *, workers: int = 1) -> MemoryDirectApi:
        self.workers.append(workers)
        return super().counting(workers=workers)


@pytest.mark.parametrize(
    ("planned", "workers"), [({"units": 3}, 3), ({"units": 500}, 16), ({}, 16)], ids=["few", "many", "untold"]
)
def test_a_unit_takes_the_share_of_one_worker(planned: dict[str, Any], workers: int) -> None:
    api = Asked()
    services = replace(make_services(), make_direct=lambda: api)
    run = Run.from_json(acquire_lock(services, "run-1", {})["run"])
    unit = encode_unit(Unit(number=0, items=(), volumes=("snap-1",)))
    services.store.create(keys.unit(run.instance, run.backup_timestamp, 0, 0), unit)
    upload_partitions(services, run, {"unit": 0, "attempt": 0, **planned}, 0, workers=16)
    assert api.workers == [workers]


def test_the_work_list_tells_each_unit_how_many_there_are(tmp_path: Path) -> None:
    services = make_services(make_root(tmp_path / "root"), largest_unit_bytes=4096)
    run = Run.from_json(acquire_lock(services, "run-1", {})["run"])
    plan = plan_backup(services, run, "frozen", VERSION, None, 0)
    items = json.loads(services.store.get(keys.plan(run.instance, run.backup_timestamp)))
    assert plan["units"] == len(items) > 1
    assert {item["units"] for item in items} == {len(items)}


def test_the_share_is_that_of_the_rate_and_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with closing(BotoDirectApi(rate=1000.0)) as api:
        assert api.counting(workers=4)._bucket.rate == 250.0
        assert api.counting()._bucket is api._bucket
        assert api._bucket.rate == 1000.0
    with closing(BotoDirectApi()) as api:
        assert api.counting(workers=4)._bucket.rate is None


@pytest.mark.parametrize(("limit", "workers"), [(None, 16), (996, 16), (6, 6)])
def test_no_more_workers_are_begun_than_may_run(limit: int | None, workers: int) -> None:
    services = replace(make_services(max_concurrency=16), worker_limit=lambda: limit)
    assert acquire_lock(services, "run-1", {})["max_concurrency"] == workers
