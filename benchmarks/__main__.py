"""The benchmark's command, on Linux: ``python -m benchmarks``, or ``make bench``."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.datasets import DATA_SETS
from benchmarks.generate import CACHE, StaleRootError, frozen_roots
from benchmarks.install import MissingToolError
from benchmarks.measure import CommandFailedError
from benchmarks.peers import OURS, TOOLS, QuestDBBackup, Tool
from benchmarks.report import render, render_document
from benchmarks.run import Comparison, WrongRestoreError
from tests.support.questdb_server import ServerStartError

_T = TypeVar("_T")
_PROJECT = Path(__file__).resolve().parents[1]
_DOCUMENT = _PROJECT / "docs" / "PERFORMANCE.md"
_RESULT = _PROJECT / "benchmarks" / "results" / "scale-1.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Give the exit code: 0 measured, whatever the targets say; 1 failed."""
    options = _parser().parse_args(arguments)
    if options.report:
        return _report(Path(options.report), options)
    try:
        return _run(options)
    except (
        CommandFailedError,
        MissingToolError,
        ServerStartError,
        StaleRootError,
        WrongRestoreError,
    ) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.ours:
        QuestDBBackup.executable = str(Path(options.ours).resolve())
    kinds, versions = _available(_chosen(options.tools, TOOLS))
    if not kinds:
        raise MissingToolError("none of the chosen tools is on this machine")
    sets = _chosen(options.sets, DATA_SETS)
    if options.generate:
        for name in sets:
            print(*frozen_roots(name, options.scale).roots)
        return 0
    result: dict[str, Any] = {
        "command": _command(options),
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "scale": options.scale,
        "repeat": options.repeat,
        "machine": machine(),
        "tools": versions,
        "sets": {},
    }
    path = _result_path(options.scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in sets:
        print(f"\n== {name}, scale {options.scale:g}", flush=True)
        frozen = frozen_roots(name, options.scale)
        result["machine"]["QuestDB"] = frozen.facts["server_version"]
        result["sets"][name] = Comparison(frozen, kinds, options.repeat).run()
        path.write_text(json.dumps(result, indent=1) + "\n")
    return _report(path, options)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="1.0: about 4 GB and 1.3 GB of data")
    parser.add_argument("--repeat", type=_positive, default=3, help="repetitions of each operation")
    parser.add_argument("--sets", default=",".join(DATA_SETS), help="data sets, by commas")
    parser.add_argument("--tools", default=",".join(TOOLS), help="tools, by commas")
    parser.add_argument("--ours", help="another questdb-backup than the one in .venv")
    parser.add_argument(
        "--generate", action="store_true", help="only make the frozen roots, print their paths"
    )
    parser.add_argument("--report", metavar="JSON", help="only write the report of an earlier result")
    parser.add_argument(
        "--document", help="write the document here (at scale 1 with all: docs/PERFORMANCE.md)"
    )
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _chosen(names: str, known: dict[str, _T]) -> dict[str, _T]:
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in names.split(",")}


def _available(kinds: dict[str, type[Tool]]) -> tuple[list[type[Tool]], dict[str, str]]:
    """The tools that are here, and what each says of itself; a missing peer is one loud skip."""
    found: list[type[Tool]] = []
    versions: dict[str, str] = {}
    for name, kind in kinds.items():
        try:
            versions[name] = kind.version()
        except MissingToolError as error:
            if name == OURS:
                raise
            versions[name] = f"not measured ({error})"
            print(f"*** SKIPPED: {name} was not measured: {error} ***", file=sys.stderr)
        else:
            found.append(kind)
    return found, versions


def _command(options: argparse.Namespace) -> str:
    words = [f"make bench SCALE={options.scale:g} REPEAT={options.repeat}"]
    if options.sets != ",".join(DATA_SETS):
        words.append(f"SETS={options.sets}")
    if options.tools != ",".join(TOOLS):
        words.append(f"TOOLS={options.tools}")
    if options.ours:
        words.append(f"OURS={options.ours}")
    return " ".join(words)


def _result_path(scale: float) -> Path:
    if scale >= 1:
        return _RESULT
    return CACHE / "results" / f"scale-{scale:g}.json"


def _report(path: Path, options: argparse.Namespace) -> int:
    result = json.loads(path.read_text())
    whole = result["scale"] >= 1 and len(result["sets"]) == len(DATA_SETS)
    document = Path(options.document) if options.document else _DOCUMENT if whole else None
    if document is not None:
        document.write_text(render_document(result))
    print(f"\n{render(result)}\nresult: {path}")
    print(f"document: {document or 'docs/PERFORMANCE.md is written at scale 1 with all sets only'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
