"""A bucket that is not there, refuses, stalls or swallows its answers, under a backup of a real server."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.deployment import TABLE, Deployment, run_here, run_installed, tree
from tests.support.faulty_proxy import Fault, FaultyProxy, Rule
from tests.support.live import checkpoint, wait_until
from tests.support.questdb_server import QuestDBServer
from tests.support.s3_server import SECRET_KEY, S3Server, connection_string, free_port

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuestDBServer]:
    with QuestDBServer(tmp_path_factory.mktemp("s3-faults") / "root") as questdb:
        questdb.execute(TABLE)
        questdb.wait_applied()
        yield questdb


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as s3_server:
        s3_server.create_bucket("backups")
        yield s3_server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3.endpoint) as faulty:
        yield faulty


@pytest.fixture
def here(
    server: QuestDBServer,
    s3: S3Server,
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Deployment]:
    """A root in the bucket of the test's own, reached over the proxy; the server must be free in the end."""
    for name in [name for name in os.environ if name.startswith(("QDB_", "PG", "AWS_"))]:
        monkeypatch.delenv(name)
    text = s3.connection_string("backups", root=tmp_path.name, endpoint=proxy.endpoint)
    yield Deployment(server, text, tmp_path / "state")
    proxy.heal()
    held, started_at = checkpoint(server)
    if held:
        server.execute("checkpoint release")
        pytest.fail(f"the test left a checkpoint, started at {started_at}")


def test_the_store_does_not_answer(here: Deployment) -> None:
    port = free_port()
    nobody = connection_string(f"http://127.0.0.1:{port}", "backups")
    named = here.arguments("backup", "--instance-name", "calm-river-birch", "--object-store", nobody)

    error = run_installed(*named).refused(1, f"http://127.0.0.1:{port}", "check the network and endpoint")

    assert SECRET_KEY not in error
    here.assert_free()


def test_the_bucket_is_not_there(here: Deployment, s3: S3Server) -> None:
    missing = replace(here, store_text=s3.connection_string("no-such-bucket"))

    missing.backup().refused(1, "s3://no-such-bucket", "NoSuchBucket", "make the bucket, or correct its name")

    here.assert_free()


@pytest.mark.parametrize("key", ["instances.json", "catalog.json"])
def test_access_is_denied_at_the_first_read(here: Deployment, proxy: FaultyProxy, key: str) -> None:
    proxy.deny(methods=["GET"], key=key)

    here.backup().refused(1, key, "AccessDenied", "allow s3:GetObject")

    here.assert_free()
    proxy.heal()
    assert not [name for name in here.names() if "/runs/" in name or "/packs/" in name]
    here.assert_usable()


@pytest.mark.parametrize(
    ("key", "after"),
    [
        ("/units/", ""),
        ("/packs/", ""),
        ("/results/", ""),
        ("/tables/", ""),
        ("/manifests/", ""),
        ("/catalog.json", "/manifests/"),
    ],
    ids=["unit", "pack", "result", "shard", "manifest", "publish"],
)
def test_access_is_denied_at_a_write(here: Deployment, proxy: FaultyProxy, key: str, after: str) -> None:
    proxy.rules.append(Rule(fault=Fault.DENY, methods=["PUT"], key=key, times=1, after=after))

    here.backup().refused(1, key, "403 AccessDenied", "allow s3:GetObject, s3:PutObject")

    assert [rule.times for rule in proxy.rules] == [0]
    here.assert_failed(key, "AccessDenied")


def test_access_to_the_catalog_is_lost_for_good_at_the_publish(here: Deployment, proxy: FaultyProxy) -> None:
    """Not even the failure can be told; when the store allows it again, somebody of ours tells it."""
    proxy.rules.append(Rule(fault=Fault.DENY, methods=["PUT"], key="/catalog.json", after="/manifests/"))

    ended = here.backup()

    ended.refused(1, "/catalog.json", "403 AccessDenied", "allow s3:GetObject")
    assert [line for line in ended.warnings if "the guard could not end the failed run" in line]
    here.assert_free()
    proxy.heal()
    wait_until(lambda: here.catalog().lease is None, "the watchdog ends the run")
    here.assert_failed()
    here.assert_usable()


def test_bursts_of_slow_down_are_survived(here: Deployment, proxy: FaultyProxy) -> None:
    for key in ("instances.json", "/units/", "/packs/", "/manifests/"):
        proxy.slow_down(methods=["PUT"], key=key)
    proxy.rules.append(Rule(fault=Fault.SLOW_DOWN, key="/catalog.json", times=1, after="/manifests/"))

    ended = here.backup()

    ended.done()
    assert [rule.times for rule in proxy.rules] == [0] * 5
    assert here.catalog().rows[-1].status == "backup complete"


def test_a_store_that_stays_too_busy_fails_the_backup(here: Deployment, proxy: FaultyProxy) -> None:
    proxy.slow_down(methods=["GET"], key="instances.json", times=None)

    run_here(*here.arguments("backups")).refused(1, "instances.json", "503 SlowDown", "try again later")


@pytest.mark.parametrize("times", [1, 4], ids=["once", "as often as the SDK tries"])
def test_a_lost_answer_to_the_publish_is_a_complete_backup(
    here: Deployment, proxy: FaultyProxy, times: int
) -> None:
    fault = Rule(fault=Fault.LOSE_RESPONSE, key="/catalog.json", after="/manifests/", times=times)
    fault.methods = ["PUT"]
    proxy.rules.append(fault)

    result = json.loads(here.backup("--json").done())

    assert fault.times == 0
    assert result["status"] == "backup complete"
    (row,) = here.catalog().rows
    assert (row.status, row.backup_timestamp) == ("backup complete", result["backup_timestamp"])
    here.assert_free()


def test_a_restore_that_may_not_read_leaves_no_database(
    here: Deployment, proxy: FaultyProxy, tmp_path: Path
) -> None:
    here.backup().done()
    target = tmp_path / "new"

    proxy.deny(methods=["GET"], key="/manifests/")
    here.restore(target).refused(1, "/manifests/", "AccessDenied", "allow s3:GetObject")
    assert not target.exists()

    proxy.heal()
    proxy.deny(methods=["GET"], key="/packs/")
    here.restore(target).refused(1, "/packs/", "AccessDenied", "allow s3:GetObject")
    assert not [path for path in tree(target) if ".restore_staging" not in path]

    proxy.heal()
    here.restore(target).done()
    assert (target / "_restore").exists()
