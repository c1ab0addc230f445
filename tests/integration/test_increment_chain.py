"""Ten backups in a row of a database that is written to all the time, old ones pruned in between."""

from pathlib import Path

import pytest

from tests.integration.conftest import NewServer
from tests.support.chains import PRICES, Chain
from tests.support.live import command, fs_store, options_for, restored
from tests.support.s3_server import S3Server
from tests.support.sample_data import create_sample_tables, settle, table_digests

pytestmark = pytest.mark.integration

KEEP = 3
REST = "symbol, price, size, exact, big, id, note"
INCREMENTS = [
    [],
    [f"insert into prices select dateadd('d', 4, ts), {REST} from prices"],
    [f"insert into prices select dateadd('s', 30, ts), {REST} from prices limit 9"],
    [
        "update prices set price = 12.5 where ts in '2024-01-02'",
        "update ledger set entry = 7 where entry > 0",
    ],
    [],
    ["alter table prices drop partition list '2024-01-03'", "alter table prices add column more double"],
    ["update prices set more = rnd_double() where ts in '2024-01-06'", "drop table instruments"],
    ["truncate table logs", "alter table prices alter column size type long"],
    ["insert into logs select ts, rnd_uuid4(), null, true, 'm', null, 'c', 1 from trades limit 700"],
    ["alter table prices squash partitions", "rename table ledger to books"],
]


@pytest.fixture(params=["fs", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> str:
    if request.param == "fs":
        return fs_store(tmp_path)
    return s3_server.connection_string(s3_server.create_bucket("increments"), root="a/b")


def test_the_oldest_and_the_newest_backup_of_a_chain_hold_what_their_checkpoints_did(
    new_server: NewServer, store: str, tmp_path: Path
) -> None:
    source = new_server(env={"QDB_DEV_MODE_ENABLED": "true"})
    create_sample_tables(source, 2000)
    source.execute(PRICES)
    chain = Chain(server=source, options=options_for(source, store, keep=KEEP))
    for number, statements in enumerate(INCREMENTS, 1):
        chain.add(statements)
        assert chain.left() == list(chain.noted)[-KEEP:]
        if number % 3 == 0 or number == len(INCREMENTS):
            assert_restored(chain, store, tmp_path / f"after-{number}")
    assert chain.stored() == chain.needed()
    told = command("verify", "--read-data", store=store)
    assert told.returncode == 0, told.stdout


def assert_restored(chain: Chain, store: str, folder: Path) -> None:
    """The oldest and the newest backup that are left start as they were."""
    left = chain.left()
    folder.mkdir()
    for timestamp in (left[0], left[-1]):
        with restored(store, folder / timestamp, timestamp=timestamp) as server:
            settle(server)
            assert table_digests(server) == chain.noted[timestamp]
