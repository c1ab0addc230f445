"""Find the other tools on this machine, or get them the way their users would."""

import os
import shutil
import subprocess

from benchmarks.generate import CACHE

BIN = CACHE / "bin"


class MissingToolError(RuntimeError):
    """The tool is not on this machine and could not be had; the message says why."""


def said(*command: str) -> str:
    """The first line of a command's output; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0] if done.returncode == 0 else ""


def need(*programs: str) -> None:
    """Raise MissingToolError where one is not on the PATH."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise MissingToolError(f"not on the PATH: {', '.join(missing)}")


def apt_install(package: str) -> None:
    """Debian's package; raise MissingToolError where that cannot be had."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingToolError(f"{package} is not installed; on Debian: apt-get install {package}")
    done = subprocess.run(
        ["apt-get", "install", "-y", package], capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise MissingToolError(f"apt-get install {package} failed: {done.stderr.strip()[-500:]}")


def cargo_install(crate: str, version: str) -> None:
    """Build a program into `BIN`; raise MissingToolError where that fails."""
    if shutil.which("cargo") is None:
        raise MissingToolError(f"{crate} is built with cargo, which is not on the PATH")
    print(f"building {crate} {version}; this takes minutes, once", flush=True)
    root = ("--root", str(BIN.parent))
    done = subprocess.run(
        ["cargo", "install", crate, "--version", version, "--locked", *root],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    if done.returncode:
        raise MissingToolError(f"cargo install {crate} failed: {done.stderr.strip()[-500:]}")
