"""Runs that meet another run, an abort, a signal or a restart: one backup at most, and a free database."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.catalog import BackupRow, Catalog
from questdb_backup.catalog_store import update_catalog
from questdb_backup.errors import CheckpointLostError, SourceFileError
from questdb_backup.local.options import Options, Place
from questdb_backup.words import BackupStatus
from tests.support.live import (
    HeldBackup,
    back_up,
    catalog_of,
    checkpoint,
    command,
    fs_store,
    options_for,
    restored,
    wait_until,
)
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import settle, table_digests

pytestmark = pytest.mark.integration

COMPLETE, FAILED = BackupStatus.BACKUP_COMPLETE, BackupStatus.BACKUP_FAILED


@pytest.fixture
def store(tmp_path: Path) -> str:
    return fs_store(tmp_path)


@pytest.fixture
def options(sampled: QuestDBServer, store: str) -> Iterator[Options]:
    """Of a root that is free before and after, and can be backed up again."""
    options = options_for(sampled, store)
    yield options
    assert checkpoint(sampled) == (False, None)
    assert catalog_of(options).lease is None
    assert back_up(options)["status"] == COMPLETE
    assert command("verify", "--read-data", store=store).returncode == 0


def of(server: QuestDBServer) -> list[str]:
    return ["--root", str(server.root), "--dsn", server.dsn]


def rows(options: Options) -> list[BackupRow]:
    return list(catalog_of(options).rows)


def statuses(options: Options) -> list[BackupStatus]:
    return [row.status for row in rows(options)]


@pytest.mark.parametrize("end", [QuestDBServer.kill, QuestDBServer.stop], ids=["kill -9", "clean"])
def test_a_server_that_is_restarted_during_the_copy_never_yields_a_complete_backup(
    sampled: QuestDBServer, options: Options, end: Callable[[QuestDBServer], None]
) -> None:
    restarts: list[str] = []

    def restart(path: str) -> None:
        if not restarts and path.startswith("db/"):
            restarts.append(path)
            end(sampled)
            sampled.start()

    # After the restart the server may purge what the checkpoint had kept: a worker can meet that first.
    with pytest.raises((CheckpointLostError, SourceFileError), match=r"none is held|but missing"):
        back_up(options, on_read=restart, settles=False)
    assert restarts
    assert statuses(options) == [FAILED]
    assert "a restart of the server drops the checkpoint" in str(rows(options)[0].backup_error)


def test_of_two_starts_at_once_on_one_host_one_is_refused_and_one_completes(
    sampled: QuestDBServer, store: str, options: Options, tmp_path: Path
) -> None:
    folder = tmp_path / "hold"
    with HeldBackup(folder, sampled, store) as one, HeldBackup(folder, sampled, store) as other:
        _one_backup(sampled, options, one, other, "a backup is in progress on this machine: process")


def test_of_two_starts_at_once_on_two_hosts_one_is_refused_and_one_completes(
    sampled: QuestDBServer, store: str, options: Options, tmp_path: Path
) -> None:
    folder, states = tmp_path / "hold", [str(tmp_path / "host-1"), str(tmp_path / "host-2")]
    back_up(options)  # gives the instance its name
    with (
        HeldBackup(folder, sampled, store, "--state", states[0]) as one,
        HeldBackup(folder, sampled, store, "--state", states[1]) as other,
    ):
        _one_backup(sampled, options, one, other, "a backup of instance")
        assert statuses(options) == [COMPLETE, COMPLETE]


def _one_backup(
    server: QuestDBServer, options: Options, one: HeldBackup, other: HeldBackup, words: str
) -> None:
    """One of the two ends at once with exit 1, the other completes; its checkpoint is never touched."""
    ended, running = first_ended(one, other)
    running.wait_held()
    held = checkpoint(server)
    assert held[0]
    code, told = ended.result()
    assert (code, told) == (1, None)
    assert words in ended.stderr
    assert "wait for it, or stop it with `questdb-backup abort`" in ended.stderr
    assert checkpoint(server) == held
    running.go_on()
    code, told = running.result()
    assert code == 0, running.stderr
    assert told is not None
    assert [row.backup_timestamp for row in rows(options)][-1] == told["backup_timestamp"]


def first_ended(one: HeldBackup, other: HeldBackup) -> tuple[HeldBackup, HeldBackup]:
    wait_until(lambda: one.ended or other.ended, "one of two backups refused")
    return (one, other) if one.ended else (other, one)


def test_a_run_that_slept_while_another_host_took_over_cannot_publish_or_release(
    sampled: QuestDBServer, store: str, options: Options, tmp_path: Path
) -> None:
    back_up(options)
    elsewhere = ["--state", str(tmp_path / "host-2")]
    with HeldBackup(tmp_path / "stale", sampled, store) as stale:
        stale.wait_held().send(signal.SIGSTOP)
        own = checkpoint(sampled)
        expire_lease(options)
        refused = command("backup", *of(sampled), *elsewhere, store=store)
        assert refused.returncode == 1
        assert "a checkpoint is held already" in refused.stderr
        assert checkpoint(sampled) == own
        sampled.execute("checkpoint release")  # as the message says, by hand
        with HeldBackup(tmp_path / "next", sampled, store, *elsewhere) as following:
            following.wait_held()
            others = checkpoint(sampled)
            assert others[0]
            stale.go_on()
            stale.send(signal.SIGCONT)
            code, told = stale.result()
            assert (code, told) == (1, None)
            assert "was lost: now held by" in stale.stderr
            assert checkpoint(sampled) == others
            assert not following.ended
            following.go_on()
            code, told = following.result()
            assert code == 0, following.stderr
    assert statuses(options) == [COMPLETE, FAILED, FAILED, COMPLETE]
    assert "its lease expired" in str(rows(options)[1].backup_error)
    with restored(store, tmp_path / "restored") as server:
        settle(sampled)
        assert table_digests(server) == table_digests(sampled)


def expire_lease(options: Options) -> None:
    """As if the lease's term had passed without a renewal."""

    def change(before: Catalog) -> Catalog:
        assert before.lease is not None
        return replace(before, lease=replace(before.lease, expires_at="2020-01-01T00:00:00.000000Z"))

    update_catalog(Place(options, os.environ).services.store, catalog_of(options).instance, change)


