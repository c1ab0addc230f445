"""Every class of object, harmed in every way: verify finds it, and no restore gives wrong bytes.

Whatever verify passes has to be harmless: each backup comes back byte for byte. What only a listing can
see (an older catalog that was put back) is found by check. The table is printed: ``pytest -s``.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from questdb_backup import keys
from questdb_backup.catalog import encode_catalog
from questdb_backup.check.orphans import remove_orphans
from questdb_backup.check.shapes import Kind, shape_of
from questdb_backup.check.store import check_store
from questdb_backup.errors import BackupToolError
from questdb_backup.instances import Instance, encode_instances, read_instances
from questdb_backup.packs import read_index
from questdb_backup.restore_point import choose_instance
from questdb_backup.services import Services
from questdb_backup.stores.memory import MemoryObjectStore
from questdb_backup.verify import Report, verify
from tests.support.backups import INSTANCE, listing, make_services, restore_by_steps
from tests.support.checking import Chain, make_chain

Files = dict[str, tuple[str, int, bytes]]
Harm = Callable[[bytes], bytes | None]
PERCENTS = (0, 20, 40, 60, 80, 100)
HARMLESS = ("tombstone", "plan", "tables", "unit", "result")
"""No restore reads these; the harm of a tombstone is told by check."""
LISTS = (Kind.CATALOG, Kind.INSTANCES)
"""No list at all, or an older one, is whole in itself: check sees what the store holds beside it."""


def flip(part: float, start: float = 0.0, end: float = 1.0) -> Harm:
    """One bit, at a part of the stretch from ``start`` to ``end`` (parts of the object, too)."""

    def harm(data: bytes) -> bytes:
        first, last = int(start * len(data)), int(end * len(data)) - 1
        at = first + round(part * (last - first))
        return data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :]

    return harm


DAMAGES: dict[str, Harm] = {
    **{f"flip at {percent} %": flip(percent / 100) for percent in PERCENTS},
    "truncate by 1": lambda data: data[:-1],
    "truncate to half": lambda data: data[: len(data) // 2],
    "append": lambda data: data + b"\0",
    "empty": lambda _data: b"",
    "drop": lambda _data: None,
}


@dataclass
class Stored:
    """A chain of three backups, the objects of its store, and what each backup holds."""

    objects: dict[str, bytes]
    older: dict[str, bytes]  # catalog.json and instances.json before the last backup
    contents: dict[str, Files]
    folder: Path
    tried: int = 0

    @property
    def newest(self) -> str:
        return max(self.contents)

    def store(self, **changed: bytes | None) -> MemoryObjectStore:
        made = MemoryObjectStore()
        for key, data in {**self.objects, **changed}.items():
            if data is not None:
                made.create(key, data)
        return made


@dataclass(frozen=True)
class Case:
    """One damage to one object; ``of`` is its line of the table."""

    of: str
    key: str
    damage: str
    data: bytes | None


@dataclass
class Line:
    """What became of the cases of one class."""

    tried: int = 0
    verify: int = 0
    check: int = 0
    refused: int = 0
    another: int = 0
    right: int = 0
    gaps: list[str] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)
    """What verify passes."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("matrix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("questdb_backup.restore.marks.sync_file_system", lambda _descriptor: None)
        patch.setattr("os.fsync", lambda _descriptor: None)  # nobody cuts the power here
        chain = make_chain(folder, 2)
        older = {key: chain.store.get(key) for key in (keys.INSTANCES, keys.catalog(INSTANCE))}
        chain.backup("symbols of the third backup")
        _leave_a_tombstone(chain)
        made = Stored({key: chain.store.get(key) for key in chain.stored()}, older, {}, folder)
        for row in chain.catalog().complete_rows():
            made.contents[row.backup_timestamp] = restored(made, made.store(), row.backup_timestamp)
        yield made


def _leave_a_tombstone(chain: Chain) -> None:
    run = chain.catalog().rows[0].backup_timestamp
    for number in range(120):
        chain.store.create(keys.pack(INSTANCE, keys.pack_name(run, 900 + number, 0, 0)), b"left over")
    chain.services.config = replace(chain.services.config, grace_seconds=0.0)
    remove_orphans(chain.services, INSTANCE)
    assert chain.catalog().tombstones[0].names_key


