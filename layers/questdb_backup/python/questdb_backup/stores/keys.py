"""What every store accepts as a key, a prefix and a range: they may come from a hostile manifest."""

from questdb_backup.errors import DamagedBackupError

MAX_KEY_BYTES = 1024  # S3's own limit


def check_key(key: str) -> str:
    """The key itself. Raise DamagedBackupError where it is empty, absolute, has ``..`` or an empty part."""
    if any(part in ("", ".", "..") for part in key.split("/")) or not _is_text(key):
        raise DamagedBackupError(f"{key!r} is not a key of the object store", "whoever names it is damaged")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself: empty, or the beginning of a key. Raise DamagedBackupError otherwise."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def check_range(key: str, offset: int, length: int) -> None:
    """Raise DamagedBackupError for a negative offset or length."""
    if offset < 0 or length < 0:
        raise DamagedBackupError(
            f"{key!r} was asked for {length} bytes from {offset}", "whoever asks is damaged"
        )


def _is_text(key: str) -> bool:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return size <= MAX_KEY_BYTES and key.isprintable()
