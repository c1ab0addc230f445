"""``questdb-backup``: parses, runs one verb, prints its result or its error.

Exit code 0: done. 1: failed, or problems were found. 2: wrong usage or configuration.
"""

import argparse
import importlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from questdb_backup import __version__
from questdb_backup.cli.render import WarningLines, print_error, print_warnings
from questdb_backup.cli.verb import Verb
from questdb_backup.errors import BackupToolError, ConfigurationError
from questdb_backup.local.memory import set_up_memory
from questdb_backup.local.options import Options, Place
from questdb_backup.settings import PROPERTIES

_MODULES = {
    "questdb_backup.cli.verbs_backup": ("backup", "abort", "guard"),
    "questdb_backup.cli.verbs_store": ("backups", "prune", "verify"),
    "questdb_backup.cli.verbs_restore": ("restore", "restore-on-start"),
    "questdb_backup.cli.verbs_serve": ("serve",),
    "questdb_backup.cli.verbs_check": ("check",),
    "questdb_backup.cli.verbs_plan": ("plan",),
    "questdb_backup.cli.verbs_volume": ("probe-volume",),
}
"""Where each verb is: only the one that is asked for is imported, a backup is to begin at once."""
_RESTORE_ONLY = ("restore-timestamp",)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, _interrupt)
    _print_any_name()
    set_up_memory()
    WarningLines.install()
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = build_parser(words[0] if words else None).parse_args(words)
        code = run(arguments, os.environ)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    if argv is None:
        _leave(code)
    return code


def _print_any_name() -> None:
    """A table may be named by what the terminal has no letters for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> NoReturn:
    """End the process at once: to take the interpreter apart is a twentieth of a small backup's time."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the parsed verb; give the exit code."""
    verb: Verb = arguments.verb
    try:
        if arguments.stack is not None:
            from questdb_backup.cli import verbs_stack

            outcome = verbs_stack.run_on_stack(arguments, environ)
        else:
            place = Place(_options(arguments), environ)
            print_warnings(verb.settings(place).warnings)
            outcome = verb.run(arguments, place)
    except ConfigurationError as error:
        print_error(error)
        return 2
    except BackupToolError as error:
        print_error(error)
        return 1
    if arguments.json:
        json.dump(outcome.value, sys.stdout, default=str)
        print()
    elif outcome.text:
        print(outcome.text)
    return outcome.code


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a verb as Ctrl-C does: the checkpoint is released first."""
    raise KeyboardInterrupt


def load_verbs(name: str | None = None) -> tuple[Verb, ...]:
    """The verb of that name; all of them where there is none."""
    modules = [module for module, names in _MODULES.items() if name in names]
    verbs = [verb for module in modules or _MODULES for verb in importlib.import_module(module).VERBS]
    return tuple(verb for verb in verbs if not modules or verb.name == name)


def build_parser(verb_name: str | None = None) -> argparse.ArgumentParser:
    """The parser of the verb that is named; of all verbs where it is none of them."""
    parser = argparse.ArgumentParser(
        prog="questdb-backup", description="Backup and restore for QuestDB OSS.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"questdb-backup {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in load_verbs(verb_name):
        child = verbs.add_parser(verb.name, help=verb.help, description=verb.help, allow_abbrev=False)
        child.set_defaults(verb=verb)
        _add_common(child)
        verb.configure(child)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON value on stdout")
    parser.add_argument("--root", metavar="DIR", help="QuestDB's root directory, the one given with -d")
    parser.add_argument("--dsn", metavar="TEXT", help="libpq connection string of the server")
    parser.add_argument("--state", metavar="DIR", help="where the live status is kept (default ROOT/backup)")
    parser.add_argument(
        "--stack", metavar="NAME", help="drive this deployed stack (backup, backups, abort, restore, plan)"
    )
    settings = parser.add_argument_group("settings (also QDB_BACKUP_..., conf/backup.conf, conf/server.conf)")
    for known in PROPERTIES:
        if known.flag not in _RESTORE_ONLY:
            settings.add_argument(
                f"--{known.flag}", dest=f"set:{known.flag}", metavar="VALUE", help=known.name
            )


def _options(arguments: argparse.Namespace) -> Options:
    values: dict[str, Any] = vars(arguments)
    return Options(
        root=arguments.root,
        source="frozen" if values.get("frozen") else "path",
        dsn=arguments.dsn,
        state=arguments.state,
        server_version=values.get("server_version"),
        grace_hours=values.get("grace_hours"),
        flags={name.removeprefix("set:"): value for name, value in values.items() if name.startswith("set:")},
    )


if __name__ == "__main__":
    sys.exit(main())
