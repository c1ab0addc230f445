"""Which chunks of a unit are stored already."""

from collections.abc import Callable, Iterator
from functools import partial

from questdb_backup import keys
from questdb_backup.errors import DamagedBackupError
from questdb_backup.leftovers import read_result
from questdb_backup.manifest import Group, read_shard
from questdb_backup.packs import ChunkRef, PackInfo
from questdb_backup.services import Services, logger
from questdb_backup.steps.run import Run
from questdb_backup.units import Unit


class KnownChunks:
    """Chunks that are stored already, by digest: the previous backup's, dead runs', the unit's own."""

    def __init__(self, services: Services, run: Run, unit: Unit) -> None:
        self._chunks: dict[str, ChunkRef] = {}
        self._packs: dict[str, PackInfo] = {}
        self.used: dict[str, PackInfo] = {}
        """Packs of dead runs that are referred to now."""
        for left, number in unit.found:
            try:
                result = read_result(services.store, run.instance, left, number)
            except DamagedBackupError as error:
                logger.warning("what a dead run stored is stored again: %s", error)
                continue
            if result is not None:
                self._packs.update(result.packs)
                # Its own packs only: what else it referred to may be gone, or never was this run's to use.
                own = keys.pack_folder(left)
                groups = (item for item in result.items if isinstance(item, Group))
                self._learn(groups, partial(_is_in, own))
        spent = frozenset(unit.spent)
        for shard in unit.base:
            try:
                self._learn(read_shard(services.store, shard), lambda pack: pack not in spent)
            except DamagedBackupError as error:
                logger.warning("its chunks are stored again: %s", error)

    def _learn(self, groups: Iterator[Group], is_usable: Callable[[str], bool]) -> None:
        for group in groups:
            for entry in group.entries:
                for chunk in entry.chunks:
                    if is_usable(chunk.pack):
                        self._chunks[chunk.digest] = chunk

    def find(self, digest: str, length: int) -> ChunkRef | None:
        """The chunk of that digest; any thread may ask."""
        chunk = self._chunks.get(digest)
        return chunk if chunk is not None and chunk.plain == length else None

    def use(self, chunk: ChunkRef) -> ChunkRef:
        """Refer to a known chunk."""
        if chunk.pack in self._packs:
            self.used[chunk.pack] = self._packs[chunk.pack]
        return chunk

    def add(self, chunk: ChunkRef) -> None:
        """A chunk that was stored now."""
        self._chunks[chunk.digest] = chunk


def _is_in(folder: str, pack: str) -> bool:
    return pack.startswith(folder)
