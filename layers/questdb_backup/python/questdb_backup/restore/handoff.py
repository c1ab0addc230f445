"""What to do on the target host, where the restore itself has no file system to write to."""

import shlex

from questdb_backup.restore.request import RestoreRequest
from questdb_backup.stores.connection_string import redact


def host_command(
    object_store: str | None, instance: str, backup_timestamp: str, request: RestoreRequest
) -> str:
    """The `questdb-backup restore` command for the host; secrets are left out."""
    words = ["questdb-backup", "restore", "--root", request.root or "NEWROOT"]
    if object_store:
        words += ["--object-store", redact(object_store)]
    words += ["--instance", instance, "--timestamp", backup_timestamp]
    if request.server_version:
        words += ["--server-version", request.server_version]
    words += ["--force"] * request.force + ["--keep-instance"] * request.keep_instance
    return shlex.join(words)


def trigger_text(object_store: str | None, instance: str, backup_timestamp: str) -> str:
    """The text of ``_backup_restore`` for the host; without an object store it is the one of its settings."""
    store = f"backup.object.store={redact(object_store)}\n" if object_store else ""
    return f"{store}backup.instance.name={instance}\nbackup.restore.timestamp={backup_timestamp}\n"