def test_abort_from_another_process_stops_the_backup_and_frees_the_database(
    sampled: QuestDBServer, store: str, options: Options, tmp_path: Path
) -> None:
    assert command("abort", *of(sampled), store=store).stdout == "not running\n"
    with HeldBackup(tmp_path / "hold", sampled, store) as running:
        running.wait_held()
        assert checkpoint(sampled)[0]
        told = command("abort", *of(sampled), store=store)
        assert (told.returncode, told.stdout) == (0, "aborted\n")
        assert checkpoint(sampled) == (False, None)
        assert running.result() == (1, None)
        assert "the backup was aborted: aborted by the user" in running.stderr
    assert [(row.status, row.backup_error) for row in rows(options)] == [(FAILED, "aborted by the user")]
    again = command("abort", *of(sampled), store=store)
    assert (again.returncode, again.stdout) == (0, "not running\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["once", "until it has ended"])
def test_a_signal_stops_the_backup_as_abort_does(
    sampled: QuestDBServer, store: str, options: Options, tmp_path: Path, number: signal.Signals, how: str
) -> None:
    with HeldBackup(tmp_path / "hold", sampled, store) as running:
        running.wait_held().send(number)
        while how != "once" and not running.ended:
            running.send(number)
            time.sleep(0.05)
        code, told = running.result()
        assert (code != 0, told) == (True, None), running.stderr
        assert checkpoint(sampled) == (False, None)
    assert [(row.status, row.backup_error) for row in rows(options)] == [
        (FAILED, "interrupted at the terminal")
    ]


def test_a_checkpoint_that_an_aborted_run_could_not_release_is_released_by_its_watchdog(
    sampled: QuestDBServer, store: str, options: Options, tmp_path: Path
) -> None:
    impatient = ["--dsn", f"{sampled.dsn} connect_timeout=2"]
    assert sampled.pid is not None
    with HeldBackup(tmp_path / "hold", sampled, store, *impatient) as running:
        running.wait_held()
        os.kill(sampled.pid, signal.SIGSTOP)
        try:
            running.send(signal.SIGTERM)
            assert running.result() == (1, None)
            assert "the watchdog goes on trying" in running.stderr
        finally:
            os.kill(sampled.pid, signal.SIGCONT)
        wait_until(lambda: catalog_of(options).lease is None, "the dead run's lease dropped")
        assert checkpoint(sampled) == (False, None)
    assert statuses(options) == [FAILED]
