"""What the samples say: medians, ratios to each peer, and the targets that are met or missed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers import LEVEL, OURS
from benchmarks.run import OPERATIONS

_TEMPLATE = Path(__file__).with_name("performance.md.in")
MAX_RSS = 400_000_000


@dataclass(frozen=True, kw_only=True)
class Target:
    """One judged claim; ``measured`` is None where the peer is missing."""

    data_set: str
    claim: str
    measured: float | None
    limit: float
    at_least: bool

    @property
    def verdict(self) -> str:
        """PASS, MISS, or NOT MEASURED."""
        if self.measured is None:
            return "NOT MEASURED"
        met = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "PASS" if met else "MISS"


class Samples:
    """The samples of one data set, asked by tool and operation."""

    def __init__(self, samples: Sequence[dict[str, Any]]) -> None:
        self._samples = samples

    @property
    def tools(self) -> list[str]:
        """In the order of the first repetition."""
        return list(dict.fromkeys(sample["tool"] for sample in self._samples))

    def values(self, tool: str, operation: str, key: str) -> list[float]:
        """Of every repetition."""
        return [
            float(sample[key])
            for sample in self._samples
            if sample["tool"] == tool and sample["operation"] == operation and sample.get(key) is not None
        ]

    def median(self, tool: str, operation: str, key: str) -> float | None:
        """None where it was not measured."""
        values = self.values(tool, operation, key)
        return median(values) if values else None

    def peak(self, tool: str, key: str) -> float | None:
        """The highest of all operations and repetitions."""
        return max((value for op in OPERATIONS for value in self.values(tool, op, key)), default=None)

    def ratio(self, over: str, under: str, operation: str, key: str) -> float | None:
        """Of the medians of two tools."""
        top, bottom = self.median(over, operation, key), self.median(under, operation, key)
        return top / bottom if top is not None and bottom else None


def targets(result: dict[str, Any]) -> list[Target]:
    """Every target whose data set was run."""
    found: list[Target] = []
    for name, data_set in result["sets"].items():
        samples = Samples(data_set["samples"])
        judge = {"exchange": _exchange_targets, "entropy": _entropy_targets}[name]
        found += judge(samples, data_set["checks"])
        rss = samples.peak(OURS, "peak_rss")
        claim = f"peak memory of all processes, MB <= {MAX_RSS / 1e6:.0f}"
        measured = rss / 1e6 if rss is not None else None
        found.append(
            Target(data_set=name, claim=claim, measured=measured, limit=MAX_RSS / 1e6, at_least=False)
        )
    return found


def _exchange_targets(samples: Samples, _checks: dict[str, Any]) -> Iterator[Target]:
    for peer, operation, least in (
        ("restic", "full", 2.5),
        ("restic", "incremental", 2.0),
        ("restic", "no-change", 1.0),
        ("restic", "restore", 1.8),
        ("restic", "verify", 2.5),
        ("rustic", "full", 1.7),
    ):
        yield _faster(samples, "exchange", peer, operation, least)
    for operation, key, words, most in (
        ("full", "stored_bytes", "stored bytes", 0.65),
        ("incremental", "added_bytes", "added bytes", 0.8),
    ):
        yield Target(
            data_set="exchange",
            claim=f"{operation}: {words} <= {most} of restic's",
            measured=samples.ratio(OURS, "restic", operation, key),
            limit=most,
            at_least=False,
        )


def _entropy_targets(samples: Samples, checks: dict[str, Any]) -> Iterator[Target]:
    yield _faster(samples, "entropy", "restic", "full", 1.7)
    stored, plain = samples.median(OURS, "full", "stored_bytes"), checks.get("zstd_bytes")
    yield Target(
        data_set="entropy",
        claim=f"full: stored bytes <= 1.01 of zstd -{LEVEL} on each file",
        measured=stored / plain if stored and plain else None,
        limit=1.01,
        at_least=False,
    )


def _faster(samples: Samples, data_set: str, peer: str, operation: str, least: float) -> Target:
    return Target(
        data_set=data_set,
        claim=f"{operation}: >= {least} times as fast as {peer}"
        if least > 1
        else f"{operation}: no slower than {peer}",
        measured=samples.ratio(peer, OURS, operation, "wall_seconds"),
        limit=least,
        at_least=True,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    """A Markdown table whose columns line up; the first ``texts`` of them to the left."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if number < texts else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join((first, *rest)) + " |"

    marks = (
        "|"
        + "|".join("-" * (w + 2) if n < texts else "-" * (w + 1) + ":" for n, w in enumerate(widths))
        + "|"
    )
    return [line(header), marks, *map(line, rows)]


_COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("peak RSS MB", "peak_rss", 1e6, 0),
    ("stored MB", "stored_bytes", 1e6, 1),
    ("added MB", "added_bytes", 1e6, 1),
    ("objects", "objects", 1, 0),
)
"""Heading, key of a sample, unit, digits."""


def operation_table(samples: Samples, operation: str) -> list[str]:
    """One line for each tool: its times, also as a multiple of ours, and medians of the rest."""
    header = ("tool", "wall s min/med", "x ours", "CPU s", "x ours", *(column[0] for column in _COLUMNS))
    rows = []
    for tool in samples.tools:
        if not (walls := samples.values(tool, operation, "wall_seconds")):
            continue
        rows.append(
            (
                tool,
                f"{min(walls):.2f}/{median(walls):.2f}",
                _number(samples.ratio(tool, OURS, operation, "wall_seconds"), digits=2),
                _number(samples.median(tool, operation, "cpu_seconds"), digits=2),
                _number(samples.ratio(tool, OURS, operation, "cpu_seconds"), digits=2),
                *(
                    _number(samples.median(tool, operation, key), unit, digits)
                    for _, key, unit, digits in _COLUMNS
                ),
            )
        )
    return table(header, rows)


def render(result: dict[str, Any]) -> str:
    """All tables as Markdown."""
    lines = ["## Targets", ""]
    rows = [
        (
            goal.data_set,
            goal.claim,
            f"{goal.measured:.2f}" if goal.measured is not None else "-",
            goal.verdict,
        )
        for goal in targets(result)
    ]
    lines += table(("set", "target", "measured", "verdict"), rows, texts=2)
    for name, data_set in result["sets"].items():
        lines += ["", f'## Set "{name}": {data_set["title"]}', "", *_facts(data_set)]
        samples = Samples(data_set["samples"])
        for operation in OPERATIONS:
            lines += ["", f"### {operation.capitalize()}", "", *operation_table(samples, operation)]
    return "\n".join(lines) + "\n"


def render_document(result: dict[str, Any]) -> str:
    """The document: the template's introduction, the machine, the tables."""
    machine = "\n".join(f"- {key}: {value}" for key, value in result["machine"].items())
    tools = "\n".join(f"- {name}: {said}" for name, said in result["tools"].items())
    fields = {
        "@COMMAND@": result["command"],
        "@WHEN@": result["when"],
        "@REPEAT@": str(result["repeat"]),
        "@MACHINE@": f"{machine}\n{tools}",
        "@TABLES@": render(result).rstrip("\n"),
    }
    text = _TEMPLATE.read_text()
    for mark, value in fields.items():
        text = text.replace(mark, value)
    return text


def _facts(data_set: dict[str, Any]) -> Iterator[str]:
    first, second = data_set["facts"]["checkpoints"]
    link = data_set["facts"]["link"]
    checks = data_set["checks"]
    samples = Samples(data_set["samples"])
    rows = ", ".join(f"{values[0]:,} {table_name}" for table_name, values in first["tables"].items())
    yield f"- {first['files']:,} files, {first['bytes'] / 1e6:,.0f} MB on disk; rows: {rows}."
    yield (
        f"- The change: {link['changed']} files differ, {link['new']} are new, {link['unchanged']:,} are the"
        f" same; {second['bytes'] / 1e6:,.0f} MB afterwards."
    )
    yield (
        f"- CHECKPOINT CREATE took {first['create_seconds']:.2f} s and {second['create_seconds']:.2f} s,"
        f" RELEASE {first['release_seconds']:.2f} s and {second['release_seconds']:.2f} s;"
        " not part of what follows."
    )
    loads = [sample["load"] for sample in data_set["samples"]]
    yield f"- Load average at the start of the commands: {min(loads):.1f} to {max(loads):.1f}."
    if (read := samples.median(OURS, "full", "bytes_read")) is not None:
        yield (
            f"- Ours read {read / 1e6:,.0f} MB of the {first['bytes'] / 1e6:,.0f} MB: what the rows of the"
            " checkpoint need, without pages that are allocated ahead and without indexes."
        )
    if zstd := checks.get("zstd_bytes"):
        ours = samples.median(OURS, "full", "stored_bytes") or 0
        yield (
            f"- These very bytes ({checks['full_bytes'] / 1e6:,.0f} MB), file by file through"
            f" `zstd -{LEVEL}`: {zstd / 1e6:,.1f} MB; ours stored {ours / 1e6:,.1f} MB with all its metadata,"
            f" {ours / zstd:.3f} of it."
        )
    if server := checks.get("server"):
        yield (
            f"- A server of the same version started on the restored root in {server['start_seconds']:.1f} s;"
            f" counts and sums of its {server['tables']} tables ({server['rows']:,} rows) equal"
            " the checkpoint's."
        )


def _number(value: float | None, unit: float = 1, digits: int = 0) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"
