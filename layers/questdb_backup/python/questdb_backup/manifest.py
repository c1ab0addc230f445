"""Manifest and shards: the immutable description of one backup. The format stands in `docs/FORMAT.md`.

The manifest is small: it names shards. A shard holds one line per partition (or per table, for its
own files); an unchanged shard is shared by reference between backups. What is read back is hostile
input: every path and number is checked before it is used.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from questdb_backup.catalog import ManifestRef
from questdb_backup.codec import decompress_text, digest_of
from questdb_backup.ebs.base import VolumeSnapshot
from questdb_backup.errors import DamagedBackupError, ObjectNotFoundError, UnsupportedFormatError
from questdb_backup.packs import ChunkRef, PackInfo
from questdb_backup.stores.base import ObjectStore

FORMAT = 1
_HINT = "an older backup may be whole: `questdb-backup check` tells, `restore --timestamp` takes it"
_SHARD_LIMIT = 1 << 30  # bytes of a shard's lines that are ever decompressed


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored file or directory; ``link`` tells what symlink it stood behind (information only)."""

    path: str
    kind: str
    mode: int
    size: int
    chunks: tuple[ChunkRef, ...] = ()
    link: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A line of a shard: the entries of one partition, or of a table's or the root's own files."""

    table: str
    partition: str
    signature: str | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRef:
    """A shard as a manifest names it; ``digest`` and ``plain_size`` are of its uncompressed lines.

    ``packs``: how many stored bytes of each pack the shard refers to, so that nobody has to read a shard
    to know what it needs. ``groups`` is the number of its lines, ``signatures`` their `fold_signatures`
    (None where a group has none). ``closed``: what follows in the table never joins this shard.
    """

    key: str
    digest: str
    plain_size: int
    first: str
    last: str
    groups: int
    files: int
    bytes: int
    closed: bool
    signatures: str | None = None
    packs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptShard:
    """A shard of the previous backup that holds as it is: it stands for its groups."""

    table: str
    shard: ShardRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRef:
    """A table of a backup; the table "" holds the root's own files."""

    table: str
    name: str
    kind: str
    shards: tuple[ShardRef, ...]
    last_txn: int | None = None
    txnlog_record: str | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The root of one backup; its bytes are a pure function of what the run recorded."""

    backup_timestamp: str
    backup_instance_name: str
    token: int
    source: str
    server_version: str | None
    data_id: str | None
    checkpoint_started_at: str | None
    previous: str | None
    tables: tuple[TableRef, ...]
    packs: dict[str, PackInfo]
    counters: dict[str, float] = field(default_factory=dict)
    snapshots: tuple[VolumeSnapshot, ...] = ()
    """The EBS snapshots that it was read from; none of another source."""
    server_root: str | None = None
    """Where the root was found in them: its path inside its file system."""


def fold_signatures(groups: Iterable[tuple[str, str | None]]) -> str | None:
    """One text for the partitions and signatures of a shard; None where any has no signature."""
    lines = []
    for partition, signature in groups:
        if signature is None:
            return None
        lines.append(f"{partition} {signature}\n")
    return digest_of("".join(lines).encode())


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest object; shards name packs by their place in its list of packs."""
    value = {"format": FORMAT, **asdict(manifest)}
    value["packs"] = [[name, info.size, info.digest] for name, info in manifest.packs.items()]
    places = {name: place for place, name in enumerate(manifest.packs)}
    for table in value["tables"]:
        for shard in table["shards"]:
            shard["packs"] = [[places[name], size] for name, size in shard["packs"].items()]
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def decode_manifest(data: bytes, key: str) -> Manifest:
    """The inverse. Raise DamagedBackupError naming the key, UnsupportedFormatError for a newer format."""
    try:
        value: dict[str, Any] = json.loads(data)
        if value.pop("format") > FORMAT:
            raise UnsupportedFormatError(
                f"{key} has a newer format than this version reads", "use a newer questdb-backup"
            )
        packs = {str(name): PackInfo(int(size), str(digest)) for name, size, digest in value.pop("packs")}
        names = tuple(packs)
        tables = tuple(_table_from_json(table, names) for table in value.pop("tables"))
        snapshots = tuple(map(VolumeSnapshot.from_json, value.pop("snapshots")))
        return Manifest(tables=tables, packs=packs, snapshots=snapshots, **value)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedBackupError(f"manifest {key} cannot be read: {error!r}") from error


