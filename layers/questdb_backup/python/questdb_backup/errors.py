"""The errors of the product: two families, each leaf named after its fact.

    BackupToolError(fact, hint)
    ├─ PermanentError     trying again cannot help
    │  ├─ ConfigurationError         a setting, an option, an argument is missing or wrong (exit code 2)
    │  ├─ PreflightError             the host, the root or the server is not fit for a backup
    │  ├─ BackupInProgressError      another backup, prune or check holds the lease
    │  ├─ ScheduleServedError        the schedule's tick has started a backup before: it was delivered twice
    │  ├─ CheckpointHeldError        a checkpoint that is not ours is held
    │  ├─ CheckpointCreateError      the server refused CHECKPOINT CREATE
    │  ├─ CheckpointLostError        our checkpoint is gone: what was copied is void
    │  ├─ LeaseLostError             this run's lease was taken over: it must not write any more
    │  ├─ SourceFileError            a referenced file is missing or shorter than its rows need
    │  ├─ UnsupportedVolumeError     the volume has a layout or a file system that is not read
    │  ├─ DamagedVolumeError         the volume's own metadata is damaged or cut short
    │  ├─ SnapshotError              an EBS snapshot failed, is missing, or never completed
    │  ├─ TokenExpiredError          a block's token of the EBS direct APIs is not valid any more
    │  ├─ DatabaseRejectedError      the server refused the login or the statement
    │  ├─ DataIdMismatchError        the root belongs to another database (ER007)
    │  ├─ StoreAccessDeniedError     the store refused the credentials or the action
    │  ├─ StoreNotFoundError         the bucket or the store's root does not exist
    │  ├─ ObjectNotFoundError        the key does not exist
    │  ├─ ObjectExistsError          a create-only write met other bytes under its key
    │  ├─ PreconditionFailedError    a compare-and-swap met another version
    │  ├─ ObjectTombstonedError      a backup refers to an object that waits for its deletion
    │  ├─ StorageFullError           no space left on the store or the target
    │  ├─ DamagedBackupError         a stored object is missing, short, or fails its digest
    │  ├─ UnsupportedFormatError     the backup was written by a newer format version
    │  ├─ NoRestorePointError        nothing in the store answers the question
    │  ├─ TargetNotEmptyError        the restore target has a database
    │  ├─ RestoreFailedError         a restore did not finish
    │  ├─ VersionMismatchError       the server version does not fit the backup
    │  └─ BackupAbortedError         the run was stopped by abort
    └─ TransientError     the same call may go through later
       ├─ DatabaseUnavailableError   no connection to the server
       ├─ CheckpointBusyError        another CHECKPOINT command is in progress
       ├─ StoreUnavailableError      the store did not answer, or asked to slow down
       ├─ StatusUnavailableError     the status table did not answer, or asked to slow down
       └─ VolumeUnavailableError     EC2 or the EBS direct APIs did not answer, or asked to slow down

Step Functions matches error names by the exact class name, without inheritance: the state machines
list every transient leaf, and a test holds them against `transient_error_names()`.
"""


class BackupToolError(Exception):
    """A fact with its values, then a hint; ``str()`` gives ``fact. Hint: action``."""

    def __init__(self, fact: str, hint: str = "") -> None:
        self.fact = fact.rstrip(".")
        self.hint = hint.rstrip(".")
        super().__init__(self.fact if not self.hint else f"{self.fact}. Hint: {self.hint}.")


class PermanentError(BackupToolError):
    """Trying again cannot help: something must change first."""


class TransientError(BackupToolError):
    """The same call may go through later."""


class ConfigurationError(PermanentError):
    """A setting, an option or an argument is missing or wrong."""


class PreflightError(PermanentError):
    """The host, the server root or the server is not fit for a backup."""


class BackupInProgressError(PermanentError):
    """One backup at a time: another backup, prune or check holds the lease."""


class ScheduleServedError(PermanentError):
    """This tick of the schedule, or a later one, has started a backup already: it was delivered twice."""


class CheckpointHeldError(PermanentError):
    """A checkpoint that is not ours is held; it is left alone."""


class CheckpointCreateError(PermanentError):
    """The server refused CHECKPOINT CREATE; its words are kept."""


class CheckpointLostError(PermanentError):
    """Our checkpoint is not held any more (a restart drops it): what was copied is void."""


class LeaseLostError(PermanentError):
    """This run's lease was taken over or dropped: it must not write any more."""


class SourceFileError(PermanentError):
    """A file that the checkpoint references is missing, unreadable or too short."""


class UnsupportedVolumeError(PermanentError):
    """The volume has a layout, a file system or a feature that is not read."""


class DamagedVolumeError(PermanentError):
    """The volume's own metadata is damaged or cut short."""


class SnapshotError(PermanentError):
    """An EBS snapshot ended in an error, is missing, or did not complete in time; or AWS refused the call."""


class TokenExpiredError(PermanentError):
    """A block's token of the EBS direct APIs is not valid any more: it has to be listed again."""


class DatabaseRejectedError(PermanentError):
    """The server refused the login or the statement."""


class DataIdMismatchError(PermanentError):
    """The server root belongs to another database than the backup instance (ER007)."""


class StoreAccessDeniedError(PermanentError):
    """The object store refused the credentials or the action."""


class StoreNotFoundError(PermanentError):
    """The bucket or the root folder of the object store does not exist."""


class ObjectNotFoundError(PermanentError):
    """The key does not exist in the object store."""


class ObjectExistsError(PermanentError):
    """A create-only write met other bytes under its key."""


class PreconditionFailedError(PermanentError):
    """A compare-and-swap met another version than the expected one."""


class ObjectTombstonedError(PermanentError):
    """A backup refers to an object that waits for its deletion."""


class StorageFullError(PermanentError):
    """No space is left on the object store or the restore target."""


class DamagedBackupError(PermanentError):
    """A stored object is missing, short, malformed, hostile, or fails its digest."""


class UnsupportedFormatError(PermanentError):
    """The stored object was written by a newer format version."""


class NoRestorePointError(PermanentError):
    """No instance, or no complete backup at or before the asked timestamp."""


class TargetNotEmptyError(PermanentError):
    """The restore target has a database already; it is left alone."""


class RestoreFailedError(PermanentError):
    """A restore did not finish; nothing was put in place."""


class VersionMismatchError(PermanentError):
    """The server version does not fit the backup."""


class BackupAbortedError(PermanentError):
    """The run was stopped by abort."""


class DatabaseUnavailableError(TransientError):
    """No connection to the server could be had."""


class CheckpointBusyError(TransientError):
    """Another CHECKPOINT command is in progress."""


class StoreUnavailableError(TransientError):
    """The object store did not answer, or asked to slow down."""


class StatusUnavailableError(TransientError):
    """The status table did not answer, or asked to slow down."""


class VolumeUnavailableError(TransientError):
    """EC2 or the EBS direct APIs did not answer, or asked to slow down."""


def transient_error_names() -> list[str]:
    """Class names of the transient leaves, sorted: what Retry lists in the state machines."""
    return sorted(cls.__name__ for cls in TransientError.__subclasses__())
