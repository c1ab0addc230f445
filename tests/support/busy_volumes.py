"""Volumes that are written to while point-in-time copies are taken, and what the kernel sees in these.

A volume is a file on a reflink XFS, itself loop-mounted. FICLONE of that file is an atomic copy of its
bytes while the writers go on: what an EBS snapshot is. The kernel that mounts a copy, and so replays
its journal, is the oracle.
"""

import errno
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from questdb_backup.source.reflink import reflink
from tests.support.volume_views import View, view_of_folder

_DAMAGE = (errno.EUCLEAN, errno.EBADMSG, errno.EIO)
_ENVIRONMENT = {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}


def run(*command: str | Path) -> None:
    """Run a command. Raise RuntimeError with its output where it fails."""
    done = subprocess.run(command, env=_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout.decode(errors='replace').strip()}")


@contextmanager
def mounted(image: Path, folder: Path, options: str = "") -> Iterator[Path]:
    """Loop-mount an image at ``folder``, which is made; unmount it, whatever happens."""
    folder.mkdir()
    run("mount", "-o", ",".join(filter(None, ("loop", options))), image, folder)
    try:
        yield folder
    finally:
        _unmount(folder)
        folder.rmdir()


def _unmount(folder: Path) -> None:
    for _ in range(50):
        with suppress(RuntimeError):
            run("umount", folder)
            return
        time.sleep(0.1)
    run("umount", "--lazy", folder)


@contextmanager
def reflink_folder(folder: Path, size: int = 2 << 30) -> Iterator[Path]:
    """A folder on a fresh XFS (a sparse image of ``size`` bytes) whose files can be cloned."""
    image = folder / "outer.img"
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.xfs", "-q", "-m", "reflink=1", image)
    try:
        with mounted(image, folder / "outer") as outer:
            yield outer
    finally:
        image.unlink()


def clone(source: Path, target: Path) -> Path:
    """Take an atomic copy of a file on a reflink file system, which shares its blocks."""
    with source.open("rb") as old, target.open("wb") as new:
        reflink(old.fileno(), new.fileno())
    return target


def view_of_kernel(image: Path, options: str = "") -> View | None:
    """What the kernel shows of a copy of the image once it has mounted it; None where it finds it damaged.

    The image lies in a `reflink_folder`. XFS needs the option ``nouuid`` while the original is mounted.
    """
    scratch = clone(image, image.with_suffix(".oracle"))
    folder = image.with_suffix(".seen")
    try:
        with mounted(scratch, folder, options):
            return view_of_folder(folder)
    except RuntimeError:
        return None
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        return None
    finally:
        scratch.unlink()
        if folder.is_dir():
            folder.rmdir()


@dataclass(kw_only=True)
class BusyVolume:
    """A mounted file system with writers on it; ``folder`` is its mount point."""

    image: Path
    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterator[int] = field(default_factory=count)

    def settle(self, files: int = 20) -> dict[str, bytes]:
        """Write files, sync(2) as CHECKPOINT CREATE does, then fsync one more: all must be in a copy."""
        number = next(self._numbers)
        chance = random.Random(number)
        folder = self.folder / f"settled{number}"
        folder.mkdir()
        written = {f"{folder.name}/{n}.d": chance.randbytes(chance.randrange(9000)) for n in range(files)}
        for name, content in written.items():
            (self.folder / name).write_bytes(content)
        os.sync()
        late = {f"{folder.name}/late.d": chance.randbytes(70000)}
        for name, content in late.items():
            _write_durably(self.folder / name, content)
        return written | late

    def snapshot(self) -> Path:
        """Take a copy of the volume as it is on disk at this moment, beside its image."""
        return clone(self.image, self.image.with_name(f"snapshot{next(self._numbers)}.img"))


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    with _opened(path.parent) as folder:
        os.fsync(folder)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def busy_volume(
    outer: Path,
    mkfs: Sequence[str],
    *,
    options: str = "",
    size: int = 200 << 20,
    fsync: bool = False,
    seed: int = 1,
) -> Iterator[BusyVolume]:
    """Make a file system with ``mkfs`` (the image's path is appended), mount it, and let writers at it.

    Args:
        outer: a `reflink_folder`.
        mkfs: the command, for example ``("mke2fs", "-q", "-t", "ext4")``.
        options: of the mount.
        size: of the image, in bytes.
        fsync: whether the writers fsync much: many small transactions, a journal that wraps around.
        seed: of what the writers do.
    """
    image = outer / "volume.img"
    with image.open("wb") as file:
        file.truncate(size)
    run(*mkfs, image)
    try:
        with mounted(image, outer / "mounted", options) as folder:
            volume = BusyVolume(image=image, folder=folder)
            with _writing(volume, fsync=fsync, seed=seed):
                yield volume
    finally:
        for file_left in outer.glob("*.img"):
            file_left.unlink()


