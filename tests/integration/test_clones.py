"""A real server on a file system that clones: what is backed up is what the checkpoint held, and no later."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.busy_volumes import reflink_folder
from tests.support.live import back_up, checkpoint, fs_store, options_for, restored
from tests.support.loop_mounts import needs_loop_mounts
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import create_sample_tables, settle, table_digests

pytestmark = [pytest.mark.integration, needs_loop_mounts]

CHANGES = (
    "update logs set failed = true",
    "insert into trades select dateadd('s', 7, ts), symbol, side, price, amount from trades limit 900",
    "insert into logs select dateadd('d', 9, ts), id, host, failed, message, origin, level, code from logs",
    "alter table sensors drop partition where ts < '2024-01-02'",
    "update ledger set entry = 7 where entry > 0",
    "drop table instruments",
)


def test_files_are_read_after_the_release_as_they_were_under_the_checkpoint(tmp_path: Path) -> None:
    with reflink_folder(tmp_path, 4 << 30) as outer, QuestDBServer(outer / "root") as server:
        create_sample_tables(server, 20_000)
        store = fs_store(tmp_path)
        options = options_for(server, store)
        noted: list[dict[str, tuple[Any, ...]]] = [table_digests(server)]

        def change(_path: str) -> None:
            if len(noted) == 1:
                assert checkpoint(server) == (False, None)
                for statement in CHANGES:
                    server.execute(statement)
                settle(server)
                noted.append(table_digests(server))

        timestamps = [back_up(options, on_clone_read=change)["backup_timestamp"]]
        assert len(noted) == 2
        assert not (server.root / "backup/clones").exists()
        timestamps.append(back_up(options)["backup_timestamp"])
    for number, (timestamp, expected) in enumerate(zip(timestamps, noted, strict=True)):
        with restored(store, tmp_path / f"restored{number}", timestamp=timestamp) as server:
            assert table_digests(server) == expected
