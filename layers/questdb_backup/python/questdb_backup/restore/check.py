"""The last look before placing: every file of the backup is staged, with its size, and no other."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

from questdb_backup.errors import DamagedBackupError, RestoreFailedError
from questdb_backup.manifest import Entry, ShardRef
from questdb_backup.restore.contents import is_restored, read_entries
from questdb_backup.restore.files import SafeTree, count_files
from questdb_backup.restore.staging import TREE, Staging
from questdb_backup.restore.threads import shared_threads
from questdb_backup.stores.base import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found."""

    files: int
    bytes: int


def check_tree(store: ObjectStore, staging: Staging, shards: Iterable[ShardRef]) -> Checked:
    """Compare the tree with every shard, and set the modes; a few shards in memory.

    The bytes are not looked at again: what a unit wrote it had verified. Raise RestoreFailedError for a
    file that is missing or has another size, DamagedBackupError where the backup names a path twice.
    """
    files = size = 0
    with shared_threads() as threads:
        for done in threads.ahead(lambda shard: _check_shard(store, staging, shard), shards):
            files, size = files + done.files, size + done.bytes
    found = count_files(TREE, staging.descriptor)
    if found != files:
        raise DamagedBackupError(
            f"the backup has {files} files, but only {found} paths: it names a path twice"
            if found < files
            else f"{staging.path}/{TREE} has {found} files, the backup {files}",
            "remove the staging directory and start again, or take another backup",
        )
    return Checked(files=files, bytes=size)


def _check_shard(store: ObjectStore, staging: Staging, shard: ShardRef) -> Checked:
    files = size = 0
    with staging.tree() as tree:
        for entry in read_entries(store, shard):
            if not is_restored(entry.path):
                continue
            _check_entry(tree, entry)
            if entry.kind == "f":
                files, size = files + 1, size + entry.size
    return Checked(files=files, bytes=size)


def _check_entry(tree: SafeTree, entry: Entry) -> None:
    info = tree.stat(entry.path)
    is_kind = stat.S_ISDIR if entry.kind == "d" else stat.S_ISREG
    if info is None or not is_kind(info.st_mode):
        raise RestoreFailedError(f"'{entry.path}' is missing from the staging directory", _HINT)
    if entry.kind == "f" and info.st_size != entry.size:
        raise RestoreFailedError(
            f"'{entry.path}' has {info.st_size} bytes in the staging directory, the backup {entry.size}",
            _HINT,
        )
    # The owner has to get into every directory: to rename it, and to run a server on it.
    mode = entry.mode | (0o700 if entry.kind == "d" else 0)
    if stat.S_IMODE(info.st_mode) != mode:
        tree.set_mode(entry.path, mode)


_HINT = "remove the staging directory and start the restore again"
