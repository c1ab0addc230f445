"""The guard on one machine: a run is dead when its lock is free."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from questdb_backup.errors import ConfigurationError
from questdb_backup.instances import read_name
from questdb_backup.local.options import Place, StateFolder
from questdb_backup.status.run_lock import is_held, read_holder
from questdb_backup.steps.guard import GuardReport, guard_checkpoint


def new_holder() -> str:
    """The name of an execution on this machine, as leases and locks know it."""
    return f"local:{os.uname().nodename}:{os.urandom(16).hex()}"


def local_instance(place: Place) -> str | None:
    """The instance's name as far as this machine knows it; None before the first backup."""
    if place.settings.instance_name:
        return place.settings.instance_name
    return read_name(place.root) if place.root else None


def guard(place: Place, *, reason: str = "the run died", last_holder: str | None = None) -> GuardReport:
    """End a dead run of this machine; a live one is left alone.

    ``last_holder``: who held the run lock last, where the caller holds it now (its own run has not
    begun, or has ended); None: the lock is asked. Raise DatabaseUnavailableError and the like where
    the release could not be done: call again.
    """
    instance = local_instance(place)
    if instance is None:
        return GuardReport(outcome="idle")
    services = place.services
    with _one_guard_at_a_time(place.state):
        if last_holder is None:
            if is_held(place.state.run_lock):
                running = services.status.read(instance)
                return GuardReport(outcome="running", backup_timestamp=running.run if running else None)
            known = read_holder(place.state.run_lock)
            last_holder = (known.run if known else None) or ""
        live = services.status.read(instance)
        dead = {last_holder, live.holder if live else last_holder}
        return guard_checkpoint(
            services,
            instance,
            is_dead=lambda holder: holder in dead,
            release=lambda fence: services.database.release_checkpoint(
                fence, timeout_seconds=services.config.release_timeout_seconds
            ),
            reason=reason,
        )


@contextmanager
def _one_guard_at_a_time(state: StateFolder) -> Iterator[None]:
    """Wait for any other guard here: two could take a new run's checkpoint for the dead one's."""
    try:
        state.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state.guard_lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"the lock file {state.guard_lock} cannot be used: {error.strerror}", "give --state DIR"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
