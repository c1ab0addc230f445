"""Blocks that wait on the disk of this host until they are read again."""

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from questdb_backup.ebs.base import BLOCK_BYTES


class SpillFile:
    """Numbered slots for blocks in a file that has no name and is gone with the process.

    It is made when the first block is put, in ``folder`` (None: the host's directory for such files).
    For one thread at a time.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._free: list[int] = []
        self._slots = 0

    def put(self, data: bytes) -> int:
        """Write a block; give its slot. Raise OSError, say of a full disk: nothing is kept then."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        slot = self._free[-1] if self._free else self._slots
        at, left = slot * BLOCK_BYTES, memoryview(data)
        while left:
            written = os.pwrite(self._file.fileno(), left, at)
            at, left = at + written, left[written:]
        if self._free:
            self._free.pop()
        else:
            self._slots += 1
        return slot

    def read_into(self, slot: int, first: int, buffer: memoryview) -> None:
        """Fill the buffer from byte ``first`` of a slot's block. Raise OSError."""
        assert self._file is not None, "a slot was given"
        at = slot * BLOCK_BYTES + first
        while buffer:
            found = os.preadv(self._file.fileno(), [buffer], at)
            if not found:
                raise OSError(f"the spilled block {slot} ends {len(buffer)} bytes too early")
            at, buffer = at + found, buffer[found:]

    def free(self, slot: int) -> None:
        """Let the slot be used again."""
        self._free.append(slot)

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None
