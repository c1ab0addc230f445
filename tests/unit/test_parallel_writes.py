"""Objects that are written some at a time: all are there at the end, and no error is lost."""

import threading

import pytest

from questdb_backup.stores.base import Data
from questdb_backup.stores.memory import MemoryObjectStore
from questdb_backup.stores.writes import ParallelWrites
from tests.support.faults import InjectedError


class Refusing(MemoryObjectStore):
    """Fails for one key, and counts how many calls there are at once."""

    def __init__(self, refused: str = "") -> None:
        super().__init__()
        self._refused = refused
        self._gate = threading.Barrier(4, timeout=10)
        self._count = threading.Lock()
        self.together = 0

    def create(self, key: str, data: Data) -> None:
        if key == self._refused:
            raise InjectedError(key)
        if key in ("0", "1", "2", "3"):
            self._gate.wait()
            with self._count:
                self.together += 1
        super().create(key, data)


def test_all_objects_are_stored_when_the_block_is_left() -> None:
    store = Refusing()
    with ParallelWrites(store) as writes:
        for number in range(200):
            writes.create(str(number), b"%d" % number)
    assert [store.get(str(number)) for number in range(200)] == [b"%d" % number for number in range(200)]
    assert store.together == 4


def write(refused: str, keys: int, mine: Exception | None = None) -> None:
    with ParallelWrites(Refusing(refused)) as writes:
        for number in range(keys):
            writes.create(str(number), b"")
        if mine is not None:
            raise mine


@pytest.mark.parametrize("refused", ["4", "199"])
def test_an_error_comes_out_at_the_latest_at_the_end(refused: str) -> None:
    with pytest.raises(InjectedError, match=refused):
        write(refused, 200)


def test_an_error_in_the_block_is_the_one_that_is_told() -> None:
    with pytest.raises(ValueError, match="mine"):
        write("9", 10, ValueError("mine"))
