"""ext4 images made without root, by mke2fs and debugfs, and a device on the bytes of one."""

import lzma
import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from questdb_backup.volumes.base import Node, Stretch, check_range
from questdb_backup.volumes.ext4.filesystem import Ext4FileSystem

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "filesystems"
_ENVIRONMENT = {
    **os.environ,
    "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
    "E2FSPROGS_FAKE_TIME": "1700000000",
}
_MISSING = [
    tool for tool in ("mke2fs", "debugfs", "e2fsck") if shutil.which(tool, path=_ENVIRONMENT["PATH"]) is None
]

LOGGED = b"logged, ".ljust(1024, b".")
"""A block that is in no file of the tree."""

needs_e2fsprogs = pytest.mark.skipif(
    bool(_MISSING),
    reason=f"SKIPPED, NOT TESTED: ext4 images need {', '.join(_MISSING)} of e2fsprogs, not here",
)


class BytesDevice:
    """Device on bytes in memory, parts of which may be replaced; what is read is counted and bounded."""

    def __init__(self, content: bytes, *, size: int | None = None) -> None:
        self.content = content
        self.patches: list[tuple[int, bytes]] = []
        self.bytes_read = 0
        self.reads: list[tuple[int, int]] = []
        self.most = 0
        self._size = len(content) if size is None else size

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        check_range(offset, length, self._size)
        assert length <= 1 << 20, "a read of more than a MiB"
        self.bytes_read += length
        assert not self.most or self.bytes_read <= self.most, "reads without an end"
        self.reads.append((offset, length))
        found = self.content[offset : offset + length]
        for at, patch in self.patches:
            if at < offset + length and offset < at + len(patch):
                low, high = max(at, offset), min(at + len(patch), offset + length)
                found = found[: low - offset] + patch[low - at : high - at] + found[high - offset :]
        return found

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        check_range(offset, length, self._size)
        yield Stretch(offset, length)


def fixture_bytes(name: str) -> bytes:
    """The image of a fixture."""
    return lzma.decompress((FIXTURES / f"{name}.img.xz").read_bytes())


def run_tool(*command: str | Path, may_fail: bool = False) -> str:
    """Run a tool of e2fsprogs. Raise RuntimeError with its output where it fails."""
    done = subprocess.run(command, env=_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    if done.returncode and not may_fail:
        raise RuntimeError(f"{' '.join(map(str, command))}: {output.strip()}")
    return output


def debugfs(image: Path, *requests: str) -> str:
    """Let debugfs change an image. Raise RuntimeError where a request was not understood."""
    commands = image.with_suffix(".debugfs")
    commands.write_text("".join(f"{request}\n" for request in requests))
    output = run_tool("debugfs", "-w", "-f", commands, image)
    if "nknown request" in output or "Usage" in output:
        raise RuntimeError(output)
    return output


def make_image(image: Path, tree: Path, *options: str, kind: str = "ext4", size: int = 24 << 20) -> Path:
    """Make a file system of ``size`` bytes that holds the tree."""
    with image.open("wb") as file:
        file.truncate(size)
    run_tool("mke2fs", "-q", "-F", "-t", kind, "-L", "measured", *options, "-d", tree, image)
    return image


def make_tree(folder: Path, *, holes: bool = True) -> Path:
    """A tree with everything that a reader has to tell apart, about 2 MiB of it."""
    chance = random.Random(7)
    tree = folder / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "deep" / "er" / "still").mkdir(parents=True)
    for size in (0, 1, 59, 60, 61, 140, 400, 1023, 1024, 4096, 5000, 70_000, 400_000):
        (tree / "deep" / f"{size}.d").write_bytes(chance.randbytes(size))
    many = tree / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number:03d}{'n' * chance.randrange(1, 120)}").write_bytes(chance.randbytes(number % 30))
    few = tree / "few"
    few.mkdir()
    for number in range(5):
        (few / f"file{number}").write_bytes(b"x" * number)
    for length in (1, 30, 59, 60, 61, 100, 200, 700, 1000):
        (tree / f"link{length}").symlink_to("t" * length)
    (tree / "Zeichen ä 字").write_text("umlaut")
    (Path(os.fsdecode(os.fsencode(tree) + b"/not-utf8-\xff"))).write_text("bytes")
    os.link(tree / "deep" / "5000.d", tree / "hardlink")
    os.mkfifo(tree / "pipe")
    (tree / "deep" / "400.d").chmod(0o4751)
    if holes:
        _write_sparse(tree / "sparse.d", range(3, 200, 2), 1024)
        _write_sparse(tree / "far.d", (0, 300, 70_000), 1024)
        os.truncate(tree / "deep" / "1.d", 100_000)
    return tree


def _write_sparse(path: Path, pieces: Iterable[int], width: int) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.seek(piece * width)
            file.write(bytes([piece % 255 + 1]) * width)
        file.truncate(file.tell() + 5000)


def opened(image: Path) -> Ext4FileSystem:
    return Ext4FileSystem.open(BytesDevice(image.read_bytes()))


def walk(filesystem: Ext4FileSystem, path: str) -> Node:
    node: Node | None = filesystem.root
    for name in path.split("/"):
        assert node is not None
        node = filesystem.find(node, name)
    assert node is not None
    return node


def block_of(image: Path, path: str, number: int = 0) -> int:
    return int(run_tool("debugfs", "-R", f"bmap {path} {number}", image).split()[-1])


def journaled(image: Path, opening: str, *transactions: str) -> Path:
    """Write transactions into a journal without replaying them, as an unclean stop would leave them."""
    debugfs(image, f"journal_open {opening}", *transactions, "journal_close")
    return image


def patched(image: Path, *patches: tuple[int, bytes]) -> Ext4FileSystem:
    device = BytesDevice(image.read_bytes())
    device.patches += patches
    return Ext4FileSystem.open(device)


def node_of(image: Path, path: str) -> int:
    """Offset of the first block of a file's extent tree, in an image with blocks of 1 KiB."""
    return int(run_tool("debugfs", "-R", f"stat {path}", image).split("(ETB0):")[1].split(",")[0]) * 1024
