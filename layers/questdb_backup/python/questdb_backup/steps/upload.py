"""UploadPartitions: one unit of work, its files cut into chunks, the new ones stored in packs."""

import time
from collections.abc import Iterator
from typing import Any

from questdb_backup import keys
from questdb_backup.codec import CHUNK_BYTES, digest_of, encode
from questdb_backup.errors import PermanentError, SourceFileError, StatusUnavailableError
from questdb_backup.manifest import Entry, Group, ShardRef, read_shard
from questdb_backup.packs import ChunkRef, PackWriter
from questdb_backup.services import Services, logger
from questdb_backup.source.base import EntryKind, PlannedFile, Tree
from questdb_backup.steps.run import Run, check_lease
from questdb_backup.stores.base import ObjectStore
from questdb_backup.units import UnitFile, UnitResult, decode_unit, encode_result

_PROGRESS_SECONDS = 1.0


def upload_partitions(services: Services, run: Run, item: dict[str, int], attempt: int) -> dict[str, Any]:
    """Store one unit: packs, then the result object. Gives nothing: the result is beside the data.

    Raise SourceFileError where a referenced file is missing or short, LeaseLostError where the run
    has ended meanwhile.
    """
    try:
        _upload(services, run, item, attempt)
    except PermanentError as error:
        # Step Functions tells of a failed Map only that it failed; FailBackup finds the words here.
        services.status.record_error(run.instance, run.backup_timestamp, run.token, str(error))
        raise
    return {}


def _upload(services: Services, run: Run, item: dict[str, int], attempt: int) -> None:
    check_lease(services, run)
    number = item["unit"]
    key = keys.unit(run.instance, run.backup_timestamp, number, item["attempt"])
    unit = decode_unit(services.store.get(key))
    worker = _Worker(services, run, number, attempt, _known_chunks(services.store, unit.base))
    groups = []
    for group in unit.groups:
        entries = tuple(worker.store_files(group.files))
        groups.append(
            Group(table=group.table, partition=group.partition, signature=group.signature, entries=entries)
        )
    worker.writer.flush()
    check_lease(services, run)
    result = UnitResult(
        number=number,
        attempt=attempt,
        packs=worker.writer.packs,
        counters=worker.counters,
        groups=tuple(groups),
    )
    services.store.create(
        keys.result(run.instance, run.backup_timestamp, number, attempt), encode_result(result)
    )
    worker.report(final=True)


def _known_chunks(store: ObjectStore, base: tuple[ShardRef, ...]) -> dict[str, ChunkRef]:
    """Chunks of the previous backup, by digest."""
    return {
        chunk.digest: chunk
        for shard in base
        for group in read_shard(store, shard)
        for entry in group.entries
        for chunk in entry.chunks
    }


class _Worker:
    """Stores the files of one unit, in order."""

    def __init__(
        self, services: Services, run: Run, number: int, attempt: int, known: dict[str, ChunkRef]
    ) -> None:
        self._services = services
        self._run = run
        self._number = number
        self._known = known
        self._tree: Tree = services.make_source(None).tree
        self._planned = 0
        self._reported_at = time.monotonic()
        self.counters = dict.fromkeys(
            ("files", "bytes_read", "bytes_stored", "bytes_reused", "chunks", "chunks_reused"), 0
        )
        self.writer = PackWriter(
            lambda index: keys.pack_name(run.backup_timestamp, number, attempt, index),
            lambda name, data: services.store.create(keys.pack(run.instance, name), data),
        )

    def store_files(self, pieces: tuple[UnitFile, ...]) -> Iterator[Entry]:
        """The entries of a group; a live file that has vanished is left out."""
        for piece in pieces:
            entry = self._store(piece)
            if entry is not None:
                yield entry
            self._planned += piece.file.size - piece.start
            self.report()

    def report(self, *, final: bool = False) -> None:
        """Tell the live status how far this unit is, once a second at most."""
        if not final and time.monotonic() - self._reported_at < _PROGRESS_SECONDS:
            return
        self._reported_at = time.monotonic()
        run = self._run
        try:
            self._services.status.add_done(
                run.instance, run.backup_timestamp, run.token, self._number, self._planned
            )
        except StatusUnavailableError as error:
            logger.warning("progress could not be told: %s", error)

    def _store(self, piece: UnitFile) -> Entry | None:
        file = piece.file
        if file.kind is EntryKind.DIRECTORY:
            return Entry(path=file.path, kind="d", mode=file.mode, size=0, link=file.link)
        try:
            chunks = tuple(self._chunks(piece))
        except FileNotFoundError as error:
            if not file.required:
                return None
            raise SourceFileError(
                f"'{file.path}' is referenced by the checkpoint but missing",
                "a restart of the server drops the checkpoint and what it kept; else its disk lost the file."
                " Start the backup again",
            ) from error
        except OSError as error:
            raise SourceFileError(f"'{file.path}' cannot be read: {error}") from error
        self.counters["files"] += piece.start == 0
        size = sum(chunk.plain for chunk in chunks)
        return Entry(path=file.path, kind="f", mode=file.mode, size=size, chunks=chunks, link=file.link)

    def _chunks(self, piece: UnitFile) -> Iterator[ChunkRef]:
        """Read the piece chunk by chunk; raise where an exact file is shorter than its rows need."""
        offset, end = piece.start, piece.file.size
        if offset == end:
            self._tree.stat(piece.file.path)
        while offset < end:
            want = min(CHUNK_BYTES, end - offset)
            plain = self._tree.read(piece.file.path, offset, want)
            if len(plain) < want and piece.file.exact:
                raise SourceFileError(_too_short(piece.file, offset + len(plain)), _SHORT_HINT)
            if plain:
                yield self._place(plain)
            if len(plain) < want:
                return
            offset += want

    def _place(self, plain: bytes) -> ChunkRef:
        digest = digest_of(plain)
        counters = self.counters
        counters["bytes_read"] += len(plain)
        counters["chunks"] += 1
        known = self._known.get(digest)
        if known is not None and known.plain == len(plain):
            counters["bytes_reused"] += len(plain)
            counters["chunks_reused"] += 1
            return known
        chunk = encode(plain, self._services.config.compression_level, digest)
        counters["bytes_stored"] += len(chunk.stored)
        ref = self.writer.add(chunk)
        self._known[digest] = ref
        return ref


_SHORT_HINT = "QuestDB would start on it and answer wrong, so the backup fails; check the disk of the server"


def _too_short(file: PlannedFile, found: int) -> str:
    return f"'{file.path}' has {found} bytes, its rows need {file.size}"
