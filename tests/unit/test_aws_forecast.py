"""The plan of a deployed stack: its last backup's counters, or what its volumes allow."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from questdb_backup.aws_forecast import StackForecast, forecast_stack
from questdb_backup.aws_stack import Stack
from questdb_backup.cli.main import main
from questdb_backup.ebs.base import AttachedVolume
from questdb_backup.ebs.cost import estimated_dollars
from questdb_backup.errors import SnapshotError
from tests.support.aws_endpoint import AwsEndpoint, running_execution

NOW = datetime(2026, 1, 9, tzinfo=UTC)
GIB = 1 << 30
COUNTED = {
    "bytes": 9000,
    "bytes_read": 2048,
    "bytes_stored": 1024,
    "blocks": 7,
    "list_requests": 3,
    "get_requests": 8,
    "put_requests": 21,
    "lambda_milliseconds": 4500,
    "estimated_dollars": 0.0123,
}


def row(day: int, status: str = "backup complete") -> dict[str, Any]:
    timestamp = f"2026-01-0{day}T00:00:00.000000Z"
    return {
        "backup_timestamp": timestamp,
        "backup_instance_name": "gentle-forest-orchid",
        "status": status,
        "start_ts": timestamp,
    }


def result(day: int) -> dict[str, Any]:
    """The answer to DescribeExecution of a backup that day."""
    return {"status": "SUCCEEDED", "output": json.dumps({**row(day), **COUNTED})}


@pytest.fixture(autouse=True)
def _usual_chain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("AWS_", "QDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsEndpoint]:
    with AwsEndpoint() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        running.parameters["CleanupKeepLatestN"] = "2"
        yield running


def no_volumes() -> Sequence[AttachedVolume]:
    raise SnapshotError("describing i-1: not authorized", "give the right to it")


def two_volumes() -> Sequence[AttachedVolume]:
    return tuple(
        AttachedVolume(volume_id=f"vol-{size}", device=f"/dev/sd{size}", size=size * GIB, is_root=False)
        for size in (100, 28)
    )


def forecast(find_volumes: Any = no_volumes) -> StackForecast:
    with closing(Stack("prod")) as stack:
        return forecast_stack(stack, NOW, find_volumes)


def test_the_next_backup_is_foretold_by_the_last_one(aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda _: [row(1), row(2), row(3, "backup failed")]
    aws.succeeded = [running_execution("a", 1.0), running_execution("b", 2.0)]
    aws.executions.append(result(2))
    found = forecast()

    assert (found.basis, found.previous, found.warnings) == ("last backup", row(2)["backup_timestamp"], ())
    assert found.counters == COUNTED
    assert [sent["executionArn"][-1] for sent in aws.named("DescribeExecution")] == ["b"]
    value = found.to_json()
    assert (value["bytes_to_read"], value["put_requests_estimate"]) == (2048, 21)
    assert (value["estimated_dollars"], value["lambda_milliseconds"]) == (0.0123, 4500)
    assert [gone["backup_timestamp"] for gone in value["retention"]["remove"]] == [row(1)["backup_timestamp"]]


def test_a_tick_that_was_served_before_is_no_backup(aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda _: [row(1), row(2)]
    aws.succeeded = [running_execution("a", 1.0), running_execution("b", 2.0)]
    served = {"status": "SUCCEEDED", "output": json.dumps({"Error": "ScheduleServedError", "Cause": "{}"})}
    aws.executions.extend([served, result(2)])

    assert forecast().counters["bytes"] == 9000


def test_counters_of_an_older_backup_are_told_as_such(aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda _: [row(1), row(2)]
    aws.succeeded = [running_execution("a", 1.0)]
    aws.executions.append(result(1))

    assert forecast().warnings == (f"the counters are those of {row(1)['backup_timestamp']}",)


def test_a_history_that_is_forgotten_leaves_the_rows(aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda _: [row(1), row(2)]
    found = forecast()

    assert (found.basis, found.counters["bytes"]) == ("nothing", None)
    assert found.previous == row(2)["backup_timestamp"]
    assert "has forgotten" in found.warnings[0]


def test_after_the_first_backup_alone_the_next_one_reads_less(aws: AwsEndpoint) -> None:
    aws.functions["list"] = lambda _: [row(1), row(2, "backup in progress")]
    aws.succeeded = [running_execution("a", 1.0)]
    aws.executions.append(result(1))
    first, running = forecast().warnings

    assert "may have been the first" in first
    assert "a backup is running" in running


def test_the_first_backup_is_bounded_by_the_size_of_the_volumes(aws: AwsEndpoint) -> None:
    found = forecast(two_volumes)
    counters = found.counters

    assert (found.basis, found.previous, found.instance) == ("volumes", None, None)
    assert counters["get_requests"] == counters["blocks"] == 128 * 2048
    assert counters["bytes_read"] == 128 * GIB
    assert counters["put_requests"] == 128 * 32 + 3 * 256
    known = {name: value for name, value in counters.items() if value is not None}
    assert counters["estimated_dollars"] == estimated_dollars(known, 256)
    assert 0.78 < (counters["estimated_dollars"] or 0) < 1
    assert aws.named("ListExecutions") == []


def test_without_the_right_to_see_the_volumes_nothing_is_told_of_the_cost(aws: AwsEndpoint) -> None:
    found = forecast()

    assert (found.basis, set(found.counters.values())) == ("nothing", {None})
    assert "not authorized" in found.warnings[0]


def test_the_command_tells_it_in_words_and_as_json(
    aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.functions["list"] = lambda _: [row(1), row(2)]
    aws.succeeded = [running_execution("a", 1.0)]
    aws.executions.append(result(2))

    assert main(["plan", "--stack", "prod"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "to read   as the last backup 2.0 KiB",
        "to store  as the last backup 1.0 KiB",
        "requests  as the last backup 3 List, 8 Get, 21 PUT",
        "functions as the last backup 4 s",
        "cost      as the last backup $0.0123 at list prices, without what is stored",
        f"previous  {row(2)['backup_timestamp']}",
        f"removes   {row(1)['backup_timestamp']}  older than the latest 2 complete backups",
    ]
    assert main(["plan", "--stack", "prod", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["basis"] == "last backup"


def test_the_command_of_a_stack_whose_instance_cannot_be_described_still_ends_well(
    aws: AwsEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--stack", "prod"]) == 0
    told = capsys.readouterr()
    assert told.out == "previous  none\n"
    assert "the size of the volumes is not known" in told.err
