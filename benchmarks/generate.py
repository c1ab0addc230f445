"""Make the frozen roots of a data set with a real QuestDB: two checkpoints, a day's change between them."""

import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datasets import DATA_SETS, DataSet
from tests.support.questdb_server import DEFAULT_VERSION, QuestDBServer

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "bench"
_MARKER = "facts.json"
INSTANCE = "gentle-forest-orchid"
"""The roots bear a name, as after an earlier backup: else our first one would write it into them."""
_RECIPE = 1
"""Of what is made; roots of another recipe are made anew."""
_COMPARE_BYTES = 1 << 20
_SERVER = {"QDB_CAIRO_WAL_PURGE_INTERVAL": "1000", "QDB_CAIRO_IDLE_CHECK_INTERVAL": "1000"}
"""Applied WAL is purged soon, so that the roots do not hold segments that a longer running server lost."""


class StaleRootError(RuntimeError):
    """A cached root is not as it was made; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Two copies of a root, each taken under a checkpoint.

    Attributes:
        name: of the data set.
        scale: of the data set.
        roots: ``frozen0``, and ``frozen1`` after the change, whose unchanged files are links to the first's.
        facts: times of the checkpoints in seconds, sizes in bytes, and the tables' aggregates at each.
    """

    name: str
    scale: float
    roots: tuple[Path, Path]
    facts: dict[str, Any]


def frozen_roots(name: str, scale: float) -> Frozen:
    """The roots of a data set; from the cache where they are there.

    Raises:
        StaleRootError: Something was written into a cached root since it was made.
    """
    folder = CACHE / f"{name}-{scale:g}"
    marker = folder / _MARKER
    facts = json.loads(marker.read_text()) if marker.is_file() else {}
    if facts.get("recipe") != _RECIPE:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        facts = _generate(DATA_SETS[name](scale), folder)
        marker.write_text(json.dumps(facts, indent=1, default=str))
        facts = json.loads(marker.read_text())
    roots = folder / "frozen0", folder / "frozen1"
    for root, made in zip(roots, facts["checkpoints"], strict=True):
        if size_of(root) != {"files": made["files"], "bytes": made["bytes"]}:
            raise StaleRootError(f"{root} was changed since it was made: remove {folder} and run again")
    return Frozen(name=name, scale=scale, roots=roots, facts=facts)


def size_of(root: Path) -> dict[str, int]:
    """How many files a root has, and their bytes."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def aggregates(server: QuestDBServer, data: type[DataSet]) -> dict[str, list[Any]]:
    """Count and sums of every table, as they come back from JSON."""
    found = {
        table: list(server.execute(f"select count(), {', '.join(columns)} from {table}")[0])
        for table, columns in data.aggregates.items()
    }
    back: dict[str, list[Any]] = json.loads(json.dumps(found, default=str))
    return back


def _generate(data: DataSet, folder: Path) -> dict[str, Any]:
    live = folder / "live"
    started = time.perf_counter()
    facts: dict[str, Any] = {"recipe": _RECIPE, "server_version": DEFAULT_VERSION, "checkpoints": []}
    with QuestDBServer(live, env=_SERVER) as server:
        _run(server, data.load())
    with QuestDBServer(live, env=_SERVER) as server:
        _wait_purged(server)
        _run(server, data.settle())
        facts["checkpoints"].append(_freeze(server, data, folder / "frozen0"))
        _run(server, data.change())
        facts["checkpoints"].append(_freeze(server, data, folder / "frozen1"))
    shutil.rmtree(live)
    roots = folder / "frozen0", folder / "frozen1"
    for root, checkpoint in zip(roots, facts["checkpoints"], strict=True):
        (root / "db" / ".backup_instance_name").write_text(INSTANCE + "\n")
        checkpoint |= size_of(root)
    facts["link"] = link_equal(*roots)
    facts["generated_seconds"] = round(time.perf_counter() - started, 1)
    return facts


def _run(server: QuestDBServer, statements: Iterable[str]) -> None:
    for statement in statements:
        started = time.perf_counter()
        server.execute(statement)
        server.wait_applied(600)
        print(f"  {time.perf_counter() - started:6.1f} s  {statement[:90]}", flush=True)


def _wait_purged(server: QuestDBServer, timeout: float = 60.0) -> None:
    """Return when the applied WAL's segments are gone."""
    deadline = time.monotonic() + timeout
    while segments := list(server.root.glob("db/*/wal[0-9]*/[0-9]*/*.d")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(segments)} files of applied WAL are left after {timeout} s")
        time.sleep(0.2)


def _freeze(server: QuestDBServer, data: DataSet, frozen: Path) -> dict[str, Any]:
    """Copy the root under a checkpoint; give times and what the tables held."""
    held = aggregates(server, type(data))
    started = time.perf_counter()
    server.execute("checkpoint create")
    created = time.perf_counter()
    shutil.copytree(server.root, frozen, symlinks=True)
    copied = time.perf_counter()
    server.execute("checkpoint release")
    released = time.perf_counter()
    return {
        "create_seconds": round(created - started, 3),
        "copy_seconds": round(copied - created, 3),
        "release_seconds": round(released - copied, 3),
        "tables": held,
    }


def link_equal(old: Path, new: Path) -> dict[str, int]:
    """Replace each file of ``new`` that equals the one of ``old`` in bytes by a hard link to that.

    On a live server an unchanged file keeps its inode and times, which other tools go by.

    Returns:
        How many files were linked, changed and new.
    """
    counts = {"unchanged": 0, "changed": 0, "new": 0}
    for path in sorted(new.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        other = old / path.relative_to(new)
        if not other.is_file():
            counts["new"] += 1
        elif not same_bytes(path, other):
            counts["changed"] += 1
        else:
            counts["unchanged"] += 1
            temporary = path.with_name(path.name + ".link")
            os.link(other, temporary)
            temporary.replace(path)
    _copy_folder_times(old, new)
    return counts


def _copy_folder_times(old: Path, new: Path) -> None:
    """Links change a folder's times; a folder whose entries are the same gets back the old ones."""
    for folder in sorted((path for path in new.rglob("*") if path.is_dir()), reverse=True):
        before = old / folder.relative_to(new)
        if before.is_dir() and _names(before) == _names(folder):
            shutil.copystat(before, folder)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def same_bytes(left: Path, right: Path, length: int | None = None) -> bool:
    """Whether two files are equal; with ``length``, in their first so many bytes, which both must have."""
    sizes = left.stat().st_size, right.stat().st_size
    if (sizes[0] != sizes[1]) if length is None else min(sizes) < length:
        return False
    remaining = sizes[0] if length is None else length
    with left.open("rb", buffering=0) as one, right.open("rb", buffering=0) as other:
        while remaining > 0:
            size = min(remaining, _COMPARE_BYTES)
            if one.read(size) != other.read(size):
                return False
            remaining -= size
    return True
