import pytest

from questdb_backup.errors import ConfigurationError
from questdb_backup.restore_trigger import RestoreTrigger, parse_restore_trigger
from questdb_backup.settings import Settings

STORE = "s3::bucket=my-bucket;region=eu-west-1;access_key_id=k;secret_access_key=s3cr3t;"


def test_the_file_of_questdbs_page_is_read_whole() -> None:
    text = (
        f"backup.object.store={STORE}\n"
        "backup.instance.name=gentle-forest-orchid\n"
        "backup.restore.timestamp=2024-08-24T12:34:56.789123Z\n"
    )

    assert parse_restore_trigger(text, Settings()) == RestoreTrigger(
        object_store=STORE,
        instance_name="gentle-forest-orchid",
        restore_timestamp="2024-08-24T12:34:56.789123Z",
    )


def test_an_empty_file_means_the_latest_backup_of_the_store_in_the_settings() -> None:
    assert parse_restore_trigger("", Settings(object_store=STORE)) == RestoreTrigger(object_store=STORE)


def test_the_files_own_store_comes_before_that_of_the_settings() -> None:
    trigger = parse_restore_trigger("backup.object.store=fs::root=/b;", Settings(object_store=STORE))

    assert trigger.object_store == "fs::root=/b;"


def test_without_a_store_anywhere_the_error_says_where_to_set_it() -> None:
    with pytest.raises(
        ConfigurationError, match=r"backup\.object\.store is not set.*QDB_BACKUP_OBJECT_STORE"
    ):
        parse_restore_trigger("backup.instance.name=gentle-forest-orchid", Settings())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            "backup.instance.names=x",
            r"unknown property backup\.instance\.names.*nearest .* backup\.instance\.name",
        ),
        ("pg.user=admin", r"unknown property pg\.user.*it may hold backup\.object\.store"),
        ("backup.instance.name=../x", r"\(from _backup_restore\) is not a backup instance name"),
        ("backup.restore.timestamp=soon", r"\(from _backup_restore\): 'soon' is not a timestamp"),
    ],
)
def test_what_cannot_be_is_refused_by_name(line: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        parse_restore_trigger(line, Settings(object_store=STORE))


def test_the_secrets_of_the_store_stay_out_of_the_printed_form() -> None:
    assert "s3cr3t" not in repr(RestoreTrigger(object_store=STORE))
