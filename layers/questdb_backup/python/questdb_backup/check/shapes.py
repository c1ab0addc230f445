"""What a key below ``_backup/`` is, told by its shape alone: the inverse of `keys`."""

import re
from dataclasses import dataclass
from enum import StrEnum

from questdb_backup import keys
from questdb_backup.clock import from_key
from questdb_backup.instance_name import is_instance_name

_STAMP = r"\d{8}T\d{6}\.\d{6}Z"


class Kind(StrEnum):
    """The classes of objects; `docs/FORMAT.md` describes them."""

    INSTANCES = "instances"
    CATALOG = "catalog"
    MANIFEST = "manifest"
    SHARD = "shard"
    PACK = "pack"
    TOMBSTONE = "tombstone"
    PLAN = "plan"
    TABLES = "tables"
    UNIT = "unit"
    RESULT = "result"


SCRATCH = frozenset({Kind.PLAN, Kind.TABLES, Kind.UNIT, Kind.RESULT})
"""What a run leaves for later runs and for prune, and nobody needs once it is published."""

_SHAPES = (
    (Kind.CATALOG, re.compile(r"catalog\.json", re.ASCII)),
    (Kind.MANIFEST, re.compile(rf"manifests/(?P<run>{_STAMP})\.json", re.ASCII)),
    (
        Kind.SHARD,
        re.compile(rf"tables/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}-(?P<run>{_STAMP})\.jsonl\.zst", re.ASCII),
    ),
    (Kind.PACK, re.compile(rf"packs/(?P<run>{_STAMP})/\d+-\d+-\d+", re.ASCII)),
    (Kind.TOMBSTONE, re.compile(rf"tombstones/(?:{_STAMP}|orphans\.\d+\.\d+)-\d+\.json", re.ASCII)),
    (Kind.PLAN, re.compile(rf"runs/(?P<run>{_STAMP})/(?:plan|settled)\.json", re.ASCII)),
    (Kind.TABLES, re.compile(rf"runs/(?P<run>{_STAMP})/(?:tables|settled-index)-\d+", re.ASCII)),
    (Kind.UNIT, re.compile(rf"runs/(?P<run>{_STAMP})/units/\d+-\d+", re.ASCII)),
    (Kind.RESULT, re.compile(rf"runs/(?P<run>{_STAMP})/results/\d+-\d+", re.ASCII)),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a key says; ``run`` is the backup_timestamp of the run that wrote it, None where it has none."""

    kind: Kind
    instance: str = ""
    run: str | None = None


def shape_of(key: str) -> Shape | None:
    """The shape of a key; None where it is not one of ours."""
    if key == keys.INSTANCES:
        return Shape(Kind.INSTANCES)
    prefix, _, rest = key.partition("/")
    instance, _, name = rest.partition("/")
    if prefix != keys.PREFIX or not is_instance_name(instance):
        return None
    for kind, pattern in _SHAPES:
        match = pattern.fullmatch(name)
        if match:
            run = match.groupdict().get("run")
            return Shape(kind, instance, from_key(run) if run else None)
    return None
