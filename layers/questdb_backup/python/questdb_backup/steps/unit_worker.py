"""Stores one unit: its files cut into chunks, the new ones encoded and put into packs."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from questdb_backup.chunker import WINDOW_BYTES, chunks, row_width
from questdb_backup.codec import ColumnMemory, Encoded, digest_of, encode
from questdb_backup.errors import SourceFileError, StatusUnavailableError
from questdb_backup.manifest import Entry, Group, KeptShard
from questdb_backup.packs import ChunkRef, PackWriter
from questdb_backup.services import Services, logger
from questdb_backup.shards import join_entries
from questdb_backup.source.base import EntryKind, PlannedFile, Tree
from questdb_backup.steps.known_chunks import KnownChunks
from questdb_backup.steps.run import Run
from questdb_backup.units import KeptItem, Unit, UnitFile, UnitGroup

_PROGRESS_SECONDS = 1.0
_SMALL_BYTES = 1 << 14
"""Shorter chunks are encoded at once: to hand them to another thread would cost more."""
_SHORT_HINT = "QuestDB would start on it and answer wrong, so the backup fails; check the disk of the server"


@dataclass(slots=True)
class _Slot:
    """A chunk's place in its file, filled when it is encoded."""

    work: "Future[Encoded | ChunkRef] | None"
    ref: ChunkRef | None = None


@dataclass(slots=True)
class _Block:
    """Memory that files are read into; free again when the last chunk in it is encoded."""

    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(WINDOW_BYTES)))
    last: _Slot | None = None


@dataclass(slots=True)
class _Piece:
    """A piece of a file, or a directory, and its chunks; ``gone`` where a live file has vanished."""

    file: PlannedFile
    slots: list[_Slot] = field(default_factory=list)
    gone: bool = False

    def entry(self) -> Entry:
        """What the manifest keeps of it; every slot is filled."""
        file = self.file
        refs = tuple(slot.ref for slot in self.slots if slot.ref is not None)
        size = sum(ref.plain for ref in refs)
        kind = "d" if file.kind is EntryKind.DIRECTORY else "f"
        return Entry(path=file.path, kind=kind, mode=file.mode, size=size, chunks=refs, link=file.link)


