"""The rules of the live status that need no store: who may replace whom, and the errors' words."""

from questdb_backup.errors import BackupInProgressError, LeaseLostError
from questdb_backup.status.base import LiveRun


def may_replace(entered: LiveRun | None, live: LiveRun, now: str) -> bool:
    """Whether `StatusStore.begin` may enter ``live`` over what is entered."""
    return entered is None or not stands_against(entered, live.holder, now) or entered.token < live.token


def stands_against(entered: LiveRun, holder: str, now: str) -> bool:
    """Whether the entered run is alive at ``now`` and another holder's."""
    return entered.holder != holder and entered.expires_at > now


def is_run(entered: LiveRun | None, run: str, token: int) -> bool:
    """Whether the entered run is the one that is named."""
    return entered is not None and entered.run == run and entered.token == token


def refusal(entered: LiveRun | None, holder: str, now: str) -> BackupInProgressError | None:
    """Why ``holder`` may not begin: the entered run lives, or is dead and may still hold its checkpoint."""
    if entered is None or entered.holder == holder:
        return None
    if stands_against(entered, holder, now):
        return in_progress(entered)
    if entered.fence.db_now is None:
        return None
    return BackupInProgressError(
        f"the backup {entered.run} of {entered.holder} is dead, and its checkpoint may still be held",
        "the guard releases it as soon as the server can be reached (`questdb-backup guard`, or within five"
        " minutes on AWS); then start again",
    )


def in_progress(entered: LiveRun) -> BackupInProgressError:
    """The refusal of a second start."""
    return BackupInProgressError(
        f"the backup {entered.run} of {entered.holder} is in progress, its lease ends {entered.expires_at}",
        "wait for it, or stop it with `questdb-backup abort`",
    )


def lease_lost(run: str, token: int, entered: LiveRun | None) -> LeaseLostError:
    """What a run is told that is not the entered one."""
    known = f"knows {entered.run} (token {entered.token})" if entered else "knows no run"
    return LeaseLostError(
        f"the run {run} (token {token}) has lost its lease: the live status {known}",
        "this run writes nothing more; start another with `questdb-backup backup`",
    )