def _table_from_json(value: dict[str, Any], names: tuple[str, ...]) -> TableRef:
    shards = tuple(
        ShardRef(**{**shard, "packs": {names[_place(place)]: int(size) for place, size in shard["packs"]}})
        for shard in value["shards"]
    )
    return TableRef(**{**value, "shards": shards})


def _place(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no place in a list")
    return value


def read_manifest(store: ObjectStore, ref: ManifestRef) -> Manifest:
    """A listed manifest, its digest compared. Raise DamagedBackupError, naming the object."""
    try:
        data = store.get(ref.key)
    except ObjectNotFoundError as error:
        raise DamagedBackupError(f"manifest {ref.key} is missing from {store.location}", _HINT) from error
    if digest_of(data) != ref.digest:
        raise DamagedBackupError(f"manifest {ref.key} does not match its digest in the catalog", _HINT)
    return decode_manifest(data, ref.key)


def encode_group(group: Group) -> bytes:
    """A line of a shard or of a result object, with its newline."""
    value: dict[str, Any] = {
        "table": group.table,
        "partition": group.partition,
        "signature": group.signature,
        "entries": [_entry_to_json(entry) for entry in group.entries],
    }
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {"path": entry.path, "kind": entry.kind, "mode": entry.mode, "size": entry.size}
    if entry.chunks:
        value["chunks"] = entry.chunks
    if entry.link is not None:
        value["link"] = entry.link
    return value


def decode_group(line: bytes) -> Group:
    """The inverse of `encode_group`, checked. Raise DamagedBackupError."""
    try:
        return group_from_json(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise DamagedBackupError(f"a shard's line cannot be read: {error!r}") from error


def group_from_json(value: Any) -> Group:
    """A parsed line of a shard, checked. Raise DamagedBackupError."""
    try:
        return Group(
            table=_text(value["table"]),
            partition=_text(value["partition"]),
            signature=value["signature"],
            entries=tuple(_entry_from_json(entry) for entry in value["entries"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedBackupError(f"a shard's line cannot be read: {error!r}") from error


def _entry_from_json(value: dict[str, Any]) -> Entry:
    chunks = tuple(map(ChunkRef.from_json, value.get("chunks", ())))
    entry = Entry(
        path=safe_path(_text(value["path"])),
        kind=value["kind"],
        mode=int(value["mode"]) & 0o777,
        size=int(value["size"]),
        chunks=chunks,
        link=value.get("link"),
    )
    if entry.kind not in ("f", "d"):
        raise DamagedBackupError(
            f"'{entry.path}' has the kind {entry.kind!r}: only files and directories are stored"
        )
    if sum([chunk.plain for chunk in chunks]) != entry.size:
        raise DamagedBackupError(f"the chunks of '{entry.path}' do not add up to its {entry.size} bytes")
    return entry


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


_PART = r"(?!\.{1,2}(?:/|\Z))[!-.0-~]{1,255}"
_PLAIN_PATH = re.compile(rf"{_PART}(?:/{_PART})*").fullmatch
"""Nearly every path, at a fifth of the cost: safe, and of letters that have one byte."""


def safe_path(path: str) -> str:
    """The path, where it is relative and stays below the root.

    Raise DamagedBackupError for an absolute path, an empty, ``.`` or ``..`` part, a NUL, a part of
    more than 255 bytes.
    """
    if _PLAIN_PATH(path):
        return path
    parts = path.split("/")
    if "\0" in path or any(
        part in ("", ".", "..") or len(part.encode(errors="surrogateescape")) > 255 for part in parts
    ):
        raise DamagedBackupError(
            f"the manifest names the unsafe path {path[:120]!r}",
            "the backup is damaged or was tampered with; nothing was written",
        )
    return path


def read_shard(store: ObjectStore, shard: ShardRef) -> Iterator[Group]:
    """The lines of a shard, its digest compared first. Raise DamagedBackupError, naming the object."""
    try:
        plain = decompress_text(store.get(shard.key), limit=min(shard.plain_size, _SHARD_LIMIT))
    except ObjectNotFoundError as error:
        raise DamagedBackupError(f"shard {shard.key} is missing from {store.location}", _HINT) from error
    except DamagedBackupError as error:
        raise DamagedBackupError(f"shard {shard.key}: {error.fact}") from error
    if digest_of(plain) != shard.digest:
        raise DamagedBackupError(f"shard {shard.key} does not match its digest in the manifest", _HINT)
    for line in plain.splitlines(keepends=True):
        yield decode_group(line)
