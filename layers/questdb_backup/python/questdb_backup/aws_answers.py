"""What a function of a stack answers to those who call it."""

import json
from typing import Any

from questdb_backup.errors import PermanentError
from questdb_backup.steps.fail import as_error


def read_answer(function: str, response: dict[str, Any]) -> Any:
    """The result of a call of Lambda's ``Invoke``.

    What the function raised is raised here, under its own class. Raise PermanentError for no JSON.
    """
    data: bytes = response["Payload"].read()
    value = parsed(data.decode(errors="replace") or "null")
    if response.get("FunctionError"):
        told = value if isinstance(value, dict) else {}
        raise as_error(
            str(told.get("errorType") or "Lambda.Unknown"),
            str(told.get("errorMessage") or f"the function {function} failed"),
        )
    return value


def parsed(text: str) -> Any:
    """The JSON that a stack answered. Raise PermanentError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise PermanentError(f"the stack answered what is no JSON: {text[:80]!r}", DEPLOY) from error


DEPLOY = "deploy questdb-backup's template of this version"
