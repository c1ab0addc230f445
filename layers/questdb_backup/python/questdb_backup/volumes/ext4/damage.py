"""The error of every module here."""

from questdb_backup.errors import DamagedVolumeError


def damaged(fact: str) -> DamagedVolumeError:
    """Make the error for metadata that cannot be right."""
    return DamagedVolumeError(
        f"ext4: {fact}",
        "check the volume with e2fsck -fn, then take a new snapshot",
    )
