"""UploadPartitions: one unit of work, its files cut into chunks, the new ones stored in packs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from questdb_backup import keys
from questdb_backup.errors import PermanentError
from questdb_backup.packs import PackWriter
from questdb_backup.services import Services
from questdb_backup.source.base import Tree
from questdb_backup.steps.known_chunks import KnownChunks
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.steps.unit_worker import UnitWorker
from questdb_backup.units import Unit, UnitResult, decode_unit, encode_result


def upload_partitions(
    services: Services, run: Run, item: dict[str, Any], attempt: int, *, workers: int
) -> dict[str, Any]:
    """Store one unit: packs, then the result object. Gives nothing: the result is beside the data.

    ``workers``: how many such units may be stored at once. Raise SourceFileError where a referenced file
    is missing or short, LeaseLostError where the run has ended meanwhile.
    """
    try:
        _upload(services, run, item, attempt, workers)
    except PermanentError as error:
        # Step Functions tells of a failed Map only that it failed; FailBackup finds the words here.
        services.status.record_error(run.instance, run.backup_timestamp, run.token, str(error))
        raise
    return {}


def _upload(services: Services, run: Run, item: dict[str, Any], attempt: int, workers: int) -> None:
    began = time.monotonic()
    check_lease(services, run)
    number = item["unit"]
    key = keys.unit(run.instance, run.backup_timestamp, number, item["attempt"])
    unit = decode_unit(services.store.get(key))
    known = KnownChunks(services, run, unit)
    writer = PackWriter(
        lambda index: keys.pack_name(run.backup_timestamp, number, attempt, index),
        lambda name, data: services.store.create(keys.pack(run.instance, name), data),
    )
    with writer, _open_tree(services, run, unit, item, workers) as tree:
        worker = UnitWorker(services, run, number, known, writer, tree)
        items = worker.store(unit)
        writer.flush()
        if isinstance(tree, CountedTree):
            worker.counters.update(tree.counters, put_requests=len(writer.packs) + 1)
    check_lease(services, run)
    if unit.volumes:
        worker.counters["lambda_milliseconds"] = round((time.monotonic() - began) * 1000)
    result = UnitResult(
        number=number,
        attempt=attempt,
        packs={**known.used, **writer.packs},
        counters=worker.counters,
        items=items,
    )
    services.store.create(
        keys.result(run.instance, run.backup_timestamp, number, attempt), encode_result(result)
    )
    worker.report(final=True)


@runtime_checkable
class CountedTree(Tree, Protocol):
    """A tree whose reads are billed."""

    @property
    def counters(self) -> dict[str, int]:
        """What was asked so far, by the names of the backup's counters."""


@contextmanager
def _open_tree(
    services: Services, run: Run, unit: Unit, item: dict[str, Any], workers: int
) -> Iterator[Tree]:
    """What the unit's files are read from: their stretches of EBS snapshots, their clones, or the root."""
    if not unit.volumes:
        cloned = item.get("cloned")
        yield services.clones.tree(run.backup_timestamp) if cloned else services.make_source(None).tree
        return
    from questdb_backup.ebs.unit_tree import UnitTree

    with UnitTree(services.direct, unit, workers=min(workers, item.get("units", workers))) as tree:
        yield tree
