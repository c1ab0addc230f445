"""What a verb is to the command line."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from questdb_backup.local.options import Place
from questdb_backup.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``value`` is the verb's JSON, ``text`` what a person sees, ``code`` the exit code."""

    value: Any
    text: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One word of the command line; ``run`` and ``settings`` raise the errors of the package.

    ``settings``: those that the verb goes by, for their warnings.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Place], Outcome]
    settings: Callable[[Place], Settings] = lambda place: place.settings


def no_arguments(_parser: argparse.ArgumentParser) -> None:
    """For a verb that takes the common arguments only."""
