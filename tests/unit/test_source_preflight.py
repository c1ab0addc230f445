"""What is refused and what is warned about before a backup starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.questdb.features import counts_squashes, parse_version, rebuilds_indexes
from questdb_backup.source import preflight
from questdb_backup.source.preflight import RootFacts, Volume, inspect_root, judge_root, judge_server

DB = Volume(path="db", real="/r/db", device=1, fs_type="ext4", total=1000 << 20, free=600 << 20)
GOOD = RootFacts(root="/r", exists=True, has_db=True, volumes=(DB,))


def levels(facts: RootFacts) -> list[str]:
    return [finding.level for finding in judge_root(facts)]


def test_a_good_root_has_no_findings() -> None:
    assert judge_root(GOOD) == []


@pytest.mark.parametrize(
    ("free", "expected"), [(99, ["refuse"]), (100, ["warn"]), (499, ["warn"]), (500, [])]
)
def test_free_space_is_judged_by_its_share(free: int, expected: list[str]) -> None:
    assert levels(replace(GOOD, volumes=(replace(DB, free=free << 20),))) == expected


def test_each_volume_is_judged_once() -> None:
    full = replace(DB, free=0)
    same, other = replace(full, path="db/t"), replace(full, path="db/v", device=2)
    findings = judge_root(replace(GOOD, volumes=(full, same, other)))
    assert [finding.text.split(" is free")[0] for finding in findings] == [
        "0% of the volume of db",
        "0% of the volume of db/v",
    ]


@pytest.mark.parametrize("name", ["nfs4", "tmpfs", "btrfs", "fuse.sshfs"])
def test_a_file_system_that_questdb_does_not_support_is_warned_about(name: str) -> None:
    (finding,) = judge_root(replace(GOOD, volumes=(replace(DB, fs_type=name),)))
    assert finding.level == "warn"
    assert name in finding.text


def test_roots_that_are_none_are_refused(tmp_path: Path) -> None:
    assert levels(inspect_root(tmp_path / "missing")) == ["refuse"]
    assert levels(inspect_root(tmp_path)) == ["refuse"]


def test_links_and_triggers_are_seen(tmp_path: Path) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    (root / "db" / "t").mkdir(parents=True)
    (root / "conf").mkdir()
    (away / "p").mkdir(parents=True)
    (root / "db" / "v").symlink_to(away)
    (root / "db" / "t" / "2024").symlink_to(away / "p")
    (root / "db" / "t" / "2025").symlink_to(away / "gone")
    (root / "conf" / "server.conf").symlink_to(tmp_path / "server.conf")
    (root / "_restore").touch()
    facts = inspect_root(root)
    assert [volume.path for volume in facts.volumes] == ["db", ".checkpoint", "db/t/2024", "db/v"]
    assert [Path(volume.real) for volume in facts.volumes][2:] == [away / "p", away]
    assert facts.broken_links == ("db/t/2025",)
    assert facts.left_out == ("conf/server.conf",)
    assert (facts.has_restore_trigger, facts.has_checkpoint, len(facts.devices)) == (True, False, 1)
    texts = " ".join(finding.text for finding in judge_root(facts))
    for word in ("db/t/2025", "conf/server.conf", "_restore"):
        assert word in texts


def test_the_type_of_a_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nx /data tmpfs rw 0 0\n/dev/b /data xfs rw 0 0\nn /data\\040b nfs4 rw 0 0\n"
    )
    table = preflight._mounts(mounts)
    found = [
        preflight._fs_type(path, table) for path in ("/data", "/data/db", "/data b/db", "/database", "/")
    ]
    assert found == ["xfs", "xfs", "nfs4", "ext4", "ext4"]
    assert preflight._mounts(tmp_path / "none") == []


@pytest.mark.parametrize("version", ["8.1.0", "7.4.2", "8.0"])
def test_servers_without_checkpoints_are_refused(version: str) -> None:
    assert [finding.level for finding in judge_server(version)] == ["refuse"]


def test_hazards_of_a_version_are_named() -> None:
    assert [len(judge_server(version)) for version in ("8.1.1", "9.1.0", "9.3.3", "9.3.4", "9.4.0")] == [
        5,
        4,
        3,
        1,
        0,
    ]
    assert "#6564" in judge_server("9.1.0")[0].text
    assert [finding.level for finding in judge_server(None)] == ["warn"]


def test_what_a_server_can_do_is_told_by_its_version() -> None:
    assert parse_version("QuestDB 9.3.4-SNAPSHOT") == (9, 3, 4)
    assert parse_version("9.3") == (9, 3, 0)
    assert parse_version("unknown") is None
    for can in (rebuilds_indexes, counts_squashes):
        assert [can(version) for version in ("9.3.4", "10.0.0", "9.2.3", "9.3.0", None)] == [
            True,
            True,
            False,
            False,
            False,
        ]
