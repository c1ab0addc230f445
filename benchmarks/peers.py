"""The tools that are compared: how a user would call each, with its own defaults, in a fresh process."""

# ruff: noqa: D102, ARG002 - the contracts stand on the base class, which not every tool needs whole

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from benchmarks.install import BIN, MissingToolError, apt_install, cargo_install, need, said
from benchmarks.measure import stored

OURS = "questdb-backup"
LEVEL = 5
"""Of zstd: the default of `backup.compression.level`."""
RUSTIC_VERSION = "0.11.4"
_INSTALLED = str(Path(__file__).resolve().parents[1] / ".venv" / "bin" / OURS)
_PASSWORD = "benchmark"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command line with what it needs around it."""

    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class Tool(ABC):
    """One tool with one repository in ``folder``; a repetition makes a new one."""

    name: ClassVar[str]

    def __init__(self, folder: Path, server_version: str) -> None:
        self.folder = folder
        self.server_version = server_version
        self.repository = folder / "repository"
        self.backups = 0
        self.repository.mkdir(parents=True)

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """What it says of itself. Raise MissingToolError where it is not there and cannot be had."""

    @abstractmethod
    def backup(self, root: Path) -> Command:
        """Store the root as it is; the next one sees the earlier ones."""

    @abstractmethod
    def restore(self, target: Path) -> Command:
        """The latest into a folder that does not exist."""

    @abstractmethod
    def verify(self, root: Path) -> Command:
        """Read all that is stored and check it; ``root`` is what the latest was made of."""

    def prepare(self) -> None:
        """Make an empty repository; not measured."""
        return

    def stored(self) -> tuple[int, int]:
        """Bytes and objects in the repository."""
        return stored(self.repository)


class QuestDBBackup(Tool):
    """This project's command."""

    name = OURS
    executable: ClassVar[str] = _INSTALLED

    @classmethod
    def version(cls) -> str:
        if not Path(cls.executable).exists():
            raise MissingToolError(f"{cls.executable} is missing: run make setup")
        if cls.executable != _INSTALLED:
            return cls.executable
        described = said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
        return f"commit {described or 'unknown'}"

    def _command(self, *words: str) -> Command:
        store = f"fs::root={self.repository};atomic_write_dir={self.folder / 'atomic'};"
        return Command(
            words=(self.executable, *words, "--json"), environment={"QDB_BACKUP_OBJECT_STORE": store}
        )

    def backup(self, root: Path) -> Command:
        frozen = ("backup", "--frozen", "--root", str(root), "--server-version", self.server_version)
        return self._command(*frozen, "--state", str(self.folder / "state"))

    def restore(self, target: Path) -> Command:
        return self._command("restore", "--root", str(target), "--server-version", self.server_version)

    def restore_at(self, target: Path, timestamp: str) -> Command:
        """The backup of that time, not the latest."""
        command = self.restore(target)
        words = (*command.words, "--timestamp", timestamp)
        return Command(words=words, environment=command.environment)

    def verify(self, root: Path) -> Command:
        return self._command("verify", "--read-data")


class ResticFormat(Tool):
    """A program for restic's repository format; its settings are variables that begin with its name."""

    program: ClassVar[str]

    @property
    def _environment(self) -> dict[str, str]:
        prefix = self.name.upper()
        return {
            f"{prefix}_REPOSITORY": str(self.repository),
            f"{prefix}_PASSWORD": _PASSWORD,
            f"{prefix}_CACHE_DIR": str(self.folder / "cache"),
        }

    def _command(self, *words: str) -> Command:
        return Command(words=(self.program, *words), environment=self._environment)

    def prepare(self) -> None:
        subprocess.run(
            self._command("init").words,
            env={**os.environ, **self._environment},
            check=True,
            capture_output=True,
            timeout=60,
        )

    def verify(self, root: Path) -> Command:
        return self._command("check", "--read-data")


