from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.errors import ConfigurationError, NoRestorePointError, VersionMismatchError
from questdb_backup.restore_point import choose_instance, choose_restore_point, judge_server_version
from questdb_backup.words import BackupStatus

ORCHID, ROSE = "gentle-forest-orchid", "quiet-river-rose"


@dataclass(frozen=True, slots=True)
class Row:
    backup_timestamp: str
    status: str = "backup complete"


FIRST, SECOND, THIRD = (Row(f"2025-08-0{day}T12:00:00.000000Z") for day in (1, 2, 3))


def test_the_only_instance_is_detected() -> None:
    assert choose_instance([ORCHID], None) == ORCHID


def test_the_asked_instance_is_taken() -> None:
    assert choose_instance([ROSE, ORCHID], ORCHID) == ORCHID


def test_several_instances_are_listed_where_none_is_asked_for() -> None:
    with pytest.raises(
        ConfigurationError, match=rf"several .*: {ORCHID}, {ROSE}\. Hint: .*backup\.instance\.name"
    ):
        choose_instance([ROSE, ORCHID], None)


def test_an_unknown_instance_is_an_error_with_the_nearest_name_and_all_that_there_are() -> None:
    with pytest.raises(NoRestorePointError) as caught:
        choose_instance([ROSE, ORCHID], "gentle-forrest-orchid")

    assert str(caught.value) == (
        "no backup instance is named 'gentle-forrest-orchid'. "
        f"Hint: the nearest one is {ORCHID}; the store holds {ORCHID}, {ROSE}."
    )


def test_one_instance_is_no_answer_where_another_one_is_asked_for() -> None:
    with pytest.raises(NoRestorePointError, match=f"the store holds {ORCHID}"):
        choose_instance([ORCHID], ROSE)


@pytest.mark.parametrize("asked", [None, ORCHID])
def test_an_empty_store_says_that_nothing_is_stored_here(asked: str | None) -> None:
    with pytest.raises(NoRestorePointError, match="nothing is stored here"):
        choose_instance([], asked)


@pytest.mark.parametrize(
    ("timestamp", "found"),
    [
        (None, THIRD),
        ("2025-08-02T12:00:00.000000Z", SECOND),
        ("2025-08-02T11:59:59.999999Z", FIRST),
        ("2025-08-02T12:00:00.0000009Z", SECOND),
        ("2025-08-02T14:00:00+02:00", SECOND),
        ("2025-08-03", SECOND),
        ("2099-01-01", THIRD),
    ],
)
def test_the_newest_complete_backup_at_or_before_the_timestamp_is_taken(
    timestamp: str | None, found: Row
) -> None:
    assert choose_restore_point([SECOND, THIRD, FIRST], timestamp) == found


@pytest.mark.parametrize("status", [status for status in BackupStatus if status != "backup complete"])
def test_a_backup_of_another_status_is_never_taken(status: BackupStatus) -> None:
    newer = Row("2025-08-09T12:00:00.000000Z", status)

    assert choose_restore_point([FIRST, newer], None) == FIRST


def test_where_no_backup_is_old_enough_the_error_is_questdbs_with_the_range_that_there_is() -> None:
    with pytest.raises(NoRestorePointError) as caught:
        choose_restore_point([FIRST, SECOND, THIRD], "2025-08-01")

    assert str(caught.value) == (
        "backup restore error: No backup timestamp found that is <= 2025-08-01T00:00:00.000000Z. "
        "Hint: the 3 complete backups range from 2025-08-01T12:00:00.000000Z to 2025-08-03T12:00:00.000000Z."
    )


def test_an_instance_without_a_complete_backup_says_so() -> None:
    with pytest.raises(NoRestorePointError, match="has no complete backup"):
        choose_restore_point([Row(FIRST.backup_timestamp, "backup failed")], None)


def test_a_timestamp_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="'yesterday' is not a timestamp"):
        choose_restore_point([FIRST], "yesterday")


@given(st.sets(st.integers(1, 28), min_size=1), st.integers(1, 28))
def test_no_complete_backup_lies_between_the_restore_point_and_the_timestamp(
    days: set[int], asked: int
) -> None:
    rows = [Row(f"2025-08-{day:02}T00:00:00.000000Z") for day in days]
    timestamp = f"2025-08-{asked:02}"

    if asked < min(days):
        with pytest.raises(NoRestorePointError):
            choose_restore_point(rows, timestamp)
    else:
        chosen = choose_restore_point(rows, timestamp)
        assert chosen.backup_timestamp[8:10] == f"{max(day for day in days if day <= asked):02}"


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [("8.1.0", "8.1.0"), ("8.1.0", "8.1.1"), ("9.1", "9.3.4"), ("9.3.4", "9.10.0"), ("9.3.4", "9.3.4-rc1")],
)
def test_the_same_or_a_newer_version_of_the_same_major_one_fits(recorded: str, wanted: str) -> None:
    assert judge_server_version(recorded, wanted, force=False) == []


@pytest.mark.parametrize(
    ("recorded", "wanted", "complaint"),
    [
        ("8.1.0", "7.5.1", "different major versions"),
        ("8.1.0", "9.0.0", "different major versions"),
        ("9.3.4", "9.3.3", "QuestDB 9.3.3 is older than 9.3.4"),
        ("9.10.0", "9.9.9", "older"),
    ],
)
def test_another_major_version_or_a_downgrade_is_refused_unless_forced(
    recorded: str, wanted: str, complaint: str
) -> None:
    with pytest.raises(VersionMismatchError, match=complaint):
        judge_server_version(recorded, wanted, force=False)
    (note,) = judge_server_version(recorded, wanted, force=True)
    assert complaint in note
    assert note.endswith("forced")


def test_a_version_that_is_not_recorded_is_said_to_be_so() -> None:
    (note,) = judge_server_version(None, "9.3.4", force=False)
    assert "does not record" in note
    (note,) = judge_server_version("[DEVELOPMENT]", "9.3.4", force=False)
    assert "[DEVELOPMENT]" in note


def test_where_no_server_is_named_the_note_says_which_one_to_take() -> None:
    (note,) = judge_server_version("9.3.4", None, force=False)

    assert note == "the backup was made with QuestDB 9.3.4: open it with that or a newer 9.x version"


def test_a_wanted_version_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="'latest' is not a QuestDB version"):
        judge_server_version("9.3.4", "latest", force=True)
