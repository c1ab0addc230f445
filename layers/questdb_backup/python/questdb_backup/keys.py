"""Names of the objects in the store; nothing else builds a key. `docs/FORMAT.md` describes the layout."""

from questdb_backup.clock import to_key

PREFIX = "_backup"
INSTANCES = f"{PREFIX}/instances.json"


def instance_prefix(instance: str) -> str:
    """Everything of one instance lies below this prefix."""
    return f"{PREFIX}/{instance}/"


def catalog(instance: str) -> str:
    """What exists: the only object of an instance that is ever replaced."""
    return f"{PREFIX}/{instance}/catalog.json"


def manifest(instance: str, backup_timestamp: str) -> str:
    """The root of one backup."""
    return f"{PREFIX}/{instance}/manifests/{to_key(backup_timestamp)}.json"


def shard(instance: str, digest: str, run: str) -> str:
    """Entries of some partitions of one table; unique to the run that wrote it."""
    return f"{PREFIX}/{instance}/tables/{digest[:2]}/{digest}-{to_key(run)}.jsonl.zst"


def shards(instance: str) -> str:
    """What the keys of all shards begin with."""
    return f"{PREFIX}/{instance}/tables/"


def pack_name(run: str, unit: int, attempt: int, number: int) -> str:
    """A pack's name as chunks refer to it; unique to the run and the attempt."""
    return f"{to_key(run)}/{unit}-{attempt}-{number}"


def pack_folder(run: str) -> str:
    """What the names of all packs of a run begin with."""
    return f"{to_key(run)}/"


def pack(instance: str, name: str) -> str:
    """The object of a pack."""
    return f"{PREFIX}/{instance}/packs/{name}"


def run_prefix(instance: str, run: str) -> str:
    """Scratch of one run: what it was to do and what it did."""
    return f"{PREFIX}/{instance}/runs/{to_key(run)}"


def plan(instance: str, run: str) -> str:
    """The work list: one JSON array, an item per unit."""
    return f"{run_prefix(instance, run)}/plan.json"


def settled_plan(instance: str, run: str) -> str:
    """The work list of what is stored before the checkpoint, as `plan` is one."""
    return f"{run_prefix(instance, run)}/settled.json"


def settled_index(instance: str, run: str, attempt: int) -> str:
    """Which partitions those are, with their signatures and units, as that attempt at the plan saw them."""
    return f"{run_prefix(instance, run)}/settled-index-{attempt}"


def plan_tables(instance: str, run: str, attempt: int) -> str:
    """What the manifest keeps of each table, a line each."""
    return f"{run_prefix(instance, run)}/tables-{attempt}"


def unit(instance: str, run: str, number: int, attempt: int) -> str:
    """The files of one unit of work, as that attempt at the plan saw them."""
    return f"{run_prefix(instance, run)}/units/{number}-{attempt}"


def result(instance: str, run: str, number: int, attempt: int) -> str:
    """What one attempt at a unit stored."""
    return f"{run_prefix(instance, run)}/results/{number}-{attempt}"


def tombstone(instance: str, removed: str, token: int) -> str:
    """Names that wait for their grace to end, where they are too many for the catalog."""
    return f"{PREFIX}/{instance}/tombstones/{to_key(removed)}-{token}.json"
