"""What every `Ec2` does: the twin in memory, and boto3 against the stand-in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from questdb_backup.ebs import ec2 as ec2_adapter
from questdb_backup.ebs.base import Ec2, Snapshot, UnknownOutcomeError
from questdb_backup.ebs.ec2 import BotoEc2
from questdb_backup.errors import SnapshotError, VolumeUnavailableError
from standin.ebs import Delays, EbsStandin, Quotas
from tests.support.memory_ec2 import GIB, MemoryEc2

TAGS = {"questdb-backup:run": "2026-01-01T00:00:00.000000Z", "Name": "a name"}


class Place(Protocol):
    """What a test does behind the back of `Ec2`."""

    @property
    def ec2(self) -> Ec2:
        """The one that is tested."""

    def instance(self, state: str = "running", **tags: str) -> str: ...
    def volume(self, instance_id: str, device: str, *, root: bool = False) -> str: ...
    def detach(self, volume_id: str) -> None: ...
    def end(self, snapshot_id: str, state: str, message: str = "") -> None: ...
    def lock(self, snapshot_id: str) -> None: ...
    def drop(self, snapshot_id: str) -> None: ...
    def lose_answer(self, when: str) -> None: ...
    def throttle(self) -> None: ...
    def count(self) -> int: ...


@dataclass
class InMemory:
    ec2: MemoryEc2

    def instance(self, state: str = "running", **tags: str) -> str:
        return self.ec2.add_instance(state=state, **tags)

    def volume(self, instance_id: str, device: str, *, root: bool = False) -> str:
        return self.ec2.add_volume(instance_id, device, root=root)

    def detach(self, volume_id: str) -> None:
        self.ec2.detach(volume_id)

    def end(self, snapshot_id: str, state: str, message: str = "") -> None:
        self.ec2.end_snapshot(snapshot_id, state, message)

    def lock(self, snapshot_id: str) -> None:
        self.ec2.lock_snapshot(snapshot_id)

    def drop(self, snapshot_id: str) -> None:
        self.ec2.drop_snapshot(snapshot_id)

    def lose_answer(self, when: str) -> None:
        self.ec2.lose_answer(when)

    def throttle(self) -> None:
        self.ec2.be_busy()

    def count(self) -> int:
        return len(self.ec2.snapshots())


@dataclass
class OnStandin:
    ec2: BotoEc2
    standin: EbsStandin
    image: Path

    def instance(self, state: str = "running", **tags: str) -> str:
        return self.standin.add_instance(state=state, tags=tags)

    def volume(self, instance_id: str, device: str, *, root: bool = False) -> str:
        return self.standin.add_volume(instance_id, image=self.image, device=device, root=root)

    def detach(self, volume_id: str) -> None:
        self.standin.detach(volume_id)

    def end(self, snapshot_id: str, state: str, message: str = "") -> None:
        assert state in ("completed", "error", "recoverable")
        self.standin.end_snapshot(snapshot_id, state, message)  # type: ignore[arg-type]

    def lock(self, snapshot_id: str) -> None:
        self.standin.lock_snapshot(snapshot_id, 3600)

    def drop(self, snapshot_id: str) -> None:
        self.standin.drop_snapshot(snapshot_id)

    def lose_answer(self, when: str) -> None:
        self.standin.faults.cut("CreateSnapshots", after_effect=when == "after")

    def throttle(self) -> None:
        self.standin.faults.fail("CreateSnapshots", "RequestLimitExceeded", "slow down", status=503)

    def count(self) -> int:
        return len(self.standin.snapshots())


@pytest.fixture(params=["memory", "boto3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "memory":
        yield InMemory(MemoryEc2(looks=1000))
        return
    image = tmp_path / "volume.img"
    image.write_bytes(bytes(4096))
    terms = Delays(snapshot=3600.0)
    with EbsStandin(tmp_path / "standin", delays=terms, quotas=Quotas(snapshot_interval=0.0)) as standin:
        for name, value in standin.environment.items():
            monkeypatch.setenv(name, value)
        ec2 = BotoEc2()
        yield OnStandin(ec2, standin, image)
        ec2.close()


def test_an_instance_is_found_by_its_id_and_by_a_tag_that_it_alone_has(place: Place) -> None:
    one, other = place.instance(Name="questdb", Stage="prod"), place.instance(Name="other", Stage="prod")
    assert place.ec2.find_instance(one) == one
    assert place.ec2.find_instance("Name=other") == other
    with pytest.raises(SnapshotError, match="2 running instances have the tag Stage=prod"):
        place.ec2.find_instance("Stage=prod")
    with pytest.raises(SnapshotError, match="no running instances have the tag Name=none"):
        place.ec2.find_instance("Name=none")
    with pytest.raises(SnapshotError, match=r"InvalidInstanceID\.NotFound"):
        place.ec2.find_instance("i-0aaaaaaaaaaaaaaaa")


def test_a_tag_finds_running_instances_alone_and_the_state_is_told(place: Place) -> None:
    stopped, running = place.instance("stopped", Name="questdb"), place.instance(Name="questdb")
    assert place.ec2.find_instance("Name=questdb") == running
    assert place.ec2.find_instance(stopped) == stopped
    assert [place.ec2.instance_state(each) for each in (stopped, running)] == ["stopped", "running"]


def test_the_volumes_are_those_that_are_attached_by_device(place: Place) -> None:
    instance, other = place.instance(), place.instance()
    data = place.volume(instance, "/dev/sdg")
    root = place.volume(instance, "/dev/sda1", root=True)
    place.volume(other, "/dev/sdg")
    gone = place.volume(instance, "/dev/sdf")
    place.detach(gone)
    found = place.ec2.volumes(instance)
    assert [(each.volume_id, each.device, each.is_root) for each in found] == [
        (root, "/dev/sda1", True),
        (data, "/dev/sdg", False),
    ]
    assert {each.size for each in found} == {GIB}


def made(place: Place, instance: str, **tags: str) -> tuple[Snapshot, ...]:
    return place.ec2.create_snapshots(instance, {**TAGS, **tags}, without_root=False, without=[])


def test_one_call_makes_a_tagged_snapshot_of_each_volume_that_is_not_left_out(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sda1", root=True)
    volumes = [place.volume(instance, f"/dev/sd{letter}") for letter in "fgh"]
    found = place.ec2.create_snapshots(instance, TAGS, without_root=True, without=volumes[2:])
    assert sorted(each.volume_id for each in found) == sorted(volumes[:2])
    assert {(each.state, each.message, each.size) for each in found} == {("pending", "", GIB)}
    assert all(each.tags == TAGS and each.started_at.endswith("Z") for each in found)
    assert len({each.started_at for each in found}) == 1
    assert place.count() == 2


def test_the_root_is_taken_where_it_is_not_left_out(place: Place) -> None:
    instance = place.instance()
    root = place.volume(instance, "/dev/sda1", root=True)
    assert [each.volume_id for each in made(place, instance)] == [root]


def test_snapshots_are_found_by_all_their_tags_oldest_first(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    first, second, third = (made(place, instance, round=name)[0] for name in ("1", "2", "1"))
    assert [each.snapshot_id for each in place.ec2.find_snapshots(TAGS)] == sorted(
        (each.snapshot_id for each in (first, second, third)),
        key=lambda name: next(
            (each.started_at, name) for each in (first, second, third) if each.snapshot_id == name
        ),
    )
    found = place.ec2.find_snapshots({**TAGS, "round": "2"})
    assert [(each.snapshot_id, each.tags["round"]) for each in found] == [(second.snapshot_id, "2")]
    assert place.ec2.find_snapshots({"round": "3"}) == ()


def test_a_tag_is_added_to_snapshots_and_replaces_one_of_its_name(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    first, second = (made(place, instance)[0].snapshot_id for _ in range(2))
    for value in ("1", "2"):
        place.ec2.tag_snapshots([first], {"kept": value})
    tags = {each.snapshot_id: each.tags for each in place.ec2.describe_snapshots([first, second])}
    assert tags == {first: {**TAGS, "kept": "2"}, second: TAGS}
    with pytest.raises(SnapshotError):
        place.ec2.tag_snapshots(["snap-0123456789abcdef0"], {"kept": "1"})


def test_pages_are_followed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ec2_adapter, "_PAGE", 5)
    instance = place.instance()
    volumes = [place.volume(instance, f"/dev/sd{letter}") for letter in "fghijklm"]
    assert len(place.ec2.volumes(instance)) == len(volumes)
    names = [each.snapshot_id for each in made(place, instance)]
    assert {each.snapshot_id for each in place.ec2.find_snapshots(TAGS)} == set(names)
    assert [each.snapshot_id for each in place.ec2.describe_snapshots(names)] == names


def test_a_description_gives_those_that_exist_in_the_order_asked(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    one, two, gone = (made(place, instance)[0].snapshot_id for _ in range(3))
    place.drop(gone)
    place.end(two, "completed")
    found = place.ec2.describe_snapshots([two, gone, one])
    assert [(each.snapshot_id, each.state) for each in found] == [(two, "completed"), (one, "pending")]
    assert found[0].progress_percent == 100


def test_a_description_has_the_message_of_a_failure(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    (failed,) = made(place, instance)
    place.end(failed.snapshot_id, "error", "Given key ID is not accessible")
    (found,) = place.ec2.describe_snapshots([failed.snapshot_id])
    assert (found.state, found.message) == ("error", "Given key ID is not accessible")


def test_a_deletion_tells_what_was_gone_and_is_refused_for_what_is_locked(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    free, locked = (made(place, instance)[0].snapshot_id for _ in range(2))
    place.end(free, "completed")
    place.end(locked, "completed")
    place.lock(locked)
    assert place.ec2.delete_snapshot(free) is True
    assert place.ec2.delete_snapshot(free) is False
    with pytest.raises(SnapshotError, match=locked):
        place.ec2.delete_snapshot(locked)
    assert place.count() == 1


@pytest.mark.parametrize(("when", "count"), [("before", 0), ("after", 1)])
def test_an_answer_that_is_lost_is_an_unknown_outcome_and_nothing_is_sent_again(
    place: Place, when: str, count: int
) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    place.lose_answer(when)
    with pytest.raises(UnknownOutcomeError):
        made(place, instance)
    assert place.count() == count


def test_being_asked_to_slow_down_is_no_unknown_outcome(place: Place) -> None:
    instance = place.instance()
    place.volume(instance, "/dev/sdf")
    place.throttle()
    with pytest.raises(VolumeUnavailableError) as caught:
        made(place, instance)
    assert not isinstance(caught.value, UnknownOutcomeError)
    assert place.count() == 0


def test_what_is_refused_is_told_in_ec2s_words(place: Place) -> None:
    with pytest.raises(SnapshotError, match=r"InvalidInstanceID\.NotFound"):
        made(place, "i-0aaaaaaaaaaaaaaaa")
