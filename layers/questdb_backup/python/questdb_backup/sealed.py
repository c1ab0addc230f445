"""The two JSON objects that are ever replaced, each with a digest of its own in its first line.

A digest of the other objects stands in what refers to them; nothing refers to these. The bytes are
``{"digest": "<BLAKE3 of all that follows this line>",``, a line break, and the rest of the JSON object.
"""

import json
from typing import Any

from blake3 import blake3

from questdb_backup.errors import DamagedBackupError, UnsupportedFormatError

FORMAT = 1
_HINT = (
    "put its older version back, where the store keeps versions, or make it anew from the manifests:"
    " `questdb-backup check --rebuild --dry-run` shows what can be had"
)


def seal(value: dict[str, Any]) -> bytes:
    """The bytes of a JSON object that has no ``digest`` yet."""
    text = json.dumps({"format": FORMAT, **value}, indent=1, sort_keys=True)
    return _sealed(text.removeprefix("{\n").encode() + b"\n")


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The inverse, without ``digest`` and ``format``; ``name`` is for messages.

    Raise DamagedBackupError, UnsupportedFormatError for a newer format.
    """
    try:
        if data != _sealed(_body(data)):
            raise DamagedBackupError(f"{name} cannot be read: its bytes are not those of its digest", _HINT)
        value: dict[str, Any] = json.loads(data)
        newer = value.pop("format") > FORMAT
        del value["digest"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(name, error) from error
    if newer:
        raise UnsupportedFormatError(
            f"{name} has a newer format than this version reads", "use a newer questdb-backup"
        )
    return value


def damaged(name: str, error: Exception) -> DamagedBackupError:
    """The error for a document whose content is not what it should be."""
    return DamagedBackupError(f"{name} cannot be read: {error!r}", _HINT)


def in_other_bytes(data: bytes) -> bytes:
    """The same document, sealed too, in bytes that are not equal."""
    return _sealed(_body(data) + b" ")


def _sealed(body: bytes) -> bytes:
    return b'{"digest": "%s",\n%s' % (blake3(body).hexdigest().encode(), body)


def _body(data: bytes) -> bytes:
    return data.partition(b"\n")[2]
