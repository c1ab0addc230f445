"""A folder in place of what is in the snapshots, for tests of everything around them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from questdb_backup.ebs import planning
from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.instances import record_data_id
from questdb_backup.manifest import Manifest, read_shard
from questdb_backup.services import Services
from questdb_backup.source.base import Source
from questdb_backup.steps.run import Run
from questdb_backup.unit_cutting import whole_file

DATA_ID = "0f" * 16


def put_folder_in_snapshots(
    monkeypatch: pytest.MonkeyPatch, given: Callable[[], Source], *, data_id: str | None = None
) -> None:
    """Let PlanBackup find ``given`` in the snapshots, and the workers read from their own `make_source`.

    ``data_id`` is that of the database in them.
    """

    def open_snapshots(
        services: Services,
        run: Run,
        snapshots: tuple[VolumeSnapshot, ...],
        base: Manifest | None,
        *_: Any,
        **__: Any,
    ) -> SimpleNamespace:
        assert snapshots
        record_data_id(services.store, run.instance, data_id)
        if base:  # what is unchanged is looked up there
            assert [*read_shard(services.store, base.tables[0].shards[0])]
        return SimpleNamespace(
            origin=given(),
            volumes=(),
            locator=SimpleNamespace(pieces=whole_file),
            root=SimpleNamespace(path="questdb"),
            api=SimpleNamespace(requests={"list_requests": 0, "get_requests": 0}),
        )

    monkeypatch.setattr(planning, "open_snapshots", open_snapshots)
