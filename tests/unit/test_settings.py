from pathlib import Path

import pytest

from questdb_backup.errors import ConfigurationError
from questdb_backup.gentle.priority import IoPriority
from questdb_backup.schedule import Schedule
from questdb_backup.settings import PROPERTIES, Settings, cpu_count, load_settings

STORE = "s3::bucket=my-bucket;region=eu-west-1;access_key_id=k;secret_access_key=s3cr3t;"


def write_conf(root: Path, name: str, text: str) -> Path:
    path = root / "conf" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_place_the_defaults_are_those_of_questdbs_page() -> None:
    settings = load_settings({}, {}, None)

    assert settings == Settings()
    assert settings.enabled is False
    assert settings.object_store is None
    assert settings.schedule is None
    assert settings.schedule_tz == "UTC"
    assert settings.cleanup_keep_latest_n == 5
    assert settings.compression_level == 5
    assert settings.compression_threads == cpu_count() >= 1
    assert settings.read_limit is None
    assert (settings.nice, settings.io_priority) == (10, IoPriority.BEST_EFFORT)
    assert settings.throttle is True
    assert settings.throttle_wal_lag == 200
    assert settings.origins == {}
    assert settings.warnings == ()


def test_every_property_of_the_page_is_read_from_the_environment() -> None:
    settings = load_settings(
        {},
        {
            "QDB_BACKUP_ENABLED": "TRUE",
            "QDB_BACKUP_OBJECT_STORE": STORE,
            "QDB_BACKUP_SCHEDULE_CRON": "0 0 * * *",
            "QDB_BACKUP_SCHEDULE_TZ": "Europe/Berlin",
            "QDB_BACKUP_CLEANUP_KEEP_LATEST_N": "7",
            "QDB_BACKUP_COMPRESSION_LEVEL": "22",
            "QDB_BACKUP_COMPRESSION_THREADS": "3",
            "QDB_BACKUP_INSTANCE_NAME": "gentle-forest-orchid",
            "QDB_BACKUP_RESTORE_TIMESTAMP": "2024-08-24",
            "QDB_BACKUP_READ_LIMIT": "50M",
            "QDB_BACKUP_NICE": "0",
            "QDB_BACKUP_IO_PRIORITY": "idle",
            "QDB_BACKUP_THROTTLE": "OFF",
            "QDB_BACKUP_THROTTLE_WAL_LAG": "1000",
        },
        None,
    )

    assert settings.enabled is True
    assert settings.require_object_store() == STORE
    assert settings.schedule == Schedule(cron="0 0 * * *", tz="Europe/Berlin")
    assert settings.cleanup_keep_latest_n == 7
    assert settings.compression_level == 22
    assert settings.compression_threads == 3
    assert settings.instance_name == "gentle-forest-orchid"
    assert settings.restore_timestamp == "2024-08-24T00:00:00.000000Z"
    assert settings.read_limit == 50 << 20
    assert (settings.nice, settings.io_priority) == (0, IoPriority.IDLE)
    assert settings.throttle is False
    assert settings.throttle_wal_lag == 1000
    assert settings.warnings == ()
    assert settings.origins["backup.enabled"] == "QDB_BACKUP_ENABLED"


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 1 << 20), ("1024k", 1 << 20), ("1M", 1 << 20), ("2g", 2 << 30)]
)
def test_a_size_may_have_a_suffix(text: str, size: int) -> None:
    assert load_settings({"read-limit": text}, {}, None).read_limit == size


def test_each_property_has_a_field_of_its_own() -> None:
    attributes = {known.attribute for known in PROPERTIES}

    assert attributes == set(Settings.__dataclass_fields__) - {"origins", "warnings"}