class Restic(ResticFormat):
    """The repository's defaults: format 2, zstd of its own choosing."""

    name = "restic"
    program = "restic"

    @classmethod
    def version(cls) -> str:
        if shutil.which("restic") is None:
            apt_install("restic")
        return said("restic", "version")

    def backup(self, root: Path) -> Command:
        """Under one path whatever the root is called, so that restic finds the parent by itself."""
        place = self.folder / "root"
        place.unlink(missing_ok=True)
        place.symlink_to(root)
        command = self._command("backup", ".")
        return replace(command, environment={**command.environment, "PWD": str(place)}, cwd=place)

    def restore(self, target: Path) -> Command:
        return self._command("restore", "latest", "--target", str(target))


class Rustic(ResticFormat):
    """A current program for restic's repository format, with its defaults."""

    name = "rustic"
    program = str(BIN / "rustic")

    @classmethod
    def version(cls) -> str:
        if not Path(cls.program).exists():
            cargo_install("rustic-rs", RUSTIC_VERSION)
        return said(cls.program, "--version")

    def backup(self, root: Path) -> Command:
        return self._command("backup", str(root), "--as-path", "/questdb")

    def restore(self, target: Path) -> Command:
        return self._command("restore", "latest:/questdb", str(target))


class TarZstd(Tool):
    """A new archive each time: it has no increments."""

    name = "tar+zstd"

    @classmethod
    def version(cls) -> str:
        need("tar", "zstd")
        return f"{said('tar', '--version')}; {said('zstd', '--version').strip('* ')}; level {LEVEL}"

    @property
    def _latest(self) -> Path:
        return self.repository / f"{self.backups}.tar.zst"

    @staticmethod
    def _shell(script: str, *arguments: object) -> Command:
        return Command(words=("bash", "-o", "pipefail", "-c", script, "bash", *map(str, arguments)))

    def backup(self, root: Path) -> Command:
        self.backups += 1
        return self._shell(f'tar -C "$1" -cf - . | zstd -{LEVEL} -T2 -q -o "$2"', root, self._latest)

    def restore(self, target: Path) -> Command:
        return self._shell('mkdir "$1" && zstd -dcq "$2" | tar -C "$1" -xf -', target, self._latest)

    def verify(self, root: Path) -> Command:
        """Decode all archives, whose checksums zstd compares, and read them through as tar."""
        script = 'for archive in "$1"/*; do zstd -dcq "$archive" | tar -tf - > /dev/null || exit 1; done'
        return self._shell(script, self.repository)


class Rsync(Tool):
    """A folder for each backup; what is unchanged is linked to the one before."""

    name = "rsync"

    @classmethod
    def version(cls) -> str:
        if shutil.which("rsync") is None:
            apt_install("rsync")
        return said("rsync", "--version")

    @property
    def _latest(self) -> Path:
        return self.repository / str(self.backups)

    def backup(self, root: Path) -> Command:
        link = (f"--link-dest={self._latest}",) if self.backups else ()
        self.backups += 1
        return Command(words=("rsync", "-a", *link, f"{root}/", f"{self._latest}/"))

    def restore(self, target: Path) -> Command:
        return Command(words=("rsync", "-a", f"{self._latest}/", f"{target}/"))

    def verify(self, root: Path) -> Command:
        """By content with the source; what differs is printed, which the caller takes for a failure."""
        script = (
            'differ=$(rsync -acn --delete --out-format=%n "$1/" "$2/") && echo "$differ" && test -z "$differ"'
        )
        return Command(words=("bash", "-c", script, "bash", str(root), str(self._latest)))


TOOLS: dict[str, type[Tool]] = {tool.name: tool for tool in (QuestDBBackup, Restic, Rustic, TarZstd, Rsync)}


def bytes_read(output: str) -> int | None:
    """What our backup says that it read; None for an output of another kind."""
    try:
        counters = json.loads(output)
    except ValueError:
        return None
    found = counters.get("bytes_read") if isinstance(counters, dict) else None
    return int(found) if found is not None else None
