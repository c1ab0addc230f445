"""EC2's query protocol, read off botocore's own model of EC2: forms to parameters, results to XML.

Only what the model names can come in or go out, by the model's names and types, so that the wire is
EC2's and a mistake in an operation shows as a TypeError here, not as a silently absent member.
"""

import functools
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import botocore.loaders
import botocore.model

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@functools.cache
def service() -> botocore.model.ServiceModel:
    """EC2 as botocore knows it."""
    loader = botocore.loaders.Loader()
    return botocore.model.ServiceModel(loader.load_service_model("ec2", "service-2"), "ec2")


def parse(action: str, form: Mapping[str, str]) -> dict[str, Any]:
    """The operation's parameters, named and typed as boto3 names them."""
    shape = service().operation_model(action).input_shape
    return _structure(shape, _tree(form)) if shape else {}


def read_form(body: bytes) -> dict[str, str]:
    """The form's fields."""
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def _tree(form: Mapping[str, str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in form.items():
        *folders, last = name.split(".")
        node = root
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value
    return root


def _structure(shape: Any, node: Mapping[str, Any]) -> dict[str, Any]:
    named = ((name, member, node.get(_query_name(name, member))) for name, member in shape.members.items())
    return {name: _value(member, sub) for name, member, sub in named if sub is not None}


def _query_name(name: str, shape: Any) -> str:
    given = shape.serialization
    if "queryName" in given:
        return str(given["queryName"])
    location = str(given.get("name", name))
    return location[0].upper() + location[1:] if "name" in given else name


def _value(shape: Any, node: Any) -> Any:
    match shape.type_name:
        case "structure":
            return _structure(shape, node)
        case "list":
            return [_value(shape.member, node[key]) for key in sorted(node, key=int)]
        case "integer" | "long":
            return int(node)
        case "boolean":
            return node == "true"
        case _:
            return node


def render(action: str, result: Mapping[str, Any], request_id: str) -> bytes:
    """The response's XML."""
    shape = service().operation_model(action).output_shape
    content = _render_members(shape, result) if shape else "<return>true</return>"
    return _document(f"{action}Response", f"<requestId>{request_id}</requestId>{content}")


def _document(root: str, content: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f'{head}<{root} xmlns="{NAMESPACE}">{content}</{root}>'.encode()


def render_error(code: str, message: str, request_id: str) -> bytes:
    """An error's XML."""
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<Response><Errors>{error}</Errors><RequestID>{request_id}</RequestID></Response>".encode()


def _render_members(shape: Any, value: Mapping[str, Any]) -> str:
    strange = value.keys() - shape.members.keys()
    if strange:
        raise TypeError(f"{shape.name} has no member {', '.join(sorted(strange))}")
    return "".join(
        _render(str(member.serialization.get("name", name)), member, value[name])
        for name, member in shape.members.items()
        if value.get(name) is not None
    )


def _render(name: str, shape: Any, value: Any) -> str:
    match shape.type_name:
        case "structure":
            content = _render_members(shape, value)
        case "list":
            item = str(shape.member.serialization.get("name", "item"))
            content = "".join(_render(item, shape.member, each) for each in value)
        case "boolean":
            content = "true" if value else "false"
        case "timestamp":
            content = _timestamp(value)
        case _:
            content = escape(str(value))
    return f"<{name}>{content}</{name}>"


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
