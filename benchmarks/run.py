"""Run the tools against each other on the frozen roots, interleaved, and check what they restored."""

import json
import math
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.datasets import DATA_SETS
from benchmarks.generate import CACHE, Frozen, aggregates, same_bytes
from benchmarks.measure import CommandFailedError, Measured, measure, remove, stored, warm
from benchmarks.peers import LEVEL, OURS, Command, QuestDBBackup, Tool, bytes_read
from tests.support.questdb_server import QuestDBServer

OPERATIONS = ("full", "no-change", "incremental", "restore", "verify")
_BACKUPS = OPERATIONS[:3]
_ROOMS = 6
"""How many times the size of a root may lie on the disk at once: repositories and one restore."""
_SUM_TOLERANCE = 1e-6  # a FLOAT column sums up in 24 bits, in whatever order threads come to it
"""Sums of doubles depend on the order of their threads."""


class WrongRestoreError(RuntimeError):
    """What a tool restored is not what it was given."""


class Comparison:
    """One data set, all tools; gathers the result's JSON."""

    def __init__(self, frozen: Frozen, tools: Sequence[type[Tool]], repeat: int) -> None:
        self.frozen = frozen
        self.tools = tools
        self.repeat = repeat
        self.folder = CACHE / "runs" / f"{frozen.name}-{frozen.scale:g}"
        self.samples: list[dict[str, Any]] = []
        self.checks: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Every repetition, each with new repositories and another tool first."""
        _need_room(self.frozen)
        for repetition in range(self.repeat):
            turn = repetition % len(self.tools)
            remove(self.folder)
            try:
                self._repetition(repetition, [*self.tools[turn:], *self.tools[:turn]])
            finally:
                remove(self.folder)
        return {
            "title": DATA_SETS[self.frozen.name].title,
            "facts": self.frozen.facts,
            "samples": self.samples,
            "checks": self.checks,
        }

    def _repetition(self, repetition: int, kinds: Sequence[type[Tool]]) -> None:
        version = self.frozen.facts["server_version"]
        tools = [kind(self.folder / kind.name, version) for kind in kinds]
        for tool in tools:
            tool.prepare()
        timestamps: dict[str, str] = {}
        for operation in OPERATIONS:
            root = self.frozen.roots[operation not in ("full", "no-change")]
            if operation in _BACKUPS:
                warm(root)
            for tool in tools:
                measured = self._measure(repetition, operation, tool, root)
                if operation == "full" and tool.name == OURS:
                    timestamps[OURS] = json.loads(measured.output)["backup_timestamp"]
        for tool in tools:
            if repetition == 0 and isinstance(tool, QuestDBBackup):
                self._compare_with_zstd(tool, timestamps[OURS])

    def _measure(self, repetition: int, operation: str, tool: Tool, root: Path) -> Measured:
        target = tool.folder / "restored"
        command = self._command(operation, tool, root, target)
        before, _ = tool.stored()
        measured = _measure_command(command, tool.folder)
        after, objects = tool.stored()
        sample: dict[str, Any] = {
            "repetition": repetition,
            "tool": tool.name,
            "operation": operation,
            "wall_seconds": round(measured.wall_seconds, 3),
            "cpu_seconds": round(measured.cpu_seconds, 3),
            "peak_rss": measured.peak_rss,
            "peak_pss": measured.peak_pss,
            "load": round(measured.load, 2),
            "stored_bytes": after,
            "added_bytes": after - before,
            "objects": objects,
        }
        if operation in _BACKUPS and tool.name == OURS:
            sample["bytes_read"] = bytes_read(measured.output)
        self.samples.append(sample)
        print(
            f"  {self.frozen.name} {repetition + 1}/{self.repeat} {operation:<12} {tool.name:<15}"
            f" {measured.wall_seconds:7.2f} s  {measured.cpu_seconds:7.2f} s cpu"
            f"  {measured.peak_rss / 1e6:6.0f} MB",
            flush=True,
        )
        if operation == "restore":
            self._check_restored(tool, target, root)
            remove(target)
        return measured

    @staticmethod
    def _command(operation: str, tool: Tool, root: Path, target: Path) -> Command:
        if operation in _BACKUPS:
            return tool.backup(root)
        return tool.restore(target) if operation == "restore" else tool.verify(root)

    def _check_restored(self, tool: Tool, target: Path, root: Path) -> None:
        """Raise WrongRestoreError where the target is not the root; ours also starts a server, once."""
        if not isinstance(tool, QuestDBBackup):
            differences = subprocess.run(
                ["diff", "-rq", "--no-dereference", str(root), str(target)],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            if differences:
                raise WrongRestoreError(f"{tool.name}: {differences[:2000]}")
            return
        self.checks["restored_files"], self.checks["restored_bytes"] = compare_prefixes(root, target)
        if "server" not in self.checks:
            self.checks["server"] = self._check_server(target)

    def _check_server(self, target: Path) -> dict[str, Any]:
        started = time.perf_counter()
        wanted = self.frozen.facts["checkpoints"][1]["tables"]
        with QuestDBServer(target, version=self.frozen.facts["server_version"]) as server:
            ready = time.perf_counter() - started
            found = aggregates(server, DATA_SETS[self.frozen.name])
        if not same_aggregates(wanted, found):
            raise WrongRestoreError(f"the restored server holds {found}, at the checkpoint it was {wanted}")
        rows = sum(int(values[0]) for values in wanted.values())
        print(f"  {self.frozen.name}: the restored server's {rows:,} rows and sums equal the checkpoint's")
        return {"tables": len(wanted), "rows": rows, "start_seconds": round(ready, 2)}

    def _compare_with_zstd(self, tool: QuestDBBackup, timestamp: str) -> None:
        """The bytes that our full backup holds, each file of them through the zstd program at our level."""
        target = tool.folder / "restored"
        _measure_command(tool.restore_at(target, timestamp), tool.folder)
        compare_prefixes(self.frozen.roots[0], target)
        self.checks["full_bytes"], self.checks["full_files"] = stored(target)
        self.checks["zstd_bytes"] = zstd_bytes(target)
        remove(target)


def _measure_command(command: Command, folder: Path) -> Measured:
    return measure(command.words, folder=folder, environment=command.environment, cwd=command.cwd)


def zstd_bytes(folder: Path) -> int:
    """The sum of the sizes of every file under ``folder``, each compressed by itself."""
    script = f'find "$1" -type f -print0 | xargs -0 zstd -{LEVEL} -q -c --no-progress | wc -c'
    words = ["bash", "-o", "pipefail", "-c", script, "bash", str(folder)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


_MADE_BY_RESTORE = frozenset({"_restore", "conf/server.conf"})
"""The trigger of the recovery, and a setting that asks it to rebuild the indexes, which are not stored."""
_RECOVERED = ".checkpoint"


def compare_prefixes(root: Path, restored: Path) -> tuple[int, int]:
    """See that each restored file equals the beginning of the root's file.

    Only the bytes that the checkpoint's rows need are stored: a restored file may be shorter than the
    server's, whose last pages are allocated ahead.

    Returns:
        How many files and bytes were compared.

    Raises:
        WrongRestoreError: Something differs, or is not in the root.
    """
    files = size = 0
    for path in sorted(restored.rglob("*")):
        name = path.relative_to(restored)
        if not path.is_file() or str(name) in _MADE_BY_RESTORE:
            continue
        length = path.stat().st_size
        if not (root / name).is_file() or not same_bytes(path, root / name, length):
            raise WrongRestoreError(f"{OURS}: {name} is not the beginning of the root's file")
        files, size = files + 1, size + length
    if not (restored / _RECOVERED).is_dir():
        raise WrongRestoreError(f"{OURS}: {_RECOVERED} was not restored")
    return files, size


def same_aggregates(wanted: dict[str, list[Any]], found: dict[str, list[Any]]) -> bool:
    """Whether counts and sums agree; sums of floats to six digits."""

    def same(left: Any, right: Any) -> bool:
        if isinstance(left, float) and isinstance(right, float):
            return math.isclose(left, right, rel_tol=_SUM_TOLERANCE, abs_tol=_SUM_TOLERANCE)
        return bool(left == right)

    return wanted.keys() == found.keys() and all(
        len(values) == len(found[table]) and all(map(same, values, found[table]))
        for table, values in wanted.items()
    )


def _need_room(frozen: Frozen) -> None:
    needed = _ROOMS * frozen.facts["checkpoints"][1]["bytes"]
    free = shutil.disk_usage(CACHE).free
    if free < needed:
        raise CommandFailedError(f"{needed / 1e9:.0f} GB are needed below {CACHE}, {free / 1e9:.0f} are free")
