"""Restore a backup with what docs/FORMAT.md says, and without the program.

    python -I by_hand.py STORE INSTANCE TIMESTAMP|latest ROOT

STORE is the folder of an ``fs`` store. Prints a JSON object with what was found: files, bytes, codecs.
"""

import json
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import zstandard
from blake3 import blake3
from pcodec import standalone

NULLS = {8: 0x7FF8000000000000, 4: 0x7FC00000}
NEGATIVE_ZEROS = {8: 1 << 63, 4: 1 << 31}


class Damaged(Exception):
    """Something is not what its digest or the format says."""


def restore(store: Path, instance: str, timestamp: str, root: Path) -> dict[str, Any]:
    """Steps 1 to 5 of "Restoring by hand"."""
    base = store / "_backup" / instance
    manifest = read_manifest(store, base, timestamp)
    names = [name for name, _, _ in manifest["packs"]]
    check_packs(base, manifest["packs"])
    codecs: Counter[str] = Counter()
    files = size = 0
    for table in manifest["tables"]:
        for shard in table["shards"]:
            used: set[str] = set()
            for line in read_shard(store, shard):
                for entry in line["entries"]:
                    size += put_entry(base, root, entry, codecs, used)
                    files += entry["kind"] == "f"
            if used != {names[place] for place, _ in shard["packs"]}:
                raise Damaged(f"{shard['key']} tells other packs than its chunks do")
    set_rebuild(root)
    (root / "_restore").touch()
    return {
        "backup_timestamp": manifest["backup_timestamp"],
        "server_version": manifest["server_version"],
        "files": files,
        "bytes": size,
        "codecs": dict(codecs),
    }


def read_manifest(store: Path, base: Path, timestamp: str) -> Any:
    """The manifest of a complete backup."""
    rows = read_sealed(base / "catalog.json")["rows"]
    complete = {
        row["backup_timestamp"]: row["manifest"] for row in rows if row["status"] == "backup complete"
    }
    ref = complete[max(complete) if timestamp == "latest" else timestamp]
    return json.loads(checked((store / ref["key"]).read_bytes(), ref["digest"]))


def read_sealed(path: Path) -> Any:
    """A document whose first line has the digest of what follows it."""
    first, _, rest = path.read_bytes().partition(b"\n")
    checked(rest, first.removeprefix(b'{"digest": "').removesuffix(b'",').decode())
    return json.loads(first + rest)


def check_packs(base: Path, packs: list[list[Any]]) -> None:
    """Size and digest of every pack."""
    for name, size, digest in packs:
        data = checked((base / "packs" / name).read_bytes(), digest)
        if len(data) != size or data[-4:] != b"QBP1":
            raise Damaged(f"pack {name} is not whole")


def read_shard(store: Path, shard: dict[str, Any]) -> list[Any]:
    """The lines of a shard."""
    plain = zstandard.ZstdDecompressor().decompress((store / shard["key"]).read_bytes())
    return [json.loads(line) for line in checked(plain, shard["digest"]).splitlines()]


def put_entry(base: Path, root: Path, entry: dict[str, Any], codecs: Counter[str], used: set[str]) -> int:
    """Make a directory or write a file; give its bytes."""
    path = root / entry["path"]
    if entry["kind"] == "d":
        path.mkdir(parents=True, exist_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for pack, offset, stored, plain, digest, codec in entry.get("chunks", []):
            codecs[codec] += 1
            data = b""
            if pack:
                used.add(pack)
                with (base / "packs" / pack).open("rb") as packed:
                    packed.seek(offset)
                    data = packed.read(stored)
            file.write(checked(decode(codec, data, plain), digest))
        size: int = file.tell()
    path.chmod(entry["mode"])
    if size != entry["size"]:
        raise Damaged(f"{entry['path']} has {size} bytes, not {entry['size']}")
    return size


def checked(data: bytes, digest: str) -> bytes:
    """The data, where its digest is this one."""
    if blake3(data).hexdigest() != digest:
        raise Damaged(f"not the bytes of {digest[:16]}")
    return data


def decode(codec: str, stored: bytes, plain: int) -> bytes:
    """The plain bytes of a chunk, as the table "Codecs" says."""
    if codec == "zero":
        return bytes(plain)
    if codec == "raw":
        return stored
    if codec == "zstd":
        return unframed(stored)
    if codec in ("zstd-shuffle4", "zstd-shuffle8", "zstd-shuffle16", "zstd-shuffle32"):
        return unshuffled(stored, int(codec.removeprefix("zstd-shuffle")))
    if codec == "pco":
        return bytes(numbers_of(stored).tobytes())
    if codec in ("pco-decimal", "zstd-shuffle-decimal"):
        return decimals(codec, stored)
    raise Damaged(f"codec {codec} is unknown")


def unframed(stored: bytes) -> bytes:
    """A Zstandard frame's content."""
    return zstandard.ZstdDecompressor().decompress(stored)


def unshuffled(stored: bytes, width: int) -> bytes:
    """First bytes, second bytes and so on, put together again."""
    return bytes(numpy.frombuffer(unframed(stored), "u1").reshape(width, -1).T.tobytes())


def numbers_of(stored: bytes) -> Any:
    """The numbers of a standalone pco file."""
    return standalone.simple_decompress(stored)


def decimals(codec: str, stored: bytes) -> bytes:
    """Floats that are integers divided by a power of ten."""
    width, exponent, lowest = struct.unpack_from("<BBq", stored)
    rest = stored[10:]
    if codec == "pco-decimal":
        numbers = numbers_of(rest)
    else:
        numbers = numpy.frombuffer(unshuffled(rest, width), f"<i{width}")
    values = (numbers / 10.0**exponent).astype(f"<f{width}")
    bits = values.view(f"<u{width}")
    bits[numbers == lowest - 1] = NULLS[width]
    bits[numbers == lowest - 2] = NEGATIVE_ZEROS[width]
    return bytes(values.tobytes())


def set_rebuild(root: Path) -> None:
    """The setting that has the server make its indexes anew."""
    conf = root / "conf" / "server.conf"
    conf.parent.mkdir(exist_ok=True)
    before = conf.read_text() if conf.exists() else ""
    conf.write_text(before + "\ncairo.checkpoint.recovery.rebuild.column.indexes=true\n")


if __name__ == "__main__":
    store, instance, timestamp, root = sys.argv[1:]
    print(json.dumps(restore(Path(store), instance, timestamp, Path(root))))