def restored(stored: Stored, store: MemoryObjectStore, timestamp: str | None) -> Files:
    stored.tried += 1
    root = stored.folder / f"restored-{stored.tried}"
    request = {"root": str(root), **({"timestamp": timestamp} if timestamp else {})}
    try:
        restore_by_steps(make_services(None, store), request)
        return listing(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def keys_of(stored: Stored, kind: Kind) -> list[str]:
    found = [key for key in stored.objects if (shape := shape_of(key)) and shape.kind is kind]
    return sorted(key for key in found if stored.objects[key] != b"left over")


def whole_object_cases(stored: Stored, kind: Kind) -> Iterator[Case]:
    """Every damage to the oldest and the newest object of the class, swaps with another one of it."""
    found = keys_of(stored, kind)
    for key in sorted({found[0], found[-1]}):
        for damage, harm in DAMAGES.items():
            yield Case(kind, key, damage, harm(stored.objects[key]))
        for other in found:
            if stored.objects[other] != stored.objects[key]:
                yield Case(kind, key, "swap" if other > key else "replay", stored.objects[other])


def pack_cases(stored: Stored) -> Iterator[Case]:
    """Packs by their parts: the chunks, the index, the tail."""
    for key in keys_of(stored, Kind.PACK):
        data = stored.objects[key]
        body = max(chunk.offset + chunk.stored for chunk in read_index(data, key)) / len(data)
        tail = 1 - 8 / len(data)
        for name, start, end in (
            ("pack body", 0.0, body),
            ("pack index", body, tail),
            ("pack tail", tail, 1.0),
        ):
            for percent in PERCENTS:
                yield Case(name, key, f"flip at {percent} %", flip(percent / 100, start, end)(data))
    for case in whole_object_cases(stored, Kind.PACK):
        if not case.damage.startswith("flip"):
            yield case


def replaced_cases(stored: Stored, kind: Kind, key: str, another: bytes) -> Iterator[Case]:
    """The two objects that are replaced: another instance's, and their own older version."""
    for damage, harm in DAMAGES.items():
        yield Case(kind, key, damage, harm(stored.objects[key]))
    for step in range(0, len(stored.objects[key]), 83):  # nothing refers to these: many places
        yield Case(
            kind, key, f"flip at byte {step}", flip(step / len(stored.objects[key]))(stored.objects[key])
        )
    yield Case(kind, key, "swap", another)
    yield Case(kind, key, "replay", stored.older[key])


def another_instance(tmp_path: Path) -> bytes:
    chain = make_chain(tmp_path / "another", 1)
    return encode_catalog(replace(chain.catalog(), instance="fierce-forest-orchid"))


def all_cases(stored: Stored, tmp_path: Path) -> Iterator[Case]:
    yield from replaced_cases(stored, Kind.CATALOG, keys.catalog(INSTANCE), another_instance(tmp_path))
    other = encode_instances([Instance(name="fierce-forest-orchid")])
    yield from replaced_cases(stored, Kind.INSTANCES, keys.INSTANCES, other)
    yield from pack_cases(stored)
    for kind in (Kind.MANIFEST, Kind.SHARD, Kind.TOMBSTONE, Kind.PLAN, Kind.TABLES, Kind.UNIT, Kind.RESULT):
        yield from whole_object_cases(stored, kind)


def strike(stored: Stored, case: Case, line: Line) -> None:
    """One case: what verify, check and the restores of all backups say."""
    store = stored.store(**{case.key: case.data})
    services = make_services(None, store)
    line.tried += 1
    seen = _says_problem(lambda: not _verify_as_the_verb(services).ok)
    told = _says_problem(lambda: not check_store(services).ok)
    asked = _asked(stored, case)
    outcomes = [_outcome(stored, store, timestamp) for timestamp in asked]
    line.verify += seen
    line.unseen |= set() if seen else {case.damage}
    line.check += told
    line.refused += "refused" in outcomes
    line.another += "another" in outcomes
    line.right += set(outcomes) == {"right"}
    where = f"{case.of}: {case.damage}"
    harmless = set(outcomes) == {"right"}
    excused = case.of in LISTS and told
    if "wrong" in outcomes or not (seen or harmless or excused) or (case.of in HARMLESS and not harmless):
        line.gaps.append(f"{where} of {case.key}: {outcomes}, verify {seen}, check {told}")


def _asked(stored: Stored, case: Case) -> tuple[str | None, ...]:
    """The restores that are tried: by all timestamps where a list is harmed, else the first and the last."""
    if case.of in HARMLESS:
        return (None,)
    return (*stored.contents, None) if case.of in LISTS else (min(stored.contents), None)


def _verify_as_the_verb(services: Services) -> Report:
    names = [known.name for known in read_instances(services.store)[0]]
    return verify(services, choose_instance(names, None), None, (1, 1))


def _says_problem(act: Callable[[], bool]) -> bool:
    try:
        return act()
    except BackupToolError:
        return True


def _outcome(stored: Stored, store: MemoryObjectStore, timestamp: str | None) -> str:
    """``another``: a whole backup, but an older one than the asked (the restore tells which)."""
    try:
        found = restored(stored, store, timestamp)
    except BackupToolError:
        return "refused"
    if found == stored.contents[timestamp or stored.newest]:
        return "right"
    return "another" if found in stored.contents.values() else "wrong"


def test_no_damage_is_a_gap(stored: Stored, tmp_path: Path) -> None:
    lines: dict[str, Line] = {}
    for case in all_cases(stored, tmp_path):
        strike(stored, case, lines.setdefault(case.of, Line()))
    print(f"\n{'class':12} tried verify check refused another all-right")
    for name, line in lines.items():
        print(
            f"{name:12} {line.tried:5} {line.verify:6} {line.check:5} {line.refused:7} {line.another:7}"
            f" {line.right:9}"
        )
    gaps = [gap for line in lines.values() for gap in line.gaps]
    assert not gaps, "\n".join(gaps)
    for name in ("pack body", "pack index", "pack tail", "manifest"):
        assert lines[name].verify == lines[name].tried
    for name in LISTS:  # whole in themselves: no list at all, another instance's, an older one
        assert lines[name].unseen <= {"drop", "swap", "replay"}
