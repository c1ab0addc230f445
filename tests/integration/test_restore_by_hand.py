"""The format's document suffices: a script that has read nothing else restores a backup."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import NewServer
from tests.support.live import PROJECT, back_up, fs_store, options_for
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import create_sample_tables, settle, table_digests

pytestmark = pytest.mark.integration

ROWS = 40_000
PRICES = (
    "create table prices as (select timestamp_sequence('2024-01-01', 3000000L) ts,"
    " rnd_symbol(40, 3, 5, 0) symbol, rnd_int(1, 99999, 0) / 100.0 bid, round(rnd_double() * 1000, 2) ask,"
    " round(rnd_float() * 10, 1)::float spread, rnd_int(1, 500, 0) * 100L size, rnd_uuid4() id,"
    " rnd_long256() hash, (x / 7)::int slow, 0 nothing, 'EUR' currency, rnd_bin(200, 400, 0) noise"
    f" from long_sequence({ROWS})), index(symbol) timestamp(ts) partition by day wal"
)
SCRIPT = PROJECT / "tests" / "support" / "by_hand.py"
_BARRED = """
import runpy, sys
sys.modules["questdb_backup"] = None
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def by_hand(*arguments: object) -> dict[str, Any]:
    """Run the script where an import of the program fails, and the environment names no path to it."""
    told = subprocess.run(
        [sys.executable, "-I", "-c", _BARRED, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={},
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert isinstance(found, dict)
    return found


def test_a_backup_is_restored_by_the_document_alone(new_server: NewServer, tmp_path: Path) -> None:
    source, store = new_server(), fs_store(tmp_path)
    create_sample_tables(source, 2000)
    source.execute(PRICES)
    settle(source)
    back_up(options_for(source, store))
    source.execute("update prices set bid = 7.25 where symbol = 'none' or ts in '2024-01-02T03'")
    source.execute("insert into prices (ts, bid) values ('2024-01-01T02:03:04.5', -0.0)")
    source.execute("update sensors set temperature = null where raw > 0")
    settle(source)
    noted = table_digests(source)
    made = back_up(options_for(source, store))
    source.stop()
    root = tmp_path / "by-hand"
    found = by_hand(tmp_path / "store" / "data", made["backup_instance_name"], "latest", root)
    assert found["backup_timestamp"] == made["backup_timestamp"]
    assert found["codecs"].keys() >= {"zero", "raw", "zstd", "pco", "zstd-shuffle16"}, found
    assert [codec for codec in found["codecs"] if codec.endswith("-decimal")], found
    with QuestDBServer(root) as server:
        settle(server)
        assert table_digests(server) == noted