def test_the_first_place_that_gives_a_value_wins(tmp_path: Path) -> None:
    write_conf(tmp_path, "server.conf", "backup.compression.level=1\nhttp.port=9000\n")
    environ = {"QDB_BACKUP_COMPRESSION_LEVEL": "3"}
    flags: dict[str, str | None] = {"compression-level": "4"}

    def level(flags: dict[str, str | None], environ: dict[str, str]) -> tuple[int, str]:
        settings = load_settings(flags, environ, tmp_path)
        return settings.compression_level, settings.origins["backup.compression.level"]

    assert level({}, {}) == (1, str(tmp_path / "conf" / "server.conf"))
    write_conf(tmp_path, "backup.conf", "backup.compression.level=2\n")
    assert level({}, {}) == (2, str(tmp_path / "conf" / "backup.conf"))
    assert level({}, environ) == (3, "QDB_BACKUP_COMPRESSION_LEVEL")
    assert level(flags, environ) == (4, "--compression-level")
    assert level({"compression_level": "4"}, environ) == (4, "--compression-level")


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_blank_value_counts_as_not_given(blank: str | None) -> None:
    environ = {"QDB_BACKUP_COMPRESSION_LEVEL": "9", "QDB_BACKUP_SCHEDULE_CRON": ""}

    settings = load_settings({"compression-level": blank}, environ, None)

    assert settings.compression_level == 9
    assert settings.schedule is None


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        (
            "QDB_BACKUP_COMPRESSION_LEVEL",
            "23",
            r"backup\.compression\.level=23 \(from QDB_BACKUP_COMPRESSION_LEVEL\) is not .* 1 to 22",
        ),
        ("QDB_BACKUP_COMPRESSION_LEVEL", "0", "is not a whole number from 1 to 22"),
        ("QDB_BACKUP_COMPRESSION_LEVEL", "-1", "is not a whole number from 1 to 22"),
        ("QDB_BACKUP_COMPRESSION_LEVEL", "high", "is not a whole number from 1 to 22"),
        ("QDB_BACKUP_COMPRESSION_LEVEL", "1_0", "is not a whole number from 1 to 22"),
        ("QDB_BACKUP_COMPRESSION_LEVEL", "٣", "is not a whole number from 1 to 22"),
        *[
            ("QDB_BACKUP_READ_LIMIT", text, "is not a number of bytes of at least 1M, say 50M or 1G")
            for text in ("0", "1023K", "1000", "-1M", "5MB", "1.5M", "M", "٣M", "fast")
        ],
        (
            "QDB_BACKUP_NICE",
            "20",
            r"backup\.nice=20 \(from QDB_BACKUP_NICE\) is not a whole number from 0 to 19",
        ),
        ("QDB_BACKUP_NICE", "-1", "is not a whole number from 0 to 19"),
        ("QDB_BACKUP_IO_PRIORITY", "low", "is none of idle, best-effort, none"),
        ("QDB_BACKUP_THROTTLE", "true", "is neither on nor off"),
        ("QDB_BACKUP_THROTTLE_WAL_LAG", "0", "is not a whole number of at least 1"),
        ("QDB_BACKUP_COMPRESSION_THREADS", "0", "is not a whole number of at least 1"),
        ("QDB_BACKUP_CLEANUP_KEEP_LATEST_N", "0", "is not a whole number of at least 1"),
        ("QDB_BACKUP_ENABLED", "yes", "is neither true nor false"),
        ("QDB_BACKUP_SCHEDULE_CRON", "0 0 0 * * *", "has 6 fields"),
        (
            "QDB_BACKUP_SCHEDULE_CRON",
            "@reboot",
            r"\(from QDB_BACKUP_SCHEDULE_CRON\): '@reboot' is not a schedule",
        ),
        ("QDB_BACKUP_SCHEDULE_TZ", "Berlin", "is not a time zone"),
        ("QDB_BACKUP_INSTANCE_NAME", "prod", "is not three lower-case words"),
        ("QDB_BACKUP_RESTORE_TIMESTAMP", "2024-13-01", "is not a timestamp"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_origin(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_settings({}, {variable: value}, None)
    assert f"(from {variable})" in caught.value.fact


def test_a_bad_value_that_another_place_overrides_does_no_harm(tmp_path: Path) -> None:
    write_conf(tmp_path, "backup.conf", "backup.compression.level=99\n")

    assert load_settings({"compression-level": "9"}, {}, tmp_path).compression_level == 9


def test_an_unknown_property_in_backup_conf_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = write_conf(tmp_path, "backup.conf", "backup.cleanup.keep.lastest.n=30\n")

    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {}, tmp_path)

    assert str(caught.value) == (
        f"{path} has an unknown property backup.cleanup.keep.lastest.n. "
        "Hint: the nearest known name is backup.cleanup.keep.latest.n."
    )


def test_server_conf_is_read_with_a_warning_that_oss_rejects_the_names_there(tmp_path: Path) -> None:
    write_conf(tmp_path, "server.conf", f"backup.enabled=true\nbackup.object.store={STORE}\nbackup.later=1\n")

    settings = load_settings({}, {}, tmp_path)

    assert settings.enabled
    assert settings.object_store == STORE
    strict, unknown = settings.warnings
    assert "backup.enabled, backup.later, backup.object.store" in strict
    assert "config.validation.strict=true" in strict
    assert "s3cr3t" not in strict
    assert unknown.startswith("backup.later in ")


def test_the_partition_hash_switches_of_enterprise_are_accepted_and_have_no_effect(tmp_path: Path) -> None:
    write_conf(tmp_path, "backup.conf", "backup.enable.partition.hashes=false\n")

    (warning,) = load_settings({}, {}, tmp_path).warnings

    assert "hashes are always computed and verified" in warning


def test_a_misspelt_variable_is_warned_of() -> None:
    environ = {"QDB_BACKUP_CLEANUP_KEEP_LASTEST_N": "30", "QDB_BACKUP_HOME": "/x", "HOME": "/root"}

    (warning,) = load_settings({}, environ, None).warnings

    assert warning == (
        "QDB_BACKUP_CLEANUP_KEEP_LASTEST_N is not a setting and is not used; "
        "the nearest known name is QDB_BACKUP_CLEANUP_KEEP_LATEST_N"
    )


def test_a_file_that_is_not_utf_8_is_still_read(tmp_path: Path) -> None:
    path = write_conf(tmp_path, "backup.conf", "")
    path.write_bytes(b"# caf\xe9\nbackup.compression.level=7\n")

    assert load_settings({}, {}, tmp_path).compression_level == 7


def test_a_folder_in_the_place_of_a_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "conf" / "backup.conf").mkdir(parents=True)

    with pytest.raises(ConfigurationError, match=r"backup\.conf cannot be read: Is a directory"):
        load_settings({}, {}, tmp_path)


def test_a_store_that_is_missing_is_only_an_error_where_it_is_needed() -> None:
    with pytest.raises(ConfigurationError, match=r"backup\.object\.store is not set"):
        load_settings({}, {}, None).require_object_store()


def test_the_secrets_of_the_store_stay_out_of_the_printed_form() -> None:
    assert "s3cr3t" not in repr(load_settings({"object-store": STORE}, {}, None))
