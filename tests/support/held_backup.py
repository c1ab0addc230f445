"""The command, with workers that wait before they read.

``python -m tests.support.held_backup DIR ARGUMENTS``: they wait while ``DIR/hold`` exists; ``DIR/held-PID``
tells that one does.
"""

import os
import sys
import time
from pathlib import Path
from unittest.mock import patch

from questdb_backup.cli import main as command
from questdb_backup.local.options import Place
from questdb_backup.source.base import Source
from tests.support.live import WatchedSource

FOLDER = Path(sys.argv[1])


class HeldPlace(Place):
    """A place whose source waits."""

    def _source(self, version: str | None) -> Source:
        return WatchedSource(super()._source(version), _wait, settles=False)


def _wait(_path: str) -> None:
    if (FOLDER / "hold").exists():
        (FOLDER / f"held-{os.getpid()}").touch()
    while (FOLDER / "hold").exists():
        time.sleep(0.02)


if __name__ == "__main__":
    with patch.object(command, "Place", HeldPlace):
        sys.exit(command.main(sys.argv[2:]))
