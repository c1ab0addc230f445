"""The whole EBS route on one machine: a real server on a mounted volume, the stand-in for EC2 and EBS.

The deployed state machine and handlers run with the adapters of AWS; only the store is a folder, the
live status SQLite, and the cloud is `standin.ebs`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from questdb_backup.ebs.direct import BotoDirectApi
from questdb_backup.ebs.ec2 import BotoEc2
from questdb_backup.ebs.volumes import BotoVolumes
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.errors import EXCEED_TOLERATED_FAILURE_THRESHOLD
from questdb_backup.engine.execution import Execution
from questdb_backup.local.bundle import read_definition, substitutions, tasks
from questdb_backup.questdb.base import Database
from questdb_backup.questdb.pgwire import PgwireDatabase
from questdb_backup.services import Config, Services
from questdb_backup.source.base import Source
from questdb_backup.status.sqlite import SqliteStatusStore
from questdb_backup.steps.fail import as_error
from questdb_backup.stores.base import ObjectStore
from questdb_backup.stores.open import open_store
from standin.ebs.standin import EbsStandin
from tests.support.busy_volumes import mounted, run
from tests.support.live import fs_store
from tests.support.noted_checkpoint import Digests, NotingDatabase, PausingWriter
from tests.support.questdb_server import QuestDBServer

INSTANCE = "gentle-forest-orchid"
STACK = "questdb-backup"


@dataclass
class EbsRoute:
    """A deployment whose database is on an EC2 instance of the stand-in.

    ``config`` are fields of `Config` to set. ``folder`` holds store and live status.
    """

    cloud: EbsStandin
    instance_id: str
    dsn: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    started: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store_text = fs_store(self.folder)
        self.store: ObjectStore = open_store(self.store_text, max_connections=8)
        self.status = SqliteStatusStore(self.folder / "status.sqlite")

    def services(self, database: Database | None = None) -> Services:
        """The adapters of the deployed functions."""
        settings: dict[str, Any] = {
            "source": "ebs",
            "instance_name": INSTANCE,
            "stack_id": "stack",
            "stack_name": STACK,
            "window_seconds": 30.0,
            "keep_latest_n": 5,
            "ebs_instance": self.instance_id,
            **self.config,
        }
        return Services(
            config=Config(**settings),
            make_store=lambda: self.store,
            make_status=lambda: self.status,
            make_database=lambda: database or PgwireDatabase(self.dsn),
            make_source=_no_source,
            make_ec2=BotoEc2,
            make_direct=BotoDirectApi,
            make_volumes=BotoVolumes,
        )

    def backup(self, services: Services | None = None, **replaced: Any) -> dict[str, Any]:
        """One execution of the deployed machine; give its output. Raise what it failed with."""
        return self._run("backup", services or self.services(), {}, **replaced)

    def restore(self, request: dict[str, Any], services: Services | None = None) -> dict[str, Any]:
        """One restore by the deployed machine; give its output. Raise what it failed with."""
        return self._run("restore", services or self.services(), request)

    def _run(self, machine: str, used: Services, request: dict[str, Any], **replaced: Any) -> dict[str, Any]:
        definition = read_definition(machine)
        self.started += 1
        name = f"execution-{self.started}"
        failures: list[tuple[str, str]] = []

        def note(event: Any) -> None:
            if event.item is not None and event.error is not None:
                failures.append((event.error, event.cause or ""))

        execution = Execution(
            StateMachine.load(definition, substitutions(definition)),
            {**tasks(definition, used), **replaced},
            request,
            name=name,
            execution_id=name,
            read_object=lambda _bucket, key: self.store.get(key.removeprefix(self._prefix())),
            max_workers=2,
            time_scale=0.02,
            hook=note,
        )
        with _environment(self.cloud.environment):
            result = execution.run()
        if result.status != "SUCCEEDED":
            error, cause = result.error or result.status, result.cause or ""
            if failures and error == EXCEED_TOLERATED_FAILURE_THRESHOLD:
                error, cause = failures[-1]
            with suppress(ValueError):
                cause = json.loads(cause)["errorMessage"]
            raise as_error(error, cause)
        output = result.output
        assert isinstance(output, dict)
        return output

    def noted_backup(self, server: QuestDBServer, writer: PausingWriter) -> tuple[dict[str, Any], Digests]:
        """A backup with a writer going on; give its output, and what the tables held at its checkpoint."""
        noting = NotingDatabase(PgwireDatabase(self.dsn), server, writer)
        return self.backup(self.services(noting)), noting.noted

    def _prefix(self) -> str:
        from questdb_backup import keys

        return self.store.address(keys.INSTANCES)[1].removesuffix(keys.INSTANCES)


def _no_source(_version: str | None) -> Source:
    raise AssertionError("the deployed functions have no root")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def database_volume(
    outer: Path, mkfs: tuple[str, ...], *, size: int = 3 << 30
) -> Iterator[tuple[Path, Path]]:
    """A fresh file system on an image in a `reflink_folder`, mounted: the image and the mount point."""
    image = outer / "database.img"
    with image.open("wb") as file:
        file.truncate(size)
    run(*mkfs, image)
    try:
        with mounted(image, outer / "database") as folder:
            yield image, folder
    finally:
        image.unlink()
