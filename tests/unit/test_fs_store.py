"""The folder store where disks fill, mounts go, and processes die."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from questdb_backup.errors import (
    ConfigurationError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageFullError,
    StoreAccessDeniedError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from questdb_backup.stores import fs_lock
from questdb_backup.stores.fs import FsObjectStore

DAY = 24 * 3600


@pytest.fixture
def store(tmp_path: Path) -> FsObjectStore:
    return FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")


def temporaries(store_root: Path) -> list[Path]:
    return sorted((store_root / "atomic").glob("*.tmp"))


def fail(name: str, number: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Let the next calls of a function of ``os`` raise that errno."""
    real, left = getattr(os, name), [times]

    def call(*args: object, **more: object) -> object:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*args, **more)

    monkeypatch.setattr(os, name, call)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A tmpfs; skip, loudly, where this user may not mount."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("THIS USER MAY NOT MOUNT: a full and a read-only disk were not tried")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_both_folders_are_made_where_their_parent_is_there(tmp_path: Path) -> None:
    FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic").create("a/b", b"x")
    assert (tmp_path / "store" / "a" / "b").read_bytes() == b"x"
    assert (tmp_path / "store" / "atomic").is_dir()


def test_folders_that_are_empty_go_with_their_last_file(store: FsObjectStore, tmp_path: Path) -> None:
    for key in ("a/b/one", "a/b/two", "a/c/three"):
        store.create(key, b"x")
    store.delete(["a/b/one"])
    assert (tmp_path / "store/a/b").is_dir()
    store.delete(["a/b/two", "a/b/never-there"])
    assert [path.name for path in (tmp_path / "store/a").iterdir()] == ["c"]
    store.delete(["a/c/three"])
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["atomic"]
    store.create("a/b/one", b"again")
    assert store.get("a/b/one") == b"again"


@pytest.mark.parametrize("swaps", [False, True])
def test_a_folder_that_another_removes_meanwhile_is_made_again(
    store: FsObjectStore, tmp_path: Path, swaps: bool
) -> None:
    other = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")
    ended = threading.Event()

    def remove() -> None:
        while not ended.is_set():
            other.delete([f"a/b/{number}" for number in range(0, 40, 2)])

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for number in range(40):
            if swaps:
                store.replace(f"a/b/{number}", b"x", None)
            else:
                store.create(f"a/b/{number}", b"x")
            if number % 2:
                store.delete([f"a/b/{number}"])
    finally:
        ended.set()
        remover.join()
    other.delete([f"a/b/{number}" for number in range(40)])
    assert list(store.list("")) == []
    assert not (tmp_path / "store" / "a").exists()


def test_a_missing_parent_is_a_store_that_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="mount the disk"):
        FsObjectStore(tmp_path / "not-mounted" / "store", tmp_path / "not-mounted" / "store" / "atomic")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ConfigurationError, match="not a folder"):
        FsObjectStore(tmp_path / "store", tmp_path / "atomic")


def test_folders_on_two_mounts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "atomic").mkdir()
    with mounted(tmp_path / "atomic", "size=1m"), pytest.raises(ConfigurationError, match="two mounts"):
        FsObjectStore(tmp_path / "store", tmp_path / "atomic")


