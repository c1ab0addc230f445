"""The trigger file ``_backup_restore`` of QuestDB Enterprise: what to restore on the next start."""

from dataclasses import dataclass, field
from difflib import get_close_matches

from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.errors import ConfigurationError
from questdb_backup.instance_name import is_instance_name
from questdb_backup.properties import parse_properties
from questdb_backup.settings import Settings

FILE_NAME = "_backup_restore"
_OBJECT_STORE = "backup.object.store"
_INSTANCE_NAME = "backup.instance.name"
_TIMESTAMP = "backup.restore.timestamp"
_KNOWN = (_OBJECT_STORE, _INSTANCE_NAME, _TIMESTAMP)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreTrigger:
    """What the file asks for; None: the only instance of the store, the latest backup."""

    object_store: str = field(repr=False)
    """The connection string; it may hold secrets."""
    instance_name: str | None = None
    restore_timestamp: str | None = None


def parse_restore_trigger(text: str, settings: Settings) -> RestoreTrigger:
    """Read the file's text; an object store that it does not name is the one of the settings.

    Raise ConfigurationError for any other property, for a value that cannot be, and where neither
    names an object store.
    """
    properties = parse_properties(text)
    for name in properties:
        if name not in _KNOWN:
            near = get_close_matches(name, _KNOWN, n=1)
            known = f"the nearest known name is {near[0]}" if near else f"it may hold {', '.join(_KNOWN)}"
            raise ConfigurationError(f"{FILE_NAME} has an unknown property {name}", known)
    return RestoreTrigger(
        object_store=properties.get(_OBJECT_STORE) or settings.require_object_store(),
        instance_name=_instance_name(properties.get(_INSTANCE_NAME)),
        restore_timestamp=_timestamp(properties.get(_TIMESTAMP)),
    )


def _instance_name(value: str | None) -> str | None:
    if not value:
        return None
    if not is_instance_name(value):
        raise ConfigurationError(
            f"{_INSTANCE_NAME}={value} (from {FILE_NAME}) is not a backup instance name",
            "it is three words like gentle-forest-orchid",
        )
    return value


def _timestamp(value: str | None) -> str | None:
    if not value:
        return None
    try:
        return format_timestamp(parse_timestamp(value))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{_TIMESTAMP}={value} (from {FILE_NAME}): {error.fact}", error.hint
        ) from None
