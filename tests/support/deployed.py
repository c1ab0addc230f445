"""The template, deployed on this host.

Functions run in process, each with the environment and the services that the template gives it; the
local engine stands for Step Functions, DynamoDB Local and moto's S3 server are the data, EC2 is the
stand-in. Two things are not the template's: the server is in memory, and what is read out of the
snapshots is a folder.
"""

import contextlib
import itertools
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from questdb_backup import aws_workflow, handler
from questdb_backup.bootstrap_aws import services_from_environment
from questdb_backup.catalog import Catalog
from questdb_backup.catalog_store import read_catalog
from questdb_backup.engine.definition import StateMachine
from questdb_backup.engine.execution import Execution, ExecutionResult, Status
from questdb_backup.instances import read_instances
from questdb_backup.questdb.memory import InMemoryQuestDB
from questdb_backup.services import Services
from questdb_backup.source.base import Source
from standin.ebs import EbsStandin, Quotas
from tests.support.aws_uses import data_uses, ec2_uses
from tests.support.deployed_clients import LambdaClient, Running, StepFunctionsClient
from tests.support.deployed_template import ACCOUNT, REGION, Template
from tests.support.dynamodb_local import DynamoDBLocal
from tests.support.kit import Clock
from tests.support.opened_snapshots import DATA_ID, put_folder_in_snapshots
from tests.support.s3_server import S3Server
from tests.template.cloudformation import resources, template

BUCKET = "questdb-backup-backupbucket-1a2b3c4d5e6f"
TABLE = "questdb-backup-StatusTable-1A2B3C4D5E6F"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00", "AWS_SECRET_ACCESS_KEY": "only-for-the-signature"}
PAYLOAD_LIMIT = 256 * 1024
READ_THE_SOURCE = ("PlanBackupFunction", "UploadPartitionsFunction")
MACHINES = ("Backup", "Restore")
_MOUNT = "/mnt/restore"
_current: ContextVar[Services] = ContextVar("services")


