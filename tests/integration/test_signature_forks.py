"""Two databases that claim to be one: a backup of either holds its own bytes, not the other's."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.forks import BORN, FORKS, HOW_MANY, PENDING, Digests, Forked, parting_tables
from tests.support.histories import lies

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=FORKS)
def forked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Both ways were taken and backed up, into one chain."""
    with ExitStack() as stack:
        forked = Forked(folder=tmp_path_factory.mktemp("fork"), stack=stack)
        second = forked.serve(FORKS[request.param](forked))
        forked.go_on(second, 2, HOW_MANY)
        forked.back_up("second", second)
        second.stop()
        forked.first.stop()
        yield forked


@pytest.fixture(scope="module")
def found(forked: Forked) -> Digests:
    """What a server has on the second database's backup."""
    return forked.digests_of("second")


def test_the_signatures_are_equal_and_the_bytes_are_not(forked: Forked) -> None:
    assert {name for name, _ in parting_tables()} <= _lying_tables(forked)


@pytest.mark.parametrize("table", [*(name for name, _ in parting_tables()), BORN])
def test_the_second_database_s_backup_holds_its_own_rows(forked: Forked, found: Digests, table: str) -> None:
    assert forked.states["first"][table] != forked.states["second"][table]
    assert found[table] == forked.states["second"][table]


def test_an_update_that_the_fork_left_pending_gives_both_the_same_values(
    forked: Forked, found: Digests
) -> None:
    """Else a log could be equal up to the last record, and partitions of equal signature not."""
    assert forked.states["first"][PENDING] == forked.states["second"][PENDING] == found[PENDING]
    assert PENDING not in _lying_tables(forked)


def _lying_tables(forked: Forked) -> set[str]:
    caught = lies(forked.partitions["first"], forked.partitions["second"])
    return {table.partition("~")[0] for table, _ in caught}