class UnitWorker:
    """Stores one unit: reads on the caller's thread, encodes on the process's pool, places in order."""

    def __init__(
        self, services: Services, run: Run, number: int, known: KnownChunks, writer: PackWriter, tree: Tree
    ) -> None:
        self._services = services
        self._run = run
        self._number = number
        self._known = known
        self._writer = writer
        self._tree = tree
        self._level = services.config.compression_level
        self._waiting: deque[_Slot] = deque()
        self._blocks = deque((_Block(), _Block()))
        self._used = 0
        self._memories: dict[tuple[str, str, str | None], ColumnMemory] = {}
        self._most_waiting = 2 * services.config.compression_threads + 1
        self._planned = 0
        self._throttled = 0.0
        self._reported_at = time.monotonic()
        self.counters = dict.fromkeys(
            (
                "bytes_read",
                "bytes_stored",
                "bytes_reused",
                "bytes_unchanged",
                "chunks",
                "chunks_reused",
                "partitions_unchanged",
            ),
            0,
        )

    def store(self, unit: Unit) -> tuple[KeptItem, ...]:
        """Store everything; give what stands for it, in order. `flush` of the writer is the caller's."""
        self._services.lower_priorities()
        done: list[KeptItem | tuple[UnitGroup, list[_Piece]]] = []
        lost: set[tuple[str, str]] = set()
        for item in unit.items:
            if not isinstance(item, UnitGroup):
                self._keep(item)
                done.append(item)
                continue
            try:
                done.append((item, [self._read(piece) for piece in item.files]))
            except SourceFileError as error:
                if not unit.settled:
                    raise
                logger.info("%s; the checkpoint will tell", error.fact)
                lost.add((item.table, item.partition))
        while self._waiting:
            self._fill(self._waiting.popleft())
        self.counters["throttled_seconds"] = round(self._throttled)
        found = (_finished(*item) if isinstance(item, tuple) else item for item in done)
        # A partition of which a part was lost is as good as none.
        return tuple(
            item
            for item in found
            if not (lost and isinstance(item, Group) and (item.table, item.partition) in lost)
        )

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

    def _keep(self, item: KeptItem) -> None:
        """Count what is carried over from the previous backup unread."""
        if isinstance(item, KeptShard):
            self.counters["partitions_unchanged"] += item.shard.groups
            self.counters["bytes_unchanged"] += item.shard.bytes
        elif isinstance(item, Group):
            self.counters["partitions_unchanged"] += 1
            self.counters["bytes_unchanged"] += sum(entry.size for entry in item.entries)

    def _read(self, piece: UnitFile) -> _Piece:
        """Read a piece and send its chunks to be encoded. Raise SourceFileError."""
        read = _Piece(piece.file)
        memory = self._memory(piece.file)
        if piece.file.kind is EntryKind.DIRECTORY:
            return read
        if piece.kept:
            self.counters["bytes_unchanged"] += sum(chunk.plain for chunk in piece.kept)
            read.slots += [_Slot(None, chunk) for chunk in piece.kept]
            return read
        try:
            for plain in self._chunks(piece):
                read.slots.append(self._submit(plain, piece.file.column_type, memory))
        except FileNotFoundError as error:
            if piece.file.required:
                raise SourceFileError(
                    f"'{piece.file.path}' is referenced by the checkpoint but missing",
                    "a restart of the server drops the checkpoint and what it kept; else its disk lost the"
                    " file. Start the backup again",
                ) from error
            read.gone = True
        except OSError as error:
            raise SourceFileError(f"'{piece.file.path}' cannot be read: {error}") from error
        self._planned += piece.bytes
        self.report()
        return read

    def _chunks(self, piece: UnitFile) -> Iterator[memoryview]:
        """The piece in chunks; raise where an exact file is shorter than its rows need."""
        file, found, end = piece.file, piece.start, piece.file.size
        if file.grows or found == end:
            size = self._tree.stat(file.path).size  # which tells where it is gone, too
            end = max(end, size) if file.grows else end
        read, width = partial(self._read_into, file.path), row_width(file.column_type)
        for plain in chunks(read, self._take, found, end, width):
            found += len(plain)
            yield plain
        if file.exact and found < file.size:
            raise SourceFileError(_too_short(file, found), _SHORT_HINT)

    def _read_into(self, path: str, offset: int, buffer: memoryview) -> int:
        """Read no faster than the throttle lets it."""
        self._throttled += self._services.throttle.take(len(buffer))
        return self._tree.read_into(path, offset, buffer)

    def _take(self, length: int) -> memoryview:
        """A buffer, in the block that is being filled or the next; what stood there is encoded by then."""
        if self._used + length > len(self._blocks[0].buffer):
            self._blocks.rotate(-1)
            self._used = 0
            last = self._blocks[0].last
            while last is not None and last.work is not None:
                self._fill(self._waiting.popleft())
        view = self._blocks[0].buffer[self._used : self._used + length]
        self._used += length
        return view

    def _memory(self, file: PlannedFile) -> ColumnMemory:
        """The column's: of its files in all partitions of a table."""
        folder, _, name = file.path.rpartition("/")
        key = (folder.partition("/")[2].partition("/")[0], name.partition(".")[0], file.column_type)
        return self._memories.setdefault(key, ColumnMemory())

    def _submit(self, plain: memoryview, column_type: str | None, memory: ColumnMemory) -> _Slot:
        self.counters["bytes_read"] += len(plain)
        self.counters["chunks"] += 1
        if len(plain) < _SMALL_BYTES:
            work: Future[Encoded | ChunkRef] = Future()
            work.set_result(self._encode(plain, column_type, memory))
        else:
            work = self._services.codec_pool.submit(self._encode, plain, column_type, memory)
        slot = self._blocks[0].last = _Slot(work)
        self._waiting.append(slot)
        if len(self._waiting) > self._most_waiting:
            self._fill(self._waiting.popleft())
        return slot

    def _encode(self, plain: memoryview, column_type: str | None, memory: ColumnMemory) -> Encoded | ChunkRef:
        digest = digest_of(plain)
        known = self._known.find(digest, len(plain))
        return known or encode(plain, self._level, digest, column_type, memory)

    def _fill(self, slot: _Slot) -> None:
        """Wait for a chunk, and place it unless it is stored already."""
        assert slot.work is not None, "a slot is filled once"
        found, slot.work = slot.work.result(), None
        counters = self.counters
        if isinstance(found, Encoded):
            twin = self._known.find(found.digest, found.plain_length)  # placed while this was encoded
            if twin is None:
                counters["bytes_stored"] += len(found.stored)
                slot.ref = self._writer.add(found)
                self._known.add(slot.ref)
                return
            found = twin
        counters["bytes_reused"] += found.plain
        counters["chunks_reused"] += 1
        slot.ref = self._known.use(found)


def _finished(group: UnitGroup, pieces: list[_Piece]) -> Group:
    entries = tuple(join_entries(piece.entry() for piece in pieces if not piece.gone))
    return Group(table=group.table, partition=group.partition, signature=group.signature, entries=entries)


def _too_short(file: PlannedFile, found: int) -> str:
    return f"'{file.path}' has {found} bytes, its rows need {file.size}"
