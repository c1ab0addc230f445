"""Volumes made of kept snapshots: what is done next, and that a repeated call does nothing twice."""

from dataclasses import replace
from typing import Any

import pytest

from questdb_backup.clock import seconds_between
from questdb_backup.ebs.base import INSTANCE_TAG, KEPT_UNTIL_TAG, RUN_TAG, STACK_TAG, Snapshot, VolumeSnapshot
from questdb_backup.errors import ConfigurationError, NoRestorePointError, SnapshotError
from questdb_backup.restore.request import Restore, RestoreRequest
from questdb_backup.restore.server_conf import PROPERTY
from questdb_backup.restore.volume_request import VolumeRequest
from questdb_backup.services import Services
from questdb_backup.steps.restore_volumes import next_steps, restore_volumes
from tests.support.backups import INSTANCE, make_services
from tests.support.memory_volumes import MemoryVolumes

ZONE = "us-east-1a"
AT = "2026-01-01T00:00:00.000001Z"
SNAPSHOTS = (
    VolumeSnapshot(volume_id="vol-a", device="/dev/sdf", snapshot_id="snap-a"),
    VolumeSnapshot(volume_id="vol-b", device="/dev/sdg", snapshot_id="snap-b"),
)
RESTORE = Restore(
    execution="execution-1",
    root="",
    instance=INSTANCE,
    backup_timestamp=AT,
    manifest_key="key",
    manifest_digest="digest",
    server_version="9.3.4",
    tables=1,
    files=2,
    bytes=3,
)


class KeptSnapshots:
    """Of EC2 only what this step asks for."""

    def __init__(self, *kept: str) -> None:
        self.tagged: list[tuple[tuple[str, ...], dict[str, str]]] = []
        self._kept = {each.snapshot_id: _snapshot(each) for each in SNAPSHOTS if each.snapshot_id in kept}

    def describe_snapshots(self, ids: list[str]) -> tuple[Snapshot, ...]:
        return tuple(self._kept[each] for each in ids if each in self._kept)

    def tag_snapshots(self, ids: list[str], tags: dict[str, str]) -> None:
        self.tagged.append((tuple(ids), tags))

    def find_snapshots(self, _tags: dict[str, str]) -> tuple[Snapshot, ...]:
        return tuple(self._kept.values())


def _snapshot(made: VolumeSnapshot) -> Snapshot:
    return Snapshot(
        snapshot_id=made.snapshot_id,
        volume_id=made.volume_id,
        state="completed",
        message="",
        progress_percent=100,
        size=8 << 30,
        started_at=AT,
        tags={RUN_TAG: AT, INSTANCE_TAG: INSTANCE, STACK_TAG: "questdb-backup"},
    )


def services_of(volumes: MemoryVolumes, *kept: str) -> Services:
    services = make_services()
    services.make_volumes = lambda: volumes
    ec2 = KeptSnapshots(*(kept or ("snap-a", "snap-b")))
    services.make_ec2 = lambda: ec2  # type: ignore[assignment,return-value]
    return services


def begun(*, dry_run: bool = False, **asked: Any) -> dict[str, Any]:
    request = VolumeRequest.from_json({"availability_zone": ZONE, **asked})
    return {
        "request": request.to_json(),
        "snapshots": [each.to_json() for each in SNAPSHOTS],
        "dry_run": dry_run,
        "phase": "new",
        "polls": 0,
    }


