"""What a plan out of snapshots does where those of the previous backup are not as they should be."""

from pathlib import Path
from typing import Any

import pytest

from questdb_backup.ebs import planning
from questdb_backup.ebs.base import BLOCK_BYTES, VolumeSnapshot
from questdb_backup.ebs.blocks import SnapshotDevice
from questdb_backup.ebs.root import open_server_root
from questdb_backup.ebs.unchanged import Locator
from questdb_backup.errors import SnapshotError
from questdb_backup.manifest import Entry, Group, ShardRef, TableRef
from questdb_backup.packs import ChunkRef
from questdb_backup.services import Services
from questdb_backup.source.base import EntryKind, PlannedFile, PlannedGroup
from tests.support.backups import bare_manifest, make_services
from tests.support.ext4_images import debugfs, make_image
from tests.support.memory_direct_api import MemoryDirectApi

SIZE = 1 << 20
PATH = "db/t/2024-01-01/x.d"
THEN, NOW = (
    VolumeSnapshot(volume_id="vol-1", device="/dev/sdf", snapshot_id=name) for name in ("snap-1", "snap-2")
)
SHARD = ShardRef(
    key="k", digest="d", plain_size=1, first="0001", last="0001", groups=1, files=1, bytes=SIZE, closed=True
)
FILE = PlannedFile(path=PATH, kind=EntryKind.FILE, mode=0o644, size=SIZE, exact=True)
GROUP = PlannedGroup(table="t", partition="0001", signature="new", files=(FILE,))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two server roots on one volume."""
    for name in ("a", "b"):
        file = tmp_path / "tree" / name / PATH
        file.parent.mkdir(parents=True)
        file.write_bytes(name.encode() * SIZE)
        (tmp_path / "tree" / name / ".checkpoint/db").mkdir(parents=True)
    return make_image(tmp_path / "image", tmp_path / "tree", "-O", "metadata_csum")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Services:
    """The previous backup has the file in one chunk."""
    chunk = ChunkRef("p", 0, 10, SIZE, "d", "raw")
    entry = Entry(path=PATH, kind=EntryKind.FILE, mode=0o644, size=SIZE, chunks=(chunk,))
    group = Group(table="t", partition="0001", signature="old", entries=(entry,))
    monkeypatch.setattr(planning, "read_shard", lambda _store, _shard: [group])
    return make_services()


def located(services: Services, api: MemoryDirectApi, *, then: str = "a", now: str = "a") -> Locator:
    """The plan's locator; the root was at ``then``, and is at ``now``."""
    table = TableRef(table="t", name="t", kind="wal", shards=(SHARD,))
    base = bare_manifest((table,), source="ebs", snapshots=(THEN,), server_root=then)
    devices = (SnapshotDevice(api, NOW.snapshot_id),)
    root = open_server_root([(NOW, devices[0])], server_root=now)
    return planning._locator(services, api, root, (NOW,), devices, base, frozenset())


def snapshots(image: Path, then: bytes | None = None) -> MemoryDirectApi:
    """The image as it is now, and as it was."""
    api = MemoryDirectApi()
    now = image.read_bytes()
    for known, raw in ((NOW, now), (THEN, then or now)):
        blocks = {at: raw[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] for at in range(len(raw) // BLOCK_BYTES)}
        api.add(known.snapshot_id, 1, blocks)
    return api


def kept(locator: Locator) -> list[Any]:
    return [piece.kept for piece in locator.pieces(GROUP, FILE)]


def test_what_has_not_changed_is_kept(image: Path, stored: Services) -> None:
    (chunks,) = kept(located(stored, snapshots(image)))
    assert [chunk.pack for chunk in chunks] == ["p"]


def test_a_root_that_moved_is_read_whole(image: Path, stored: Services) -> None:
    """What stands at the new place has not changed either, but it is another copy."""
    assert kept(located(stored, snapshots(image), then="a", now="b")) == [()]


def test_a_damaged_inode_of_the_base_costs_a_reading_and_no_backup(image: Path, stored: Services) -> None:
    found = debugfs(image, f"imap /a/{PATH}")  # "... located at block N, offset 0xO"
    place = found.rpartition("located at block ")[2].split(", offset ")
    then = bytearray(image.read_bytes())
    then[int(place[0]) * 1024 + int(place[1].split()[0], 16) + 0x6C] ^= 1
    assert kept(located(stored, snapshots(image, bytes(then)))) == [()]


def test_a_base_that_goes_meanwhile_costs_a_reading_and_no_backup(
    image: Path, stored: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = snapshots(image, image.read_bytes()[:-BLOCK_BYTES] + b"1" * BLOCK_BYTES)
    locator = located(stored, api)
    assert locator.base is not None

    def gone(*_: object) -> Any:
        raise SnapshotError("snap-1 was not found")

    monkeypatch.setattr(locator.base, "stat", gone)
    assert kept(locator) == [()]
    assert locator.base is None
