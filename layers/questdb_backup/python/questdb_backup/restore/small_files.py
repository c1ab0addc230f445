"""Small files in an open directory, each there whole and durable or not at all."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from questdb_backup.restore.files import names_in, wrapped

TEMPORARY = ".tmp"


class SmallFiles:
    """Reads and writes by the directory's descriptor, so that nobody can put another one in its place."""

    path: Path
    _fd: int

    def _opener(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)

    def _lines(self, name: str) -> TextIO:
        return open(name, opener=self._opener, encoding="utf-8")

    def _names(self, folder: str) -> set[str]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder, flags, dir_fd=self._fd)
        try:
            return names_in(descriptor)
        finally:
            os.close(descriptor)

    def _has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _read(self, name: str) -> str | None:
        try:
            with open(name, opener=self._opener, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _write(self, name: str, lines: Iterable[str]) -> None:
        """Write a file so that it is there whole and durable, or not at all."""
        with wrapped(f"{self.path}/{name}"):
            with open(name + TEMPORARY, "w", opener=self._opener, encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name + TEMPORARY, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            os.fsync(self._fd)

    def _unlink(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
