"""The size limit of a payload, and copies through JSON: what the service's boundaries do to a value."""

import json

from questdb_backup.engine.errors import DATA_LIMIT_EXCEEDED, StateError, marshal_error

PAYLOAD_LIMIT = 262_144
"""Bytes of UTF-8 JSON that a state's input or output, a task's input or result may have."""


def encode(value: object, errors: str = "strict") -> bytes:
    """Compact UTF-8 JSON. Raise TypeError or ValueError where the value is none."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", errors
    )


def check_size(value: object, what: str) -> bytes:
    """The value's JSON. Raise StateError ``States.DataLimitExceeded`` where it is over the limit.

    Args:
        value: A JSON value.
        what: Whose payload it is, for the cause: ``The state/task 'X' returned a result``.
    """
    # Half of a surrogate pair is legal in JSON that escapes it, and can come in by an ItemReader.
    return _checked(encode(value, "surrogatepass"), what)


def _checked(data: bytes, what: str) -> bytes:
    if len(data) > PAYLOAD_LIMIT:
        raise StateError(
            DATA_LIMIT_EXCEEDED, f"{what} with a size exceeding the maximum number of bytes service limit."
        )
    return data


def marshal_result(value: object, what: str) -> object:
    """A handler's result as the service reads it: tuples are lists, keys are text.

    Raise StateError ``Runtime.MarshalError`` where it is not JSON, ``States.DataLimitExceeded`` where it is
    over the limit.
    """
    try:
        data = encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise marshal_error(error) from error
    return json.loads(_checked(data, what))
