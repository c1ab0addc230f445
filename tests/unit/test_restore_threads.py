"""The threads of a restore: bounded memory, the first error told, nothing left running."""

import threading

import pytest

from questdb_backup.restore.threads import RANGES_IN_MEMORY, Job, shared_threads


def test_no_more_ranges_are_in_memory_than_the_process_may_have() -> None:
    lock, room = threading.Lock(), threading.Semaphore(0)
    held = most = 0

    def read() -> bytes:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
            if held == RANGES_IN_MEMORY:
                room.release()
        return b"data"

    def part() -> None:
        nonlocal held
        room.acquire(timeout=0.05)
        with lock:
            held -= 1

    def unit() -> None:
        with shared_threads() as threads:
            threads.run(Job(read=read, parts=lambda _data: [part]) for _ in range(20))

    units = [threading.Thread(target=unit) for _ in range(3)]
    for each in units:
        each.start()
    for each in units:
        each.join()
    assert held == 0
    assert most == RANGES_IN_MEMORY


def test_all_users_share_the_same_threads_and_the_last_one_ends_them() -> None:
    with shared_threads() as first:
        with shared_threads() as second:
            assert first is second
        first.run([Job(read=lambda: b"", parts=lambda _data: [lambda: None])])
    with shared_threads() as later:
        assert later is not first
    assert not [it.name for it in threading.enumerate() if it.name.startswith(("range", "decode", "ahead"))]


@pytest.mark.parametrize("where", ["read", "parts", "part"])
def test_the_first_error_is_raised_when_nothing_runs_any_more(where: str) -> None:
    running = 0

    def fail() -> bytes:
        raise ValueError("broken")

    def part() -> None:
        nonlocal running
        running += 1
        running -= 1
        if where == "part":
            fail()

    def parts(_data: bytes) -> list[object]:
        return [part, part] if where != "parts" else [fail()]

    job = Job(read=fail if where == "read" else lambda: b"", parts=parts)  # type: ignore[arg-type]
    with shared_threads() as threads, pytest.raises(ValueError, match="broken"):
        threads.run([job] * 50)
    assert running == 0


def test_what_is_made_ahead_keeps_its_order_and_its_errors() -> None:
    def make(number: int) -> int:
        if number == 30:
            raise ValueError("thirty")
        return number * 2

    found: list[int] = []
    with shared_threads() as threads, pytest.raises(ValueError, match="thirty"):
        found.extend(threads.ahead(make, range(100)))
    assert found == [number * 2 for number in range(len(found))]
    assert len(found) <= 30
