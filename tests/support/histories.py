"""What signatures say and what bytes there are: for tests of backups that take over what did not change."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from questdb_backup.local.options import Options, Place
from questdb_backup.local.runner import run_backup
from questdb_backup.questdb.base import DatabaseState
from questdb_backup.source.base import EntryKind, PlannedGroup, Tree
from questdb_backup.source.path import CheckpointSource, LocalTree
from tests.support.live import WatchedDatabase, watched
from tests.support.planned import planned_groups
from tests.support.questdb_server import QuestDBServer


class Partition(NamedTuple):
    """One partition under a checkpoint: its signature, and a digest of all that a backup stores of it."""

    signature: str | None
    digest: str


Partitions = dict[tuple[str, str], Partition]
"""By the table's directory and the partition's key."""


def partitions_of(root: Path, version: str) -> Partitions:
    """Every partition that the checkpoint in the root refers to, its files read."""
    tree = LocalTree(root)
    return {
        (group.table, group.partition): Partition(group.signature, _digest(tree, group))
        for group in planned_groups(CheckpointSource(tree, server_version=version))
        if group.partition
    }


def _digest(tree: Tree, group: PlannedGroup) -> str:
    digest = blake3()
    for file in sorted(group.files, key=lambda file: file.path):
        digest.update(f"{file.path} {file.kind} {file.size}\n".encode())
        if file.kind is EntryKind.FILE:
            digest.update(tree.read(file.path, 0, file.size))
    return digest.hexdigest()


def lies(before: Partitions, after: Partitions) -> list[tuple[str, str]]:
    """Partitions whose signature is there before and after, with other bytes behind it."""
    return sorted(
        key
        for key in before.keys() & after.keys()
        if before[key].signature is not None
        and before[key].signature == after[key].signature
        and before[key].digest != after[key].digest
    )


PARTS = (
    "directory",
    "table id",
    "truncated",
    "start",
    "name",
    "size",
    "last word",
    "meta",
    "structure",
    "columns",
)
"""What a signature is made of, in order."""


def without(part: str, partitions: Partitions) -> Partitions:
    """The same partitions as if signatures lacked a part; ``squashes`` is the upper part of the size."""

    def cut(signature: str | None) -> str | None:
        if signature is None:
            return None
        values = dict(zip(PARTS, signature.rsplit("/", len(PARTS) - 1), strict=True))
        if part == "squashes":
            values["size"] = f"{int(values['size'], 16) & (1 << 44) - 1:x}"
        else:
            del values[part]
        return "/".join(values.values())

    return {key: Partition(cut(found.signature), found.digest) for key, found in partitions.items()}


def kept(before: Partitions, after: Partitions) -> list[tuple[str, str]]:
    """Partitions whose signature is there before and after."""
    return sorted(
        key
        for key in before.keys() & after.keys()
        if before[key].signature is not None and before[key].signature == after[key].signature
    )


def copy_under_checkpoint(root: Path, target: Path) -> Path:
    """What a volume's snapshot has of a root under a checkpoint, made ready for a recovery in place.

    Files that the checkpoint does not need may vanish meanwhile.
    """
    told = subprocess.run(["cp", "-a", str(root), str(target)], capture_output=True, text=True, check=False)
    lines = told.stderr.splitlines()
    assert all(line.endswith("No such file or directory") for line in lines), told.stderr
    shutil.rmtree(target / "backup", ignore_errors=True)
    (target / "_restore").touch()
    return target


class LateDatabase(WatchedDatabase):
    """A database that calls ``before`` at the last moment before CREATE: ahead of the second question."""

    _asked = 0

    def read(self) -> DatabaseState:
        self._asked += 1
        return super().read() if self._asked == 2 else self._inner.read()


def back_up_late(
    options: Options, *, before: Callable[[], None], after: Callable[[], None]
) -> dict[str, Any]:
    """One backup; ``before`` comes when everything is stored that is stored without a checkpoint."""
    place = Place(options, os.environ)
    services = watched(place)
    services.make_database = lambda: LateDatabase(place.services.database, before, after)
    return run_backup(place, {}, workflow_services=services)


def index_disagreements(server: QuestDBServer, table: str) -> list[tuple[Any, ...]]:
    """Symbols that a filter, which may use an index, counts otherwise than a scan of all rows."""
    columns = server.execute(f"select \"column\", type from table_columns('{table}')")
    wrong = []
    for column in [name for name, kind in columns if kind == "SYMBOL"]:
        scanned = server.execute(f'select v, count() from (select "{column}"::varchar v from "{table}")')
        for value, count in scanned[:20]:
            if value is None:
                continue
            ((found,),) = server.execute(f'select count() from "{table}" where "{column}" = %s', [value])
            if found != count:
                wrong.append((column, value, found, count))
    return wrong
