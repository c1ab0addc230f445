"""A chain of backups of a database that is written to, with what each of them has to hold."""

from dataclasses import dataclass, field
from typing import Any

from questdb_backup import keys
from questdb_backup.local.options import Options
from questdb_backup.manifest import read_manifest
from tests.support.live import back_up, catalog_of, prune, store_of
from tests.support.questdb_server import QuestDBServer
from tests.support.sample_data import Writer, settle, table_digests

PRICES = (
    "create table prices as (select timestamp_sequence('2024-01-01', 60000000L) ts,"
    " rnd_symbol(30, 3, 5, 1) symbol, round(rnd_double() * 1000, 2) price, rnd_int(1, 500, 1) size,"
    " rnd_double(2) exact, rnd_long() big, rnd_uuid4() id, rnd_varchar(1, 40, 2) note"
    " from long_sequence(5760)), index(symbol) timestamp(ts) partition by day wal"
)


@dataclass(kw_only=True)
class Chain:
    """Backups of one server by ``options``; ``noted`` is what it held at each checkpoint."""

    server: QuestDBServer
    options: Options
    noted: dict[str, dict[str, tuple[Any, ...]]] = field(default_factory=dict)

    def add(self, statements: list[str]) -> dict[str, Any]:
        """Write, back up while others write, prune; give the backup's output.

        Nobody writes between the checkpoint and the look at what it holds.
        """
        held: dict[str, tuple[Any, ...]] = {}
        seed = 2 * len(self.noted)
        earlier, during = (Writer(self.server, seed=seed + n, pause_seconds=0.05) for n in (0, 1))

        def rest() -> None:
            earlier.wait_batches(4)
            earlier.stop()
            settle(self.server)

        def note() -> None:
            held.update(table_digests(self.server))
            during.start()
            during.wait_batches(2)

        for statement in statements:
            self.server.execute(statement)
        earlier.start()
        try:
            made = back_up(self.options, before=rest, after=note)
        finally:
            for writer in (earlier, during):
                if writer.ident is not None:
                    writer.stop()
        assert (earlier.failure, during.failure) == (None, None)
        self.noted[made["backup_timestamp"]] = held
        assert prune(self.options)["errors"] == []
        return made

    def left(self) -> list[str]:
        """The backups that retention left, oldest first."""
        return [row.backup_timestamp for row in catalog_of(self.options).complete_rows()]

    def needed(self) -> set[str]:
        """The keys that the listed manifests need, and the catalog's."""
        objects, catalog = store_of(self.options), catalog_of(self.options)
        wanted = {keys.catalog(catalog.instance)}
        for ref in (row.manifest for row in catalog.complete_rows()):
            assert ref is not None
            manifest = read_manifest(objects, ref)
            wanted |= {ref.key, *(keys.pack(catalog.instance, name) for name in manifest.packs)}
            wanted |= {shard.key for table in manifest.tables for shard in table.shards}
        return wanted

    def stored(self) -> set[str]:
        """The keys that are there."""
        instance = catalog_of(self.options).instance
        return {info.key for info in store_of(self.options).list(keys.instance_prefix(instance))}
