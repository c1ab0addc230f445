"""The deployed files on one machine: the state machines, and the handlers by the name of their state."""

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from questdb_backup.errors import ConfigurationError
from questdb_backup.services import Services

_PLACEHOLDER = re.compile(r"\$\{(\w+)FunctionArn\}")


@dataclass(frozen=True, slots=True)
class LocalContext:
    """What a handler gets in place of Lambda's context: it carries the services."""

    services: Services
    function_name: str


def bundle_root() -> Path:
    """The folder that holds ``statemachine`` and ``functions``: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_bundle", package.parents[3]):
        if (folder / "statemachine").is_dir():
            return folder
    raise ConfigurationError(f"no state machines beside {package}", "install questdb-backup again")


@cache
def read_definition(name: str) -> dict[str, Any]:
    """``backup`` or ``restore``: the very file that is deployed."""
    path = bundle_root() / "statemachine" / f"{name}.asl.json"
    definition: dict[str, Any] = json.loads(path.read_text())
    return definition


def substitutions(definition: dict[str, Any]) -> dict[str, str]:
    """What the template puts in, for one machine: a function's ARN becomes its name."""
    names = _PLACEHOLDER.findall(json.dumps(definition))
    return {"AWS::Partition": "aws", **{f"{name}FunctionArn": name for name in names}}


def tasks(definition: dict[str, Any], services: Services) -> dict[str, Callable[[dict[str, Any]], object]]:
    """The handlers that the machine names, bound to the services.

    They are loaded here: what releases a checkpoint is there before one is made. A frozen copy comes to
    few of them and makes none, so there each is loaded when it is called.
    """
    names = set(_PLACEHOLDER.findall(json.dumps(definition)))
    if services.config.source != "frozen":
        for name in names:
            load_handler(name)
    return {name: _bind(name, LocalContext(services, name)) for name in names}


def _bind(name: str, context: LocalContext) -> Callable[[dict[str, Any]], object]:
    return lambda event: load_handler(name)(event, context)


@cache
def load_handler(name: str) -> Callable[[Any, Any], object]:
    """The handler of a state: ``AcquireLock`` is ``functions/acquire_lock/app.py``."""
    folder = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    path = bundle_root() / "functions" / folder / "app.py"
    spec = importlib.util.spec_from_file_location(f"questdb_backup_functions.{folder}", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} cannot be loaded", "install questdb-backup again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler: Callable[[Any, Any], object] = module.handler
    return handler
