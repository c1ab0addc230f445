"""The composition root on AWS: what a function has by its environment, how it logs, what it imports."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from questdb_backup import aws_workflow, handler
from questdb_backup.bootstrap_aws import services_from_environment, set_log_keys
from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.errors import BackupToolError, ConfigurationError, DatabaseUnavailableError
from questdb_backup.handler import lambda_handler
from questdb_backup.services import Services

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))
IMPORTED_LATE = ("aws_lambda_powertools", "boto3", "botocore", "croniter", "psycopg", "rich")
RUN = {"instance": "gentle-forest-orchid", "backup_timestamp": "2024-08-24T12:34:56.789123Z", "token": 7}


@pytest.fixture(autouse=True)
def logger_as_it_was() -> Iterator[logging.Logger]:
    package = logging.getLogger("questdb_backup")
    before = (list(package.handlers), package.level, package.propagate)
    yield package
    package.handlers, package.level, package.propagate = before


@pytest.mark.parametrize(("level", "seen"), [("DEBUG", 3), ("INFO", 2), ("warning", 1), ("ERROR", 0)])
def test_the_log_has_the_level_of_the_template(
    level: str, seen: int, logger_as_it_was: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    services_from_environment({"POWERTOOLS_LOG_LEVEL": level, "POWERTOOLS_SERVICE_NAME": "questdb-backup"})
    for number in (logging.DEBUG, logging.INFO, logging.WARNING):
        logger_as_it_was.log(number, "said at %d", number)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == seen
    assert {line["service"] for line in lines} <= {"questdb-backup"}


def test_the_keys_of_one_event_are_gone_at_the_next(
    logger_as_it_was: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    services_from_environment({})
    set_log_keys({"run": "one", "instance": "i"})
    logger_as_it_was.warning("first")
    set_log_keys({"run": None, "instance": "i"})
    logger_as_it_was.warning("second")
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["run"] == "one"
    assert "run" not in second
    assert second["instance"] == "i"


def test_every_line_of_a_handler_names_the_run_and_its_error_is_one_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    services = services_from_environment({})
    monkeypatch.setattr(handler, "_services_of_process", lambda: services)

    def step(_event: dict[str, Any], _services: Services) -> None:
        raise ConfigurationError("a fact", "a hint")

    context = SimpleNamespace(function_name="stack-PlanBackup", aws_request_id="r-1")
    with pytest.raises(BackupToolError):
        lambda_handler(step)({"run": RUN}, context)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["level"] for line in lines] == ["INFO", "ERROR"]
    assert lines[1]["message"] == "ConfigurationError: a fact. Hint: a hint."
    for line in lines:
        assert (line["instance"], line["run"]) == (RUN["instance"], RUN["backup_timestamp"])
        assert (line["function_name"], line["function_request_id"]) == ("stack-PlanBackup", "r-1")


def test_neither_error_nor_log_shows_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        secret = boto3.client("secretsmanager").create_secret(
            Name="questdb", SecretString=json.dumps({"username": "backup", "password": "pass-of-the-server"})
        )
        services = services_from_environment(
            {
                "QDB_BACKUP_DATABASE_SECRET_ARN": secret["ARN"],
                "QDB_BACKUP_DATABASE_HOST": "127.0.0.1",
                "QDB_BACKUP_DATABASE_PORT": "1",
                "POWERTOOLS_LOG_LEVEL": "DEBUG",
            }
        )
        monkeypatch.setattr(handler, "_services_of_process", lambda: services)
        read = lambda_handler(lambda _event, given: given.database.read())
        with pytest.raises(DatabaseUnavailableError) as caught:
            read({}, None)
    told = capsys.readouterr()
    assert "DatabaseUnavailableError" in told.out
    for text in (told.out, told.err, str(caught.value)):
        assert "pass-of-the-server" not in text


@pytest.mark.parametrize(
    ("touch", "variable"),
    [
        (lambda services: services.status, "QDB_BACKUP_STATUS_TABLE"),
        (lambda services: services.database, "QDB_BACKUP_DATABASE_SECRET_ARN"),
        (lambda services: services.store, "backup.object.store"),
    ],
)
def test_an_adapter_whose_variable_is_missing_fails_when_it_is_first_used(touch: Any, variable: str) -> None:
    services = services_from_environment({})
    with pytest.raises(ConfigurationError, match=variable):
        touch(services)


def test_a_folder_cannot_be_read_on_aws() -> None:
    with pytest.raises(ConfigurationError, match="only EBS snapshots are read on AWS"):
        services_from_environment({}).make_source(None)


def test_what_is_said_of_the_volumes_is_read() -> None:
    config = services_from_environment(
        {
            "QDB_BACKUP_EBS_INSTANCE": "Name=questdb",
            "QDB_BACKUP_EBS_VOLUME_IDS": "vol-1, vol-2,",
            "QDB_BACKUP_KEEP_EBS_SNAPSHOTS": "0",
            "QDB_BACKUP_EBS_SERVER_ROOT": "/questdb",
            "QDB_BACKUP_EBS_MOUNTS": "/mnt/a=vol-1,/mnt/b=/dev/sdg",
            "QDB_BACKUP_STACK_NAME": "mine",
        }
    ).config
    assert (config.source, config.ebs_instance, config.keep_ebs_snapshots) == ("ebs", "Name=questdb", 0)
    assert config.ebs_volume_ids == ("vol-1", "vol-2")
    assert (config.ebs_server_root, config.stack_name) == ("/questdb", "mine")
    assert config.ebs_mounts == ("/mnt/a=vol-1", "/mnt/b=/dev/sdg")
    bare = services_from_environment({}).config
    assert (bare.ebs_instance, bare.ebs_volume_ids, bare.ebs_server_root) == (None, (), None)
    assert (bare.ebs_mounts, bare.keep_ebs_snapshots) == ((), 1)


def test_snapshots_are_made_once_and_all_else_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    ec2: Any = services_from_environment({}).ec2
    retries = [client.meta.config.retries["total_max_attempts"] for client in (ec2._once, ec2._client)]
    ec2.close()
    assert retries[0] == 1
    assert retries[1] > 1


def test_no_more_is_asked_of_ebs_than_one_snapshot_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    services = services_from_environment({"QDB_BACKUP_MAX_CONCURRENCY": "7"})
    direct: Any = services.direct
    assert (direct._bucket.rate, services.config.max_concurrency) == (1000.0, 7)
    direct.close()


@pytest.mark.parametrize("workers", [1, 16, 200])
def test_a_worker_can_read_the_largest_unit_long_before_its_function_ends(workers: int) -> None:
    config = services_from_environment({"QDB_BACKUP_MAX_CONCURRENCY": str(workers)}).config
    assert config.largest_unit_bytes is not None
    assert config.largest_unit_bytes / BLOCK_BYTES / (1000 / workers) == pytest.approx(400)


def test_a_call_of_another_function_waits_long_and_is_never_sent_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    aws_workflow._lambda.cache_clear()
    config: Any = aws_workflow._lambda().meta.config
    aws_workflow._lambda.cache_clear()
    assert 600 < config.read_timeout < 900
    assert config.retries["total_max_attempts"] == 1


def test_a_cold_start_imports_no_sdk_and_no_driver_before_it_is_needed() -> None:
    package = ROOT / "layers/questdb_backup/python"
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import app; app.handler;"
        f"print(*[name for name in {IMPORTED_LATE} if name in sys.modules])"
    )
    for name in FUNCTIONS:
        folder = str(ROOT / "functions" / name)
        command = [sys.executable, "-c", code, folder, str(package)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [], name