class DeployedStack:
    """Change ``source``; `start` and `invoke` what the template makes.

    ``used`` are function, action and resource of every call that a function made to AWS.
    ``twice``: every create-only write is sent twice, as after a lost response.
    """

    def __init__(
        self,
        *,
        dynamodb: str,
        s3: str,
        ebs: EbsStandin,
        instance: str,
        restore_root: str = "",
        twice: bool = False,
        **parameters: str,
    ) -> None:
        if restore_root:
            parameters["RestoreFileSystemAccessPointArn"] = (
                f"arn:aws:elasticfilesystem:{REGION}:{ACCOUNT}:access-point/fsap-1"
            )
        self.template = Template(parameters, {"BackupBucket": BUCKET, "StatusTable": TABLE})
        self.clock = Clock()
        self.database = InMemoryQuestDB(
            clock=self.clock, sleep=lambda _seconds: None, monotonic=itertools.count().__next__
        )
        self.ebs, self.instance = ebs, instance
        self.source: Source | None = None
        self.used: set[tuple[str, str, str]] = set()
        self.largest_payload = 0
        self.executions: dict[str, Running] = {}
        self._restore_root = restore_root
        self._twice = twice
        self._closed = False
        self._services: dict[str, Services] = {}
        self._handlers: dict[str, Callable[[Any, Any], Any]] = {}
        self._lock = threading.RLock()
        self.s3 = boto3.client("s3", endpoint_url=s3)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=dynamodb)
        self._make_data()

    def _make_data(self) -> None:
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        table = resources("AWS::DynamoDB::Table")["StatusTable"]["Properties"]
        self.dynamodb.create_table(
            TableName=TABLE,
            **{name: table[name] for name in ("BillingMode", "AttributeDefinitions", "KeySchema")},
        )

    # ---- Functions

    def services(self, function: str) -> Services:
        """What the function has, by its own environment."""
        with self._lock:
            if function not in self._services:
                self._services[function] = self._make_services(function)
            return self._services[function]

    def _make_services(self, function: str) -> Services:
        environment = self.environment(function)
        services = services_from_environment(environment)
        services.clock = self.clock
        make_store, make_status, make_ec2 = services.make_store, services.make_status, services.make_ec2
        make_volumes = services.make_volumes

        def store() -> Any:
            made: Any = make_store()
            made._client.meta.events.register("before-parameter-build.s3", self._note(function))
            return _Twice(made) if self._twice else made

        def status() -> Any:
            made: Any = make_status()
            made._client().meta.events.register("before-parameter-build.dynamodb", self._note(function))
            return made

        def ec2() -> Any:
            made: Any = make_ec2()
            for client in (made._client, made._once):
                client.meta.events.register("before-parameter-build.ec2", self._note(function))
            return made

        def volumes() -> Any:
            made: Any = make_volumes()
            made._client.meta.events.register("before-parameter-build.ec2", self._note(function))
            return made

        services.make_store, services.make_status, services.make_ec2 = store, status, ec2
        services.make_volumes = volumes
        services.sleep = lambda _seconds: None
        if "QDB_BACKUP_DATABASE_SECRET_ARN" in environment:
            services.make_database = lambda: self.database
        if function in READ_THE_SOURCE:
            services.make_source = lambda _version: self.given_source()
        return services

    def given_source(self) -> Source:
        assert self.source is not None, "set the source first"
        return self.source

    def environment(self, function: str) -> dict[str, str]:
        """The variables of a function; the mount of the file system is a folder."""
        found = self.template.environment(function)
        return {name: self._restore_root if value == _MOUNT else value for name, value in found.items()}

    def invoke(self, function: str, event: Any) -> Any:
        """As Lambda does: JSON in, JSON out; what the handler raises passes."""
        services = self.services(function)
        before = _current.set(services)
        try:
            result = self._handler(function)(self._as_json(event), self._context(function))
        finally:
            _current.reset(before)
        return self._as_json(result)

    def _handler(self, function: str) -> Callable[[Any, Any], Any]:
        with self._lock:
            if function not in self._handlers:
                made = self.template.handler(function)
                names = getattr(made, "__wrapped__", made).__globals__
                if "os" in names:
                    names["os"] = SimpleNamespace(environ=self.environment(function))
                self._handlers[function] = made
            return self._handlers[function]

    def _context(self, function: str) -> object:
        return SimpleNamespace(function_name=function, aws_request_id=f"request-of-{function}")

    def _as_json(self, value: Any) -> Any:
        data = json.dumps(value, allow_nan=False)
        self.largest_payload = max(self.largest_payload, len(data))
        assert len(data) < PAYLOAD_LIMIT
        return json.loads(data)

    # ---- State machines

    def start(self, machine: str, value: Any) -> str:
        """Start ``Backup`` or ``Restore``; give the execution's ARN."""
        definition, substitutions = self.template.definition(f"{machine}StateMachine")
        name = f"execution-{len(self.executions) + 1}"
        arn = self.template.machine_arn(f"{machine}StateMachine").replace("stateMachine", "execution")
        arn = f"{arn}:{name}"
        loaded = StateMachine.load(definition, substitutions)
        execution = Execution(
            loaded,
            {resource: self._task(resource) for resource in loaded.resources()},
            value,
            name=name,
            execution_id=arn,
            read_object=lambda bucket, key: self.s3.get_object(Bucket=bucket, Key=key)["Body"].read(),
            max_workers=4,
            time_scale=0.0,
        )
        results: list[ExecutionResult] = []
        thread = threading.Thread(target=lambda: results.append(execution.run()))
        running = Running(execution=execution, thread=thread, results=results)
        self.executions[arn] = running
        running.thread.start()
        return arn

    def result(self, arn: str) -> ExecutionResult:
        """Wait for the end, also of handlers that a stop has left running."""
        running = self.executions[arn]
        running.thread.join()
        assert running.execution.join(60.0)
        return running.results[0]

    def run(self, machine: str, value: Any) -> ExecutionResult:
        return self.result(self.start(machine, value))

    def backed_up(self) -> dict[str, Any]:
        """A backup by hand that must succeed; give its output."""
        result = self.run("Backup", {})
        assert result.status is Status.SUCCEEDED, (result.error, result.cause)
        assert isinstance(result.output, dict)
        return result.output

    def _task(self, function: str) -> Callable[[Any], Any]:
        return lambda event: self.invoke(function, event)

    # ---- What the functions see of AWS

    def step_functions(self, function: str) -> StepFunctionsClient:
        """A client of Step Functions."""
        return StepFunctionsClient(
            executions=self.executions,
            machines={self.template.machine_arn(f"{name}StateMachine"): name for name in MACHINES},
            start=self.start,
            note=partial(self._note_use, function),
        )

    def functions_client(self, function: str) -> LambdaClient:
        """A client of Lambda."""
        return LambdaClient(invoke=self.invoke, note=partial(self._note_use, function))

    def caller(self) -> str:
        """The function that runs in this thread."""
        services = _current.get()
        return next(name for name, known in self._services.items() if known is services)

    def _note(self, function: str) -> Callable[..., None]:
        def note(params: dict[str, Any], model: Any, **_: Any) -> None:
            find = ec2_uses if model.service_model.service_name == "ec2" else data_uses
            for action, resource in find(model.name, params):
                self._note_use(function, action, resource)

        return note

    def _note_use(self, function: str, action: str, resource: str) -> None:
        self.used.add((function, action, resource))

    # ---- What is there

    def catalog(self) -> Catalog:
        """The catalog of the stack's one instance."""
        store = self.services("ListBackupsFunction").store
        (known,) = read_instances(store)[0]
        return read_catalog(store, known.name)

    def stored(self) -> set[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {each["Key"] for page in pages for each in page.get("Contents", ())}

    def close(self) -> None:
        """Remove what was made. Doing it again is a success."""
        if self._closed:
            return
        self._closed = True
        for services in self._services.values():
            for made in (services.__dict__.get("store"), services.__dict__.get("status")):
                if made is not None:
                    made._client().close() if callable(made._client) else made.close()
            if "ec2" in services.__dict__:
                services.__dict__["ec2"].close()
            if "volumes" in services.__dict__:
                services.__dict__["volumes"]._client.close()
        for key in self.stored():
            self.s3.delete_object(Bucket=BUCKET, Key=key)
        self.s3.delete_bucket(Bucket=BUCKET)
        self.s3.close()
        self.dynamodb.delete_table(TableName=TABLE)
        self.dynamodb.close()


class _Twice:
    """A store whose create-only writes lose their first answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create(self, key: str, data: bytes) -> None:
        self._inner.create(key, data)
        self._inner.create(key, data)


Deploy = Callable[..., DeployedStack]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole session."""
    with S3Server() as server:
        yield server


@pytest.fixture
def deploy(
    dynamodb_local: DynamoDBLocal, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deploy]:
    """Deploy a stack. One at a time: the bucket has one name."""
    made: deque[DeployedStack] = deque()
    volume = tmp_path / "volume.img"
    volume.write_bytes(bytes(1 << 16))
    ebs = EbsStandin(tmp_path / "standin", region=REGION, quotas=Quotas(snapshot_interval=0.0))
    instance = ebs.add_instance(tags={"Name": "questdb"})
    ebs.add_volume(instance, image=volume)
    variables = {
        **ebs.environment,
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": s3_server.endpoint,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_local.endpoint,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # a session keeps the credentials that it found first, and DynamoDB Local has tables of each key's own
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    # each function makes clients of its own; what they read from botocore's files is the same
    monkeypatch.setattr(botocore.session, "create_loader", _loader)
    shared = Template({}, {}).resolve(template()["Globals"]["Function"]["Environment"]["Variables"])
    for name, value in shared.items():
        monkeypatch.setenv(name, value)

    def deploy(**options: Any) -> DeployedStack:
        stack = DeployedStack(
            dynamodb=dynamodb_local.endpoint,
            s3=s3_server.endpoint,
            ebs=ebs,
            instance=instance,
            **options,
        )
        made.append(stack)
        put_folder_in_snapshots(monkeypatch, stack.given_source, data_id=DATA_ID)
        monkeypatch.setattr(handler, "_services_of_process", _current.get)
        monkeypatch.setattr(aws_workflow, "_step_functions", lambda: stack.step_functions(stack.caller()))
        monkeypatch.setattr(aws_workflow, "_lambda", lambda *_: stack.functions_client(stack.caller()))
        return stack

    with ebs, _package_logger_as_it_was():
        yield deploy
        for stack in made:
            stack.close()


@cache
def _loader(search_path: str | None = None) -> botocore.loaders.Loader:
    return botocore.loaders.create_loader(search_path)


@contextlib.contextmanager
def _package_logger_as_it_was() -> Iterator[None]:
    package = logging.getLogger("questdb_backup")
    before = (list(package.handlers), package.level, package.propagate)
    yield
    package.handlers, package.level, package.propagate = before
