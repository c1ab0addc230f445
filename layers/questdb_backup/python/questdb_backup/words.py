"""The words that users see in `backups()`."""

from enum import StrEnum


class BackupStatus(StrEnum):
    """The six words of the status column, exactly as QuestDB writes them."""

    BACKUP_IN_PROGRESS = "backup in progress"
    BACKUP_COMPLETE = "backup complete"
    BACKUP_FAILED = "backup failed"
    CLEANUP_IN_PROGRESS = "cleanup in progress"
    CLEANUP_COMPLETE = "cleanup complete"
    CLEANUP_FAILED = "cleanup failed"
