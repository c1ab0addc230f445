"""The files of the server root that belong to no table.

In: what of ``.checkpoint`` is no table's, ``conf/``, and of ``db/`` the small files of the database as a
whole (``_tab_index.d``, ``_upgrade.d``, ``.data_id``, ``_preferences~store``, and what else starts with
``_`` or ``.``). Out: ``db/tables.d.*`` (the checkpoint has its own), locks of tables, what this product
keeps itself (``db/.backup_instance_name``, ``backup/``), and ``import/``, ``export/``, ``log/``,
``public/``, ``tmp/`` and ``snapshot/``: ``import/`` and ``export/`` hold the users' files on their way in
and out, the others the server makes anew. A symlink in ``conf/`` that leads out of the root is left out.
"""

from collections.abc import Iterator

from questdb_backup.source.base import EntryKind, GroupOutline, PlannedFile, Tree
from questdb_backup.source.listing import (
    CHECKPOINT,
    DB,
    directory,
    find,
    list_needed,
    live_file,
    needed_file,
    walk,
)

_CONF = "conf"
_OURS = ".backup_instance_name"


def root_outline(tree: Tree, *, live: bool = False) -> GroupOutline:
    """The root's group; ``db/_tab_index.d`` is live and its ids only grow, so it is the last file.

    ``live``: there is no checkpoint to list.
    """

    def files() -> Iterator[PlannedFile]:
        if not live:
            yield from _checkpoint_files(tree)
        yield from _conf_files(tree)
        yield from _database_files(tree)

    return GroupOutline(table="", partition="", signature=None, list_files=files)


def _checkpoint_files(tree: Tree) -> Iterator[PlannedFile]:
    folder, _, _ = CHECKPOINT.partition("/")
    for parent in (folder, CHECKPOINT):
        yield directory(tree, parent)
        for entry in list_needed(tree, parent):
            if entry.kind is EntryKind.FILE:
                path = f"{parent}/{entry.name}"
                yield needed_file(path, entry, entry.size)


def _conf_files(tree: Tree) -> Iterator[PlannedFile]:
    if find(tree, _CONF) is not None:
        yield from walk(tree, _CONF)


def _database_files(tree: Tree) -> Iterator[PlannedFile]:
    yield directory(tree, DB)
    entries = [
        entry
        for entry in list_needed(tree, DB)
        if entry.kind is EntryKind.FILE and entry.name[0] in "_." and entry.name != _OURS
    ]
    for entry in sorted(entries, key=lambda found: found.name == "_tab_index.d"):
        if not entry.name.endswith(".lock"):
            yield live_file(f"{DB}/{entry.name}", entry)
