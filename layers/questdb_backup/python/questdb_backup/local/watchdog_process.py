"""What the watchdog's process runs: it waits on its pipe, see `watchdog`.

Little is imported before it waits: a run that is over soon does not pay for a second copy of the program.
In a longer one the rest is loaded while nothing is wrong, not when something is.
"""

import importlib
import select
import sys

DONE = b"done\n"
"""What a run that has ended well says."""

_SOON_SECONDS = 1.0


def main() -> int:
    """Entry point of the process; give its exit code."""
    # unbuffered: `select` must see every byte that was not read yet
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        options = pipe.readline()
        if not select.select([pipe], [], [], _SOON_SECONDS)[0]:
            importlib.import_module("questdb_backup.local.watchdog")
        if pipe.readline() == DONE:
            return 0
    from questdb_backup.local.watchdog import end_dead_run

    return end_dead_run(options)


if __name__ == "__main__":
    sys.exit(main())
