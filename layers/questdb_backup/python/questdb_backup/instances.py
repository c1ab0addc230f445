"""The names of the instances in a store, and which one this deployment is.

``_backup/instances.json`` lists them: for each name the data id of its database and, on AWS, the
stack that made it. On one machine ``db/.backup_instance_name`` holds the name; it is never backed up.
"""

import os
import random
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from questdb_backup import keys
from questdb_backup.errors import (
    ConfigurationError,
    DataIdMismatchError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from questdb_backup.folders import sync_folder
from questdb_backup.instance_name import is_instance_name, new_instance_name
from questdb_backup.sealed import damaged, seal, unseal
from questdb_backup.services import Services, logger
from questdb_backup.stores.base import ObjectStore

NAME_FILE = "db/.backup_instance_name"
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One entry of ``instances.json``."""

    name: str
    data_id: str | None = None
    stack_id: str | None = None


def read_instances(store: ObjectStore) -> tuple[list[Instance], str | None]:
    """The instances of a store, sorted by name, and the version for a swap (None: no such object)."""
    found = store.read(keys.INSTANCES)
    if found is None:
        return [], None
    name = f"{keys.INSTANCES} in {store.location}"
    value = unseal(found.data, name)
    try:
        rows = [Instance(**row) for row in value["instances"]]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(name, error) from error
    return sorted(rows, key=lambda known: known.name), found.version


def encode_instances(instances: list[Instance]) -> bytes:
    """The bytes of ``instances.json``."""
    return seal({"instances": sorted(map(asdict, instances), key=lambda row: str(row["name"]))})


def resolve_instance(services: Services) -> Instance:
    """The instance of this deployment, registered in the store.

    The name comes from ``backup.instance.name``, else the root's name file, else the entry of this
    stack, else it is new. Raise DataIdMismatchError where the root's ``.data_id`` is another one.
    """
    config = services.config
    root = config.root if config.source in ("path", "frozen") else None
    data_id = read_data_id(root) if root else None
    named = read_name(root) if root else None
    name = config.instance_name
    if name is None and config.source == "frozen" and root and named is None:
        name = _name_by_data_id(read_instances(services.store)[0], data_id)
    name = name or (_name_of_root(services.store, root) if root else None)
    for _ in range(_TRIES):
        known, version = read_instances(services.store)
        if named is not None and named not in {entry.name for entry in known}:
            logger.warning(
                "%s has nothing of instance %s, which the root names: a whole backup is made. Hint: where it"
                " had backups, see that the disk is mounted and the store is the right one",
                services.store.location,
                named,
            )
        instance = _choose(known, name, data_id, config.stack_id)
        if instance in known or _register(services.store, known, version, instance):
            if root and read_name(root) != instance.name:
                if named is not None:
                    logger.warning("%s was instance %s, it is %s from now on", root, named, instance.name)
                with suppress(OSError):  # a setting gives the name: a frozen copy may be read-only
                    _write_name(root, instance.name, claim=False)
            return instance
    raise StoreUnavailableError(f"{keys.INSTANCES} was changed by others again and again", "try again")


def expected_instance(services: Services) -> str | None:
    """The name that `resolve_instance` would find on this machine; None where it would make one.

    Changes nothing. Raise DataIdMismatchError as the backup would.
    """
    config, known = services.config, read_instances(services.store)[0]
    root = config.require_root()
    data_id = read_data_id(root)
    name = config.instance_name or read_name(root)
    if name is None and config.source == "frozen":
        name = _name_by_data_id(known, data_id)
    return _choose(known, name, data_id, None).name if name else None


def record_data_id(store: ObjectStore, name: str, data_id: str | None) -> None:
    """Note the data id of an instance whose root is seen only in the run, in its snapshot.

    Raise DataIdMismatchError where the instance's backups are of another database.
    """
    for _ in range(_TRIES):
        known, version = read_instances(store)
        entry = next((entry for entry in known if entry.name == name), Instance(name=name))
        if data_id is None or entry.data_id == data_id:
            return
        if entry.data_id:
            raise DataIdMismatchError(
                f"ER007 - Data ID mismatch: the database has data ID {data_id},"
                f" the backups of instance '{name}' have {entry.data_id}",
                "see that DatabaseInstance names the right machine; another database is backed up by a"
                " stack of its own, or under another InstanceName",
            )
        if _register(store, known, version, replace(entry, data_id=data_id)):
            return
    raise StoreUnavailableError(f"{keys.INSTANCES} was changed by others again and again", "try again")


def data_id_of(store: ObjectStore, name: str) -> str | None:
    """The data id that is noted for an instance."""
    return next((entry.data_id for entry in read_instances(store)[0] if entry.name == name), None)


def find_instance(services: Services) -> str | None:
    """The instance that this deployment backs up; None where no backup has named it yet. Changes nothing."""
    config = services.config
    if config.instance_name:
        return config.instance_name
    if config.stack_id is not None:
        known, _ = read_instances(services.store)
        return next((entry.name for entry in known if entry.stack_id == config.stack_id), None)
    return read_name(config.root) if config.root else None


def _name_by_data_id(known: list[Instance], data_id: str | None) -> str | None:
    """A copy without a name is of the one database with its data id, whose backups it goes on with."""
    names = [entry.name for entry in known if data_id is not None and entry.data_id == data_id]
    return names[0] if len(names) == 1 else None


def _choose(known: list[Instance], name: str | None, data_id: str | None, stack_id: str | None) -> Instance:
    if name is None and stack_id is not None:
        name = next((entry.name for entry in known if entry.stack_id == stack_id), None)
    if name is None:
        taken = {entry.name for entry in known}
        name = _unused_name(taken)
    if not is_instance_name(name):
        raise ConfigurationError(
            f"'{name}' is not a backup instance name", "letters, digits and dashes, say gentle-forest-orchid"
        )
    entry = next((entry for entry in known if entry.name == name), None)
    if entry and entry.data_id and data_id and entry.data_id != data_id:
        raise DataIdMismatchError(
            f"ER007 - Data ID mismatch: the local database has data ID {data_id},"
            f" the backups of instance '{name}' have {entry.data_id}",
            "back this database up under a name of its own: remove db/.backup_instance_name"
            " (or give another --instance-name)",
        )
    return Instance(
        name=name,
        data_id=data_id or (entry.data_id if entry else None),
        stack_id=stack_id or (entry.stack_id if entry else None),
    )


def _unused_name(taken: set[str]) -> str:
    source = random.SystemRandom()
    while (name := new_instance_name(source)) in taken:
        pass
    return name


def _register(store: ObjectStore, known: list[Instance], version: str | None, instance: Instance) -> bool:
    others = [entry for entry in known if entry.name != instance.name]
    try:
        store.replace(keys.INSTANCES, encode_instances([*others, instance]), version)
    except PreconditionFailedError:
        return False
    return True


def read_data_id(root: Path) -> str | None:
    """The database's id from ``db/.data_id`` in hex; None where the server (8.1) has none."""
    try:
        data = (root / "db" / ".data_id").read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{root}/db/.data_id cannot be read: {error}") from error
    return data.hex() or None


def read_name(root: Path) -> str | None:
    """The instance's name that the root holds; None before the first backup. Raise ConfigurationError."""
    path = root / NAME_FILE
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the instance name cannot be read from {path}: {error}",
            "make the file readable for this user, or give --instance-name",
        ) from error


def _name_of_root(store: ObjectStore, root: Path) -> str:
    """The root's name. Of several first runs at once, on whatever hosts, all take the first one's."""
    name = read_name(root)
    if name is not None:
        return name
    made = _unused_name({known.name for known in read_instances(store)[0]})
    try:
        _write_name(root, made, claim=True)
    except OSError as error:
        raise ConfigurationError(
            f"the instance name '{made}' cannot be written to {root / NAME_FILE}: {error}",
            "make the folder writable for this user, or give --instance-name",
        ) from error
    return read_name(root) or made


def _write_name(root: Path, name: str, *, claim: bool) -> None:
    """Leave the name in the root, whole and durable; ``claim`` lets a file that is there stand."""
    import tempfile

    path = root / NAME_FILE
    handle, temporary = tempfile.mkstemp(prefix=".backup_instance_name.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, 0o644)  # other users of this host may ask for its backups
            file.write(name + "\n")
            file.flush()
            os.fsync(file.fileno())
        if claim:
            with suppress(FileExistsError):
                path.hardlink_to(temporary)
        else:
            Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_folder(path.parent)
