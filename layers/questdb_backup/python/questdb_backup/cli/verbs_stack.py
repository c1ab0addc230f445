"""``--stack NAME``: the verbs that drive a deployed stack in place of this machine."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from questdb_backup.aws_stack import Stack
from questdb_backup.cli.render import PercentProgress, print_warnings
from questdb_backup.cli.verb import Outcome
from questdb_backup.cli.verbs_backup import abort_outcome, backup_outcome
from questdb_backup.cli.verbs_restore import restore_outcome, restore_request
from questdb_backup.cli.verbs_store import backups_outcome
from questdb_backup.clock import system_clock
from questdb_backup.errors import ConfigurationError


def run_on_stack(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Outcome:
    """Run the parsed verb on the stack of ``--stack``; result and text are those of this machine.

    Raise ConfigurationError for another verb, and for an option that is a matter of this machine.
    """
    name = arguments.verb.name
    if name not in _VERBS:
        raise ConfigurationError(
            f"--stack goes with {', '.join(_VERBS)}, not with {name}", f"run {name} without --stack"
        )
    _refuse_options_of_this_machine(arguments)
    with closing(Stack(arguments.stack)) as stack:
        return _VERBS[name](arguments, environ, stack)


def _refuse_options_of_this_machine(arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    names = ["dsn", "state", *(name for name in given if name.startswith("set:"))]
    if arguments.verb.name != "restore":
        names += ["root", "frozen", "server_version"]
    for name in names:
        if given.get(name):
            flag = name.removeprefix("set:").replace("_", "-")
            raise ConfigurationError(
                f"--{flag} does not go with --stack",
                "leave one of them out: a stack has its own settings, as parameters of its template",
            )


def _backup(arguments: argparse.Namespace, _environ: Mapping[str, str], stack: Stack) -> Outcome:
    with _left_running("backup", f"stop it with `questdb-backup abort --stack {stack.name}`"):
        execution = stack.start_backup()
        if arguments.json:
            return backup_outcome(stack.follow_backup(execution))
        with PercentProgress("backup") as bar:
            result = stack.follow_backup(execution, bar.show)
    return backup_outcome(result)


def _backups(_arguments: argparse.Namespace, _environ: Mapping[str, str], stack: Stack) -> Outcome:
    return backups_outcome(stack.backups())


def _abort(_arguments: argparse.Namespace, _environ: Mapping[str, str], stack: Stack) -> Outcome:
    answer = stack.abort("aborted by the user")
    return abort_outcome(answer["status"], answer["backup_timestamp"])


def _restore(arguments: argparse.Namespace, environ: Mapping[str, str], stack: Stack) -> Outcome:
    """``--root`` is a path below the stack's file system, or, where it has none, one of the target host."""
    request = restore_request(arguments, environ, root=arguments.root, instance=arguments.instance)
    with _left_running("restore", "stop its execution in Step Functions"):
        execution = stack.start_restore(request)
        result = stack.follow_restore(execution)
    return restore_outcome(result, dry_run=arguments.dry_run)


def _plan(_arguments: argparse.Namespace, _environ: Mapping[str, str], stack: Stack) -> Outcome:
    from questdb_backup.aws_forecast import forecast_stack, volumes_of
    from questdb_backup.cli.verbs_plan import forecast_lines

    forecast = forecast_stack(stack, system_clock(), lambda: volumes_of(stack))
    print_warnings(forecast.warnings)
    return Outcome(value=forecast.to_json(), text="\n".join(forecast_lines(forecast)))


_VERBS: dict[str, Callable[[argparse.Namespace, Mapping[str, str], Stack], Outcome]] = {
    "backup": _backup,
    "backups": _backups,
    "abort": _abort,
    "restore": _restore,
    "plan": _plan,
}


@contextmanager
def _left_running(what: str, how_to_stop: str) -> Iterator[None]:
    """Ctrl-C ends the looking on, not what is looked at."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"the {what} goes on in the stack. Hint: {how_to_stop}.", file=sys.stderr)
        raise