def test_a_link_between_mounts_that_look_like_one_is_told_as_such(
    store: FsObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail("link", errno.EXDEV, monkeypatch)
    with pytest.raises(ConfigurationError, match="two mounts"):
        store.create("a", b"x")


def test_the_atomic_folder_is_never_listed_and_takes_no_key(store: FsObjectStore, tmp_path: Path) -> None:
    store.replace("a", b"x", None)
    assert [path.suffix for path in (tmp_path / "store" / "atomic").iterdir()] == [".lock"]
    assert [item.key for item in store.list("")] == ["a"]
    assert [item.key for item in store.list("a")] == ["a"]
    with pytest.raises(ConfigurationError, match="atomic_write_dir"):
        store.create("atomic/b", b"x")


def test_a_root_that_vanishes_is_told_and_not_made_again(store: FsObjectStore, tmp_path: Path) -> None:
    store.create("a", b"x")
    (tmp_path / "store").rename(tmp_path / "gone")
    for attempt in (
        lambda: store.get("a"),
        lambda: store.read("a"),
        lambda: store.create("b/c", b"x"),
        lambda: store.replace("a", b"x", None),
        lambda: store.delete(["a"]),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreNotFoundError, match="does not exist"):
            attempt()
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_removed_under_the_store_is_made_again(store: FsObjectStore, tmp_path: Path) -> None:
    store.create("a/b", b"x")
    (tmp_path / "store" / "a" / "b").unlink()
    (tmp_path / "store" / "a").rmdir()
    store.create("a/b", b"x")
    assert store.get("a/b") == b"x"


_DIES = """
import os, sys
from pathlib import Path
from questdb_backup.stores.fs import FsObjectStore
store = FsObjectStore(Path(sys.argv[1]), Path(sys.argv[1]) / "atomic")
def die(*args, **more):
    if sys.argv[2] == "write":
        real(args[0], bytes(args[1])[:3])
    os._exit(9)
real = getattr(os, sys.argv[2])
setattr(os, sys.argv[2], die)
if sys.argv[3] == "create":
    store.create("k", b"0123456789")
else:
    store.replace("k", b"0123456789", store.read("k").version)
"""


def die(root: Path, function: str, method: str) -> None:
    """Let another process die in a function of ``os`` while it writes."""
    done = subprocess.run(
        [sys.executable, "-c", _DIES, str(root), function, method],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert done.returncode == 9


@pytest.mark.parametrize("function", ["write", "fsync", "link"])
def test_a_crash_while_writing_leaves_no_object(store: FsObjectStore, tmp_path: Path, function: str) -> None:
    die(tmp_path / "store", function, "create")
    assert list(store.list("")) == []
    assert store.read("k") is None
    assert len(temporaries(tmp_path / "store")) == 1
    store.create("k", b"another try")
    assert store.get("k") == b"another try"


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_a_crash_while_swapping_leaves_the_old_bytes_and_no_lock(
    store: FsObjectStore, tmp_path: Path, function: str
) -> None:
    version = store.replace("k", b"old", None)
    die(tmp_path / "store", function, "replace")
    assert store.get("k") == b"old"
    store.replace("k", b"new", version)
    assert store.get("k") == b"new"


def test_opening_removes_day_old_leftovers_and_nothing_else(store: FsObjectStore, tmp_path: Path) -> None:
    root = tmp_path / "store"
    die(root, "link", "create")
    store.replace("c", b"x", None)
    foreign = root / "atomic" / "foreign.tmp"
    foreign.write_text("of another program")
    FsObjectStore(root, root / "atomic")
    assert len(temporaries(root)) == 2
    for path in (root / "atomic").iterdir():
        os.utime(path, (time.time() - DAY - 60,) * 2)
    FsObjectStore(root, root / "atomic")
    assert temporaries(root) == [foreign]
    assert len([*(root / "atomic").glob("*.lock")]) == 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and linked, in order."""
    steps: list[str] = []
    real_sync, real_link = os.fsync, os.link

    def sync(descriptor: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name[:6])
        real_sync(descriptor)

    def link(source: Path, target: Path) -> None:
        steps.append("link " + target.name)
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", link)
    return steps


def test_an_object_is_durable_before_it_appears_and_its_folders_after(
    store: FsObjectStore, steps: list[str]
) -> None:
    store.create("a/b/k", b"x")
    assert steps == ["sync questd", "sync store", "sync a", "link k", "sync b"]


def test_a_folder_with_something_in_it_was_synced_by_who_put_it_there(
    store: FsObjectStore, tmp_path: Path, steps: list[str]
) -> None:
    store.create("a/b/k", b"x")
    (tmp_path / "store" / "a" / "empty").mkdir()  # its maker died before the sync
    del steps[:]

    again = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")
    again.create("a/b/l", b"x")
    assert steps == ["sync questd", "link l", "sync b"]
    del steps[:]
    again.create("a/empty/m", b"x")
    assert steps == ["sync questd", "sync a", "link m", "sync empty"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_create_still_never_overwrites(
    store: FsObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail("link", number, monkeypatch, times=100)
    store.create("k", b"first")
    store.create("k", b"first")
    with pytest.raises(ObjectExistsError):
        store.create("k", b"second")
    assert store.get("k") == b"first"
    assert temporaries(tmp_path / "store") == []


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=256k"):
        store = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")
        version = store.replace("c", b"small", None)
        with pytest.raises(StorageFullError, match="free space"):
            store.create("k", bytes(1 << 20))
        with pytest.raises(StorageFullError):
            store.replace("c", bytes(1 << 20), version)
        assert store.get("c") == b"small"
        assert [item.key for item in store.list("")] == ["c"]
        assert temporaries(tmp_path / "store") == []
        store.create("k", bytes(1 << 10))


def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=1m"):
        FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic").create("k", b"x")
        (tmp_path / "bare").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        store = FsObjectStore(tmp_path / "store", tmp_path / "store" / "atomic")
        assert store.get("k") == b"x"
        assert [item.key for item in store.list("")] == ["k"]
        with pytest.raises(StoreAccessDeniedError, match="mount it writable"):
            store.create("b", b"x")
        with pytest.raises(StoreAccessDeniedError):
            store.delete(["k"])
        bare = FsObjectStore(tmp_path / "bare", tmp_path / "bare" / "atomic")
        assert bare.read("k") is None
        with pytest.raises(StoreNotFoundError, match="atomic"):
            bare.create("k", b"x")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EROFS, StoreAccessDeniedError),
        (errno.EACCES, StoreAccessDeniedError),
        (errno.EPERM, StoreAccessDeniedError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.EIO, StoreUnavailableError),
        (errno.ETIMEDOUT, StoreUnavailableError),
    ],
)
def test_what_the_system_says_becomes_an_error_of_the_product(
    store: FsObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[Exception],
) -> None:
    for function in ("write", "fsync"):
        fail(function, number, monkeypatch)
        with pytest.raises(expected, match=r"'k' in fs://.*store: " + os.strerror(number)):
            store.create("k", b"x")
        fail(function, number, monkeypatch)
        with pytest.raises(expected):
            store.replace("k", b"x", None)
        monkeypatch.undo()
    assert list(store.list("")) == []
    assert temporaries(tmp_path / "store") == []


def test_a_short_write_is_carried_on(store: FsObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    store.create("k", bytes(range(100)))
    assert store.get("k") == bytes(range(100))


def test_a_folder_or_a_file_in_the_way_of_a_key_is_told(store: FsObjectStore) -> None:
    store.create("a/b", b"x")
    with pytest.raises(ObjectNotFoundError):
        store.get("a")
    with pytest.raises(ObjectNotFoundError):
        store.get("a/b/c")
    for key in ("a", "a/b/c"):
        with pytest.raises(ObjectExistsError, match="in the way"):
            store.create(key, b"x")


def test_a_lock_that_is_never_given_back_is_told(
    store: FsObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.replace("k", b"old", None)
    (lock,) = (tmp_path / "store" / "atomic").glob("*.lock")
    monkeypatch.setattr(fs_lock, "WAIT_SECONDS", 0.0)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailableError, match="held by another process"):
            store.replace("k", b"new", version)
    store.replace("k", b"new", version)


def test_a_file_system_without_locks_is_told(store: FsObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ConfigurationError, match="no file locks"):
        store.replace("k", b"x", None)
