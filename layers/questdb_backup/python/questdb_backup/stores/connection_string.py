"""The value of ``backup.object.store``: ``scheme::name=value;name=value;``, as QuestDB Enterprise writes it.

    s3::bucket=backups;root=prod;region=eu-central-1;access_key_id=...;secret_access_key=...;
    fs::root=/mnt/backups;atomic_write_dir=/mnt/backups/atomic;

Parsing is pure: nothing is opened or created. Secrets stand in `to_text` alone: not in a repr, not in an
error. A value cannot hold ``;``, and spaces around names and values are dropped.
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NoReturn
from urllib.parse import urlsplit

from questdb_backup.errors import ConfigurationError

_OPTIONS = {
    "s3": ("bucket", "root", "region", "access_key_id", "secret_access_key", "endpoint"),
    "fs": ("root", "atomic_write_dir"),
}
_LATER = ("azblob", "gcs")
_SETTING = "backup.object.store"
# A part that looks otherwise is never printed: it may be the rest of a secret that holds a ';'.
_OPTION_NAME = re.compile(r"[a-z]{1,20}(_[a-z]{1,20}){0,3}", re.ASCII)
_SCHEME = re.compile(r"[a-z][a-z0-9]{0,15}", re.ASCII)
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_SECRET = re.compile(r"\b(access_key_id|secret_access_key|account_key|credential|token)\s*=[^;\n]*")
_USERINFO = re.compile(r"://[^/@\s;]*@")


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Location:
    """A bucket, or a part of one, on S3 or on a server that speaks its protocol.

    ``root`` has no ``/`` at its ends and may be empty. No ``region``, no keys: the AWS SDK's own chain
    (environment, profile, instance role) finds them. No ``endpoint``: AWS.
    """

    bucket: str
    root: str = ""
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    endpoint: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FsLocation:
    """A folder, and the folder on the same mount where files are made before they appear in it."""

    root: str
    atomic_write_dir: str


Location = S3Location | FsLocation


def parse_connection_string(text: str) -> Location:
    """The location that the text names. Raise ConfigurationError, which names the part that is wrong."""
    scheme, separator, rest = text.strip().partition("::")
    if not separator:
        _fail(f"{_SETTING} has no scheme", "write s3::bucket=...; or fs::root=...;atomic_write_dir=...;")
    if scheme in _LATER:
        _fail(f"{_SETTING}: the scheme '{scheme}' is not supported yet", "use s3 or fs")
    if scheme not in _OPTIONS:
        shown = f" '{scheme}'" if _SCHEME.fullmatch(scheme) else ""
        _fail(f"{_SETTING}: unknown scheme{shown}", "use s3 or fs, followed by '::'")
    options = _split(scheme, rest)
    return _s3(options) if scheme == "s3" else _fs(options)


def to_text(location: Location) -> str:
    """The connection string that parses to this location. It holds the secrets: never print it."""
    scheme = "s3" if isinstance(location, S3Location) else "fs"
    values = ((name, getattr(location, name)) for name in _OPTIONS[scheme])
    return f"{scheme}::" + "".join(f"{name}={value};" for name, value in values if value)


def redact(text: str) -> str:
    """The text without the secrets of any connection string in it, for messages and logs."""
    return _USERINFO.sub("://***@", _SECRET.sub(r"\1=***", text))


def _split(scheme: str, rest: str) -> dict[str, str]:
    known = _OPTIONS[scheme]
    options: dict[str, str] = {}
    for number, part in enumerate(rest.split(";"), start=1):
        if not part.strip():
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        shown = f"'{name}'" if _OPTION_NAME.fullmatch(name) else f"number {number}"
        if not equals:
            _fail(f"{_SETTING}: parameter {shown} has no '='", "write name=value; a value cannot hold ';'")
        if name not in known:
            _fail(f"{_SETTING}: unknown option {shown} for {scheme}", f"known are {', '.join(known)}")
        if name in options:
            _fail(f"{_SETTING}: option {shown} is given twice", "leave one")
        options[name] = value
    return {name: value for name, value in options.items() if value}


def _s3(options: dict[str, str]) -> S3Location:
    bucket = _required("s3", options, "bucket")
    if not _BUCKET.fullmatch(bucket):
        _fail(f"{_SETTING}: '{bucket}' is not a bucket's name", "a folder inside the bucket is option root")
    for given, other in (("access_key_id", "secret_access_key"), ("secret_access_key", "access_key_id")):
        if given in options and other not in options:
            _fail(
                f"{_SETTING}: option '{other}' is missing beside '{given}'",
                "give both, or neither to use the environment's or the instance's role",
            )
    return S3Location(
        bucket=bucket,
        root=_s3_root(options.get("root", "")),
        region=options.get("region"),
        access_key_id=options.get("access_key_id"),
        secret_access_key=options.get("secret_access_key"),
        endpoint=_endpoint(options["endpoint"]) if "endpoint" in options else None,
    )


def _fs(options: dict[str, str]) -> FsLocation:
    root = _absolute("root", _required("fs", options, "root"))
    atomic = _absolute("atomic_write_dir", _required("fs", options, "atomic_write_dir"))
    if root == atomic or atomic in root.parents:
        _fail(
            f"{_SETTING}: root '{root}' is atomic_write_dir or inside it",
            f"use a folder of its own, say atomic_write_dir={root}/atomic",
        )
    return FsLocation(root=str(root), atomic_write_dir=str(atomic))


def _required(scheme: str, options: dict[str, str], name: str) -> str:
    if name not in options:
        _fail(f"{_SETTING}: option '{name}' is missing or empty", f"{scheme} needs {name}=...;")
    return options[name]


def _absolute(name: str, value: str) -> PurePosixPath:
    path = PurePosixPath(value)
    if not path.is_absolute() or ".." in path.parts or "\0" in value:
        _fail(f"{_SETTING}: {name} '{value}' is not an absolute path", "write it whole, without '..'")
    return path


def _s3_root(value: str) -> str:
    root = value.strip("/")
    if root and any(part in ("", ".", "..") for part in root.split("/")):
        _fail(f"{_SETTING}: root '{value}' has an empty part, '.' or '..'", "write it as folder/folder")
    return root


def _endpoint(value: str) -> str:
    hint = "write http://host:port or https://host:port, without a user, a query or a fragment"
    try:
        url = urlsplit(value)
        fits = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:  # a port that is no number, an unclosed bracket
        fits = False
    if not fits or "@" in value or "?" in value or "#" in value:
        _fail(f"{_SETTING}: endpoint '{redact(value)}' is not an endpoint's URL", hint)
    return value.rstrip("/")


def _fail(fact: str, hint: str) -> NoReturn:
    raise ConfigurationError(fact, hint)
