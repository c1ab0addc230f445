"""What every Describe action shares: filters, pages, tags."""

import base64
import binascii
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from standin.ebs.errors import ServiceError, invalid_value

T = TypeVar("T")
Values = Callable[[T], Sequence[str]]
Ask = Mapping[str, Any]

_MOST_RESULTS = 1000
_MOST_TAGS = 50


def matches(
    item: T, filters: Sequence[Ask], fields: Mapping[str, Values[T]], tags: Mapping[str, str]
) -> bool:
    """Whether the item passes all filters; values of one are alternatives, ``*`` and ``?`` are wild.

    Raise InvalidParameterValue for a filter that the action does not have.
    """
    return all(_passes(item, each["Name"], each.get("Values", []), fields, tags) for each in filters)


def _passes(
    item: T, name: str, wanted: Sequence[str], fields: Mapping[str, Values[T]], tags: Mapping[str, str]
) -> bool:
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        found: Sequence[str] = [tags[key]] if key in tags else []
    elif name == "tag-key":
        found = list(tags)
    elif name in fields:
        found = fields[name](item)
    else:
        raise invalid_value(f"The filter '{name}' is invalid")
    return any(_matcher(pattern)(value) for value in found for pattern in wanted)


def _matcher(pattern: str) -> Callable[[str], object]:
    # EC2 has only * and ?, and \ before them: fnmatch's [ is an ordinary character.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]"))).match


def page(items: Sequence[T], ask: Ask, *, least: int = 5, ids: str = "") -> tuple[Sequence[T], str | None]:
    """The page that is asked for, and the token of the next.

    ``least`` is the smallest MaxResults; ``ids`` names the parameter that MaxResults does not go with.
    """
    size = ask.get("MaxResults")
    if size is not None and ids and ask.get(ids):
        raise ServiceError(
            "InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults"
        )
    if size is not None and size < least:
        raise invalid_value(
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting at least {least}."
        )
    start = _start(ask["NextToken"]) if ask.get("NextToken") else 0
    end = len(items) if size is None else start + min(size, _MOST_RESULTS)
    return items[start:end], _token(end) if end < len(items) else None


def _token(start: int) -> str:
    return base64.b64encode(f"from:{start}".encode()).decode()


def _start(token: str) -> int:
    try:
        text = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not re.fullmatch(r"from:\d+", text):
        raise invalid_value("Unable to parse pagination token")
    return int(text.removeprefix("from:"))


def tags_asked(ask: Ask, resource: str) -> dict[str, str]:
    """The tags of TagSpecifications, which must be for this type of resource."""
    tags: dict[str, str] = {}
    for specification in ask.get("TagSpecifications", []):
        kind = specification.get("ResourceType")
        if kind != resource:
            raise invalid_value(f"'{kind}' is not a valid taggable resource type for this operation.")
        add_tags(tags, specification.get("Tags", []))
    return tags


def add_tags(tags: dict[str, str], new: Sequence[Ask]) -> None:
    """Add or overwrite, by EC2's rules."""
    merged = tags | {each["Key"]: each.get("Value", "") for each in new}
    if any(key.startswith("aws:") for key in merged):
        raise invalid_value("Tag keys starting with 'aws:' are reserved for internal use")
    if any(len(key) > 128 or len(value) > 256 for key, value in merged.items()):
        raise invalid_value("Tag key or value exceeds the maximum length")
    if len(merged) > _MOST_TAGS:
        raise ServiceError("TagLimitExceeded", f"More than {_MOST_TAGS} tags specified")
    tags.update(merged)


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """As EC2 tells them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def check_ids(ids: Sequence[str], kind: str, code: str) -> None:
    """Raise ``code`` for an id that is not of the form ``<kind>-<hex>``."""
    for each in ids:
        if not re.fullmatch(rf"{kind}-[0-9a-f]+", each):
            raise ServiceError(code, f'Invalid id: "{each}" (expecting "{kind}-...")')