def run(services: Services, state: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Poll until it is done: the phases that were seen, and the result."""
    phases: list[str] = []
    for _ in range(50):
        state = restore_volumes(services, RESTORE, state)
        if phases[-1:] != [state["phase"]]:
            phases.append(state["phase"])
        if state["phase"] == "done":
            return phases, state["result"]
        assert state["wait_seconds"] > 0
    raise AssertionError(phases)


def test_a_volume_is_made_of_each_snapshot_once_and_what_to_do_next_is_said() -> None:
    volumes = MemoryVolumes(slowness=3)
    phases, result = run(services_of(volumes), begun())
    assert phases == ["creating", "done"]
    assert volumes.calls == ["create", "create"]
    assert [volume["source_volume_id"] for volume in result["volumes"]] == ["vol-a", "vol-b"]
    told = " ".join(result["notes"])
    assert "_restore" in told
    assert "first read" in told, "blocks are loaded lazily"


@pytest.mark.parametrize("rebuilds", [True, False])
def test_indexes_are_to_be_made_anew_where_the_server_can(rebuilds: bool) -> None:
    restore = replace(RESTORE, rebuild_indexes=rebuilds)
    steps = " ".join(next_steps(restore, attached=True))
    assert (PROPERTY in steps) is rebuilds
    assert steps.index("_restore in") < steps.index("start QuestDB 9.3.4")


def test_a_call_that_is_repeated_from_the_start_makes_nothing_again() -> None:
    volumes = MemoryVolumes()
    services = services_of(volumes)
    restore_volumes(services, RESTORE, begun())
    run(services, begun())
    assert volumes.calls == ["create", "create"]


def test_with_an_initialization_rate_the_data_are_waited_for() -> None:
    volumes = MemoryVolumes()
    phases, result = run(services_of(volumes), begun(initialization_rate=300))
    assert phases == ["creating", "initializing", "done"]
    assert {spec.initialization_rate for spec in volumes.specs.values()} == {300}
    assert "first read" not in " ".join(result["notes"])


def test_fast_snapshot_restore_is_waited_for_and_switched_off_again() -> None:
    volumes = MemoryVolumes()
    phases, _ = run(services_of(volumes), begun(fast_snapshot_restore=True))
    assert phases == ["optimizing", "creating", "done"]
    assert volumes.calls == ["enable", "create", "create", "disable"]


def test_fast_snapshot_restore_is_switched_off_after_an_error() -> None:
    volumes = MemoryVolumes(refused={"snap-b": "error"})
    services, state = services_of(volumes), begun(fast_snapshot_restore=True)
    with pytest.raises(SnapshotError, match="snap-b"):
        run(services, state)
    assert "disable" not in volumes.calls
    for _ in range(2):
        assert restore_volumes(services, RESTORE, state, {"Error": "SnapshotError"}) == state
    assert volumes.calls.count("disable") == 1
    assert set(volumes.fast_restore_states(["snap-a", "snap-b"], ZONE).values()) <= {"disabling", "disabled"}


def test_no_sweep_takes_the_snapshots_while_a_restore_may_need_them() -> None:
    services = services_of(MemoryVolumes())
    begin = services.now()
    run(services, begun())
    ((ids, tags),) = services.ec2.tagged  # type: ignore[attr-defined]
    assert ids == ("snap-a", "snap-b")
    assert seconds_between(begin, tags[KEPT_UNTIL_TAG]) > 24 * 3600
    other = services_of(MemoryVolumes())
    run(other, begun(dry_run=True))
    assert other.ec2.tagged == []  # type: ignore[attr-defined]


def test_volumes_are_attached_under_their_old_names_or_the_next_free_ones() -> None:
    volumes = MemoryVolumes()
    services = services_of(volumes)
    run(services, begun(attach_to="i-1"))
    other = services_of(volumes)
    state = begun(attach_to="i-1")
    second = Restore(**{**RESTORE.to_json(), "execution": "execution-2", "notes": ()})
    for _ in range(20):
        state = restore_volumes(other, second, state)
    assert [volume["device"] for volume in state["result"]["volumes"]] == ["/dev/sdh", "/dev/sdi"]


def test_a_volume_that_fails_ends_the_restore_with_its_name() -> None:
    volumes = MemoryVolumes(refused={"snap-b": "error"})
    with pytest.raises(SnapshotError, match=r"vol-0+1, made of snap-b, is in state 'error'"):
        run(services_of(volumes), begun())


def test_a_backup_whose_snapshots_are_gone_says_which_there_are() -> None:
    volumes = MemoryVolumes()
    with pytest.raises(NoRestorePointError, match="no EBS snapshots are kept") as caught:
        run(services_of(volumes, "snap-a"), begun())
    assert AT in caught.value.hint
    assert volumes.calls == []


def test_a_dry_run_makes_nothing() -> None:
    volumes = MemoryVolumes()
    _, result = run(services_of(volumes), begun(dry_run=True))
    assert result["dry_run"] is True
    assert volumes.calls == []


def test_a_size_below_the_snapshots_is_refused_first() -> None:
    volumes = MemoryVolumes()
    with pytest.raises(ConfigurationError, match="8 GiB"):
        run(services_of(volumes), begun(size_gib=4))
    assert volumes.calls == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "zone"),
        ({"availability_zone": ZONE, "size": 1}, "no field 'size'"),
        ({"availability_zone": ZONE, "size_gib": "8"}, "size_gib"),
        ({"availability_zone": ZONE, "iops": 0}, "iops"),
        ({"availability_zone": ZONE, "initialization_rate": 50}, "100 to 300"),
        ({"availability_zone": ZONE, "initialization_rate": 100, "fast_snapshot_restore": True}, "exclude"),
    ],
)
def test_a_request_that_cannot_be_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RestoreRequest.from_json({"target": "volume", "volume": asked})


def test_target_and_volume_go_together_and_back_to_json() -> None:
    request = RestoreRequest.from_json({"target": "volume", "volume": {"availability_zone": ZONE}})
    assert request.to_json() == {
        "target": "volume",
        "volume": {"availability_zone": ZONE, "volume_type": "gp3"},
    }
    for wrong in ({"target": "volume"}, {"volume": {"availability_zone": ZONE}}, {"target": "tape"}):
        with pytest.raises(ConfigurationError):
            RestoreRequest.from_json(wrong)