Writer = Callable[[Path, threading.Event, random.Random, bool], None]


@contextmanager
def _writing(volume: BusyVolume, *, fsync: bool, seed: int) -> Iterator[None]:
    with ThreadPoolExecutor(len(_WRITERS)) as pool:
        running: list[Future[None]] = []
        for number, writer in enumerate(_WRITERS):
            folder = volume.folder / f"writer{number}"
            folder.mkdir()
            chance = random.Random(f"{seed}-{number}")
            running.append(pool.submit(writer, folder, volume.stop, chance, fsync))
        try:
            yield
        finally:
            volume.stop.set()
    for future in running:
        future.result()


def _write_segments(folder: Path, stop: threading.Event, chance: random.Random, fsync: bool) -> None:
    """As a WAL writer: folders of nine files, old ones are removed."""
    for number in count():
        segment = folder / f"wal{number}" / "0"
        segment.mkdir(parents=True)
        for name in range(9):
            path, content = segment / f"column{name}.d", chance.randbytes(chance.randrange(40000))
            _write_durably(path, content) if fsync else path.write_bytes(content)
            if stop.is_set():
                return
        if number >= 12:
            shutil.rmtree(folder / f"wal{number - 12}")


def _replace_files(folder: Path, stop: threading.Event, chance: random.Random, fsync: bool) -> None:
    """As one who writes beside and renames; makes and removes long listings of short-lived names too."""
    for number in count():
        if stop.is_set():
            return
        temporary = folder / "_txn.tmp"
        content = chance.randbytes(chance.randrange(200))
        _write_durably(temporary, content) if fsync else temporary.write_bytes(content)
        temporary.rename(folder / f"_txn{chance.randrange(5)}")
        listing = folder / f"partition{number % 7}"
        if listing.exists():
            shutil.rmtree(listing)
        listing.mkdir()
        for name in range(chance.randrange(120)):
            (listing / f"{name:04d}.{'k' * chance.randrange(1, 60)}").touch()


def _append_mapped(folder: Path, stop: threading.Event, chance: random.Random, fsync: bool) -> None:
    """As a column appender: the file is grown first, then written through a mapping."""
    for number in count():
        with (folder / f"column{number % 5}.d").open("wb+") as file:
            for _ in range(chance.randrange(1, 16)):
                end = file.seek(0, os.SEEK_END)
                file.truncate(end + 65536)
                with mmap.mmap(file.fileno(), 0) as mapped:
                    at = end + chance.randrange(60000)
                    mapped[at : at + 4000] = chance.randbytes(4000)
                    if fsync:
                        mapped.flush()
                if stop.is_set():
                    return
        time.sleep(0.001)


def _shuffle_files(folder: Path, stop: threading.Event, chance: random.Random, fsync: bool) -> None:
    """Files are grown, cut, reserved, written into, renamed, linked and removed."""
    while not stop.is_set():
        path, other = (folder / f"file{chance.randrange(60)}" for _ in range(2))
        with suppress(FileNotFoundError, FileExistsError):
            chance.choice(_CHANGES)(path, other, chance)
        if fsync and chance.random() < 0.3:
            with _opened(folder) as handle:
                os.fsync(handle)


def _append(path: Path, _other: Path, chance: random.Random) -> None:
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.choice((50, 3000, 90000))))


def _write_into(path: Path, _other: Path, chance: random.Random) -> None:
    with path.open("rb+") as file:
        file.seek(chance.randrange(1, 3_000_000) if chance.random() < 0.3 else chance.randrange(1, 9000))
        file.write(chance.randbytes(chance.randrange(1, 9000)))


def _cut(path: Path, _other: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(20000))


def _reserve(path: Path, _other: Path, chance: random.Random) -> None:
    with path.open("rb+") as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), chance.randrange(50000), chance.randrange(1, 200000))


def _link(path: Path, other: Path, chance: random.Random) -> None:
    if chance.random() < 0.3:
        other.hardlink_to(path)
    else:
        symlink = path.with_suffix(".link")
        symlink.unlink(missing_ok=True)
        symlink.symlink_to("y" * chance.choice((10, 59, 60, 150, 900)))


_CHANGES: tuple[Callable[[Path, Path, random.Random], object], ...] = (
    _append,
    _append,
    _write_into,
    _cut,
    _reserve,
    _link,
    lambda path, other, _: path.rename(other),
    lambda path, _, __: path.unlink(),
)
_WRITERS: tuple[Writer, ...] = (
    _write_segments,
    _write_segments,
    _replace_files,
    _append_mapped,
    _shuffle_files,
)
