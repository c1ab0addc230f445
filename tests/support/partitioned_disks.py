"""Disks of a host that are mounted while the server runs: a GPT partition, and LVM in one, without dm.

A linear logical volume lies in one piece, so a loop device at its offset is that volume.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.busy_volumes import run

MIB = 1 << 20
PARTITION = MIB
"""Where the first partition begins."""
FIRST_EXTENT = 2 * MIB
"""Where the first logical volume in it begins: pvcreate leaves 1 MiB for itself."""
_TOOLS = ("sgdisk", "lvm")
_missing = ", ".join(
    f"the command {tool}" for tool in _TOOLS if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin") is None
)
needs_lvm = pytest.mark.skipif(
    bool(_missing), reason=f"SKIPPED, NOT TESTED: disks with LVM need {_missing}, which this host lacks"
)


def gpt_image(image: Path, size: int) -> Path:
    """A sparse disk with one partition that takes all of it."""
    with image.open("wb") as file:
        file.truncate(size)
    run("sgdisk", "--clear", "--new", "1:2048:0", image)
    return image


def make_ext4(image: Path, offset: int, size: int) -> str:
    """Make an ext4 there; give the options that mount it."""
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", f"offset={offset}", image, str(size // 4096))
    return f"offset={offset},sizelimit={size}"


def put_volume_group(image: Path, group: str, *, size: int) -> None:
    """Make the partition a physical volume with the linear volume ``data`` of ``size`` bytes."""
    with _looped(image, PARTITION) as device:
        _lvm("pvcreate", device)
        _lvm("vgcreate", group, device)
        _lvm("lvcreate", "-an", "-Zn", "-Wn", "-L", f"{size}b", "-n", "data", group)


def _lvm(verb: str, *words: str) -> None:
    run("lvm", verb, "--driverloaded", "n", "-y", *words)


@contextmanager
def _looped(image: Path, offset: int) -> Iterator[str]:
    command = ["losetup", "-f", "--show", "-o", str(offset), str(image)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield name
    finally:
        run("losetup", "-d", name)
