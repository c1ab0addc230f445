"""The benchmark's own arithmetic: what it judges by must be right."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.__main__ import machine
from benchmarks.datasets import DATA_SETS
from benchmarks.generate import link_equal
from benchmarks.measure import CommandFailedError, measure, stored
from benchmarks.peers import OURS
from benchmarks.run import OPERATIONS, WrongRestoreError, compare_prefixes, same_aggregates


def sample(tool: str, operation: str, wall: float, stored_bytes: int, repetition: int = 0) -> dict[str, Any]:
    return {
        "repetition": repetition,
        "tool": tool,
        "operation": operation,
        "wall_seconds": wall,
        "cpu_seconds": wall,
        "peak_rss": 100_000_000,
        "peak_pss": 90_000_000,
        "load": 0.5,
        "stored_bytes": stored_bytes,
        "added_bytes": stored_bytes // 10,
        "objects": 3,
    }


def result(**samples_by_set: list[dict[str, Any]]) -> dict[str, Any]:
    checkpoint = {
        "files": 5,
        "bytes": 1000,
        "create_seconds": 0.1,
        "release_seconds": 0.1,
        "tables": {"trades": [7, 1.0]},
    }
    return {
        "command": "make bench",
        "when": "2026-01-01",
        "repeat": 1,
        "machine": machine(),
        "tools": {OURS: "1"},
        "sets": {
            name: {
                "title": "numbers",
                "facts": {
                    "checkpoints": [checkpoint, checkpoint],
                    "link": {"unchanged": 3, "changed": 1, "new": 1},
                },
                "samples": samples,
                "checks": {"zstd_bytes": 100, "full_bytes": 400},
            }
            for name, samples in samples_by_set.items()
        },
    }


def test_a_target_is_judged_by_the_medians() -> None:
    walls = {OURS: (1.0, 1.0, 9.0), "restic": (2.6, 2.6, 0.1)}
    samples = [
        sample(tool, operation, wall, 60 if tool == OURS else 100, repetition)
        for tool, times in walls.items()
        for operation in OPERATIONS
        for repetition, wall in enumerate(times)
    ]
    goals = {goal.claim: goal for goal in report.targets(result(exchange=samples))}
    assert goals["full: >= 2.5 times as fast as restic"].measured == pytest.approx(2.6)
    assert goals["full: >= 2.5 times as fast as restic"].verdict == "PASS"
    assert goals["full: stored bytes <= 0.65 of restic's"].verdict == "PASS"
    assert goals["full: >= 1.7 times as fast as rustic"].verdict == "NOT MEASURED"


def test_a_target_that_is_just_missed_is_a_miss() -> None:
    samples = [sample(OURS, "full", 1.0, 102), sample("restic", "full", 1.69, 100)]
    goals = [goal for goal in report.targets(result(entropy=samples)) if goal.claim.startswith("full")]
    assert [goal.verdict for goal in goals] == ["MISS", "MISS"]


def test_the_document_has_every_operation_and_no_unfilled_mark() -> None:
    samples = [sample(tool, operation, 1.0, 50) for tool in (OURS, "restic") for operation in OPERATIONS]
    text = report.render_document(result(exchange=samples, entropy=samples))
    assert all(f"### {operation.capitalize()}" in text for operation in OPERATIONS)
    assert "@" not in text


def test_a_measured_command_counts_all_its_processes(tmp_path: Path) -> None:
    hold = "import subprocess, sys, time; held = bytearray(60_000_000);"
    child = f"{hold} time.sleep(1)"
    parent = f"{hold} subprocess.run([sys.executable, '-c', sys.argv[1]], check=True); print('done')"
    words = [sys.executable, "-c", parent, child]
    measured = measure(words, folder=tmp_path)
    assert measured.output == "done\n"
    assert measured.peak_rss > 110_000_000
    assert measured.cpu_seconds > 0


def test_the_time_of_a_process_that_outlives_the_command_counts(tmp_path: Path) -> None:
    child = (
        "import time; time.sleep(1.3); end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    )
    words = ["bash", "-c", 'setsid "$1" -c "$2" & sleep 1', "bash", sys.executable, child]
    measured = measure(words, folder=tmp_path)
    assert measured.cpu_seconds >= 0.3


def test_a_command_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="no space"):
        measure(["bash", "-c", "echo no space >&2; exit 3"], folder=tmp_path)


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_our_restore_may_be_shorter_but_not_different(tmp_path: Path) -> None:
    root = write(
        tmp_path / "root", {"db/t/a.d": b"abcd\0\0", "db/t/b.d": b"x", ".checkpoint/db/t/_txn": b"1"}
    )
    restored = write(tmp_path / "new", {"db/t/a.d": b"abcd", ".checkpoint/db/t/_txn": b"1", "_restore": b""})
    assert compare_prefixes(root, restored) == (2, 5)
    for wrong in (b"abcX", b"abcd\0\0\0"):
        (restored / "db/t/a.d").write_bytes(wrong)
        with pytest.raises(WrongRestoreError, match=r"a\.d"):
            compare_prefixes(root, restored)


def test_a_restored_file_that_never_was_is_wrong(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"db/a": b"1"})
    with pytest.raises(WrongRestoreError, match="other"):
        compare_prefixes(root, write(tmp_path / "new", {"db/other": b"1"}))


def test_equal_files_become_links_and_count_once(tmp_path: Path) -> None:
    old = write(tmp_path / "0", {"same": b"12", "changed": b"34", "gone": b""})
    new = write(tmp_path / "1", {"same": b"12", "changed": b"35", "new": b"6"})
    assert link_equal(old, new) == {"unchanged": 1, "changed": 1, "new": 1}
    assert (old / "same").stat().st_ino == (new / "same").stat().st_ino
    assert (new / "changed").read_bytes() == b"35"
    assert stored(old, new) == (7, 5)


def test_sums_of_doubles_may_differ_in_their_last_digits_only() -> None:
    wanted = {"trades": [7, 1.0, "2026-01-01"]}
    assert same_aggregates(wanted, {"trades": [7, 1.0 + 1e-12, "2026-01-01"]})
    assert not same_aggregates(wanted, {"trades": [7, 1.0001, "2026-01-01"]})
    assert not same_aggregates(wanted, {"trades": [8, 1.0, "2026-01-01"]})
    assert not same_aggregates(wanted, {})


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_small_set_changes_after_it_was_loaded(name: str) -> None:
    data = DATA_SETS[name](0.02)
    for table in data.aggregates:
        assert any(f" {table} " in statement for statement in data.load())
    assert any(statement.startswith("update") for statement in data.change())
