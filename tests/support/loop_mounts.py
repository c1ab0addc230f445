"""Whether this host can loop-mount file systems; the tests that need it say loudly why they are skipped."""

import os
import shutil
from pathlib import Path

import pytest

_TOOLS = ("mount", "umount", "losetup", "mke2fs", "mkfs.xfs")


def lacking() -> str:
    """What this host lacks to loop-mount ext4 and XFS images; "" where it lacks nothing."""
    missing = [f"the command {tool}" for tool in _TOOLS if shutil.which(tool, path=_path()) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not Path("/dev/loop-control").exists():
        missing.append("/dev/loop-control")
    known = Path("/proc/filesystems")
    kinds = known.read_text().split() if known.exists() else []
    missing += [f"{kind} in the kernel" for kind in ("ext4", "xfs") if kind not in kinds]
    return ", ".join(missing)


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


needs_loop_mounts = pytest.mark.skipif(
    bool(lacking()), reason=f"SKIPPED, NOT TESTED: loop mounts need {lacking()}, which this host lacks"
)
