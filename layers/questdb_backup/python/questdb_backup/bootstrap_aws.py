"""The composition root on AWS: the functions' environment becomes configuration and adapters."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from questdb_backup.ebs.base import BLOCK_BYTES, DirectApi, Ec2
from questdb_backup.ebs.volumes import VolumeService
from questdb_backup.errors import ConfigurationError
from questdb_backup.questdb.base import Database
from questdb_backup.services import Config, Services
from questdb_backup.settings import load_settings
from questdb_backup.source.base import Source
from questdb_backup.status.base import StatusStore
from questdb_backup.stores.base import ObjectStore

_PREFIX = "QDB_BACKUP_"
_READS_OF_A_SNAPSHOT = 1000.0
"""Requests a second that EBS lets through for one snapshot, whoever sends them; workers share them."""
_UNIT_SECONDS = 400.0
"""For which a worker may read one unit, by its share of these requests: below half of a function's 900 s."""
_STATEMENT_SECONDS = 840.0
"""Below the 900 s of the functions that send CREATE and RELEASE, so that they end with an outcome."""


def services_from_environment(environ: Mapping[str, str]) -> Services:
    """Services of a Lambda function; an adapter whose variables are missing fails when it is first used."""
    _log_as_json(environ)
    settings = load_settings({}, environ, None)
    text = environ.get

    def store() -> ObjectStore:
        from questdb_backup.stores.open import open_store

        return open_store(settings.require_object_store(), max_connections=16)

    def status() -> StatusStore:
        from questdb_backup.status.dynamodb import DynamoStatusStore

        return DynamoStatusStore(_require(environ, "STATUS_TABLE"))

    def database() -> Database:
        from questdb_backup.questdb.pgwire import PgwireDatabase, conninfo_from_secret

        secret, host = _require(environ, "DATABASE_SECRET_ARN"), text(_PREFIX + "DATABASE_HOST")
        port = text(_PREFIX + "DATABASE_PORT")
        return PgwireDatabase(
            lambda: conninfo_from_secret(secret, host=host, port=port),
            statement_timeout_seconds=_STATEMENT_SECONDS,
        )

    def source(_version: str | None) -> Source:
        raise ConfigurationError(
            "only EBS snapshots are read on AWS", "use questdb-backup on the host for its own disk"
        )

    def ec2() -> Ec2:
        from questdb_backup.ebs.ec2 import BotoEc2

        return BotoEc2()

    def direct() -> DirectApi:
        from questdb_backup.ebs.direct import BotoDirectApi

        return BotoDirectApi(rate=_READS_OF_A_SNAPSHOT)

    def volumes() -> VolumeService:
        from questdb_backup.ebs.volumes import BotoVolumes

        return BotoVolumes()

    def limit() -> int | None:
        from questdb_backup.aws_workflow import worker_limit

        return worker_limit()

    workers = int(text(_PREFIX + "MAX_CONCURRENCY", "16"))
    restore_root = text(_PREFIX + "RESTORE_ROOT")
    return Services(
        config=Config(
            source=text(_PREFIX + "SOURCE", "ebs"),
            instance_name=settings.instance_name,
            stack_id=text(_PREFIX + "STACK_ID"),
            stack_name=text(_PREFIX + "STACK_NAME", "questdb-backup"),
            window_seconds=float(text(_PREFIX + "CHECKPOINT_WINDOW_SECONDS", "30")),
            lease_seconds=1800.0,
            release_timeout_seconds=600.0,
            keep_latest_n=settings.cleanup_keep_latest_n,
            compression_level=settings.compression_level,
            max_concurrency=workers,
            largest_unit_bytes=int(_UNIT_SECONDS * _READS_OF_A_SNAPSHOT / workers) * BLOCK_BYTES,
            ebs_instance=text(_PREFIX + "EBS_INSTANCE") or None,
            ebs_volume_ids=_listed(text(_PREFIX + "EBS_VOLUME_IDS")),
            keep_ebs_snapshots=int(text(_PREFIX + "KEEP_EBS_SNAPSHOTS", "1")),
            ebs_server_root=text(_PREFIX + "EBS_SERVER_ROOT") or None,
            ebs_mounts=_listed(text(_PREFIX + "EBS_MOUNTS")),
            restore_root=Path(restore_root) if restore_root else None,
            object_store=settings.object_store,
        ),
        make_store=store,
        make_status=status,
        make_database=database,
        make_source=source,
        make_ec2=ec2,
        make_direct=direct,
        make_volumes=volumes,
        worker_limit=limit,
        metrics=_EmbeddedMetrics(
            stack=text(_PREFIX + "STACK_NAME", "questdb-backup"),
            namespace=text("POWERTOOLS_METRICS_NAMESPACE", "QuestDBBackup"),
        ),
    )


def _listed(value: str | None) -> tuple[str, ...]:
    """The parts between commas; an empty part is none."""
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def _require(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(_PREFIX + name)
    if not value:
        raise ConfigurationError(
            f"the environment variable {_PREFIX}{name} is missing", "deploy the template again"
        )
    return value


class _EmbeddedMetrics:
    """Figures in CloudWatch's embedded metric format, by Powertools.

    The dimensions are the stack and, by Powertools itself, POWERTOOLS_SERVICE_NAME: those of the alarms.
    """

    def __init__(self, *, stack: str, namespace: str) -> None:
        self._stack = stack
        self._namespace = namespace

    def add(self, name: str, value: float, unit: str, **dimensions: str) -> None:
        """Print the figure in a line of its own."""
        from aws_lambda_powertools.metrics import MetricUnit, single_metric

        with single_metric(
            name=name,
            unit=MetricUnit(unit),
            value=value,
            namespace=self._namespace,
            default_dimensions={"Stack": self._stack, **dimensions},
        ):
            pass


def _log_as_json(environ: Mapping[str, str]) -> None:
    """Give the package's logger the JSON form of Powertools, and the level of POWERTOOLS_LOG_LEVEL."""
    from aws_lambda_powertools import Logger

    level = environ.get("POWERTOOLS_LOG_LEVEL", "INFO").upper()
    formatter = Logger(
        service=environ.get("POWERTOOLS_SERVICE_NAME", "questdb-backup"), level=level
    ).registered_formatter
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    package = logging.getLogger("questdb_backup")
    package.handlers = [handler]
    package.setLevel(level)
    package.propagate = False


def set_log_keys(keys: Mapping[str, str | None]) -> None:
    """Let every log line from now on carry these keys; None takes one away."""
    from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

    for handler in logging.getLogger("questdb_backup").handlers:
        if isinstance(handler.formatter, LambdaPowertoolsFormatter):
            handler.formatter.append_keys(**keys)
