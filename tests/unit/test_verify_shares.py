"""Reading the data in shares: each pack is in one, the catalog knows which were read, the oldest is next."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from questdb_backup.catalog import Catalog, Lease, ReadShare
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.errors import BackupInProgressError, ConfigurationError, StoreAccessDeniedError
from questdb_backup.services import Services
from questdb_backup.stores.counting import CountingStore
from questdb_backup.verify import verify
from questdb_backup.verify_shares import due_share, is_in_share, parse_read_data, with_share
from tests.support.backups import INSTANCE, back_up, make_root, make_services


def at(day: int) -> str:
    return f"2026-03-{day:02}T00:00:00.000000Z"


def shares(*read: tuple[int, int, int]) -> tuple[ReadShare, ...]:
    return tuple(ReadShare(part=part, parts=parts, read_at=at(day)) for part, parts, day in read)


def noted(before: Iterable[ReadShare], part: int, parts: int, day: int) -> tuple[ReadShare, ...]:
    catalog = Catalog(instance=INSTANCE, read_shares=tuple(before))
    read = ReadShare(part=part, parts=parts, read_at=at(day))
    once = with_share(catalog, read, set())
    assert with_share(once, read, set()) == once
    return once.read_shares


@pytest.fixture
def stored(tmp_path: Path) -> Services:
    services = make_services(make_root(tmp_path / "origin"))
    back_up(services)
    return services


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3", "-1/2", "/", "next", "next/0", "/367"])
def test_a_part_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no part"):
        parse_read_data(text)


def test_parts_are_read_as_they_are_written() -> None:
    assert parse_read_data(None) == parse_read_data("") == (1, 1)
    assert parse_read_data("2/7") == (2, 7)
    assert parse_read_data("next/7") == parse_read_data("/7") == (0, 7)


def test_a_pack_is_in_one_share_whatever_other_packs_there_are() -> None:
    names = [f"20260301T120000.000000Z/{n}-0-0" for n in range(700)]
    parts = [[name for name in names if is_in_share(name, (part, 7))] for part in range(1, 8)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(60 < len(part) < 140 for part in parts)
    assert all(is_in_share(name, (1, 1)) for name in names)


def test_the_share_that_was_never_or_longest_ago_read_is_due() -> None:
    def due(*read: tuple[int, int, int]) -> int:
        return due_share(Catalog(instance=INSTANCE, read_shares=shares(*read)), (0, 3))[0]

    assert due() == 1
    assert due((1, 3, 1)) == 2
    assert due((1, 3, 9), (2, 3, 5), (3, 3, 7)) == 2
    assert due((1, 3, 9), (2, 3, 5), (1, 1, 8)) == 2, "all that was read on the 8th was read then"
    assert due((1, 7, 9)) == 1, "a seventh is none of three"
    assert due_share(Catalog(instance=INSTANCE), (2, 3)) == (2, 3)


def test_a_share_replaces_its_own_earlier_reading_and_those_of_other_kinds() -> None:
    assert noted(shares((1, 3, 1), (2, 3, 2)), 1, 3, 9) == shares((1, 3, 9), (2, 3, 2))
    assert noted(shares((1, 3, 1), (1, 1, 2)), 2, 3, 9) == shares((1, 1, 2), (1, 3, 1), (2, 3, 9))
    assert noted(shares((1, 3, 1)), 1, 7, 9) == shares((1, 7, 9))
    assert noted(shares((1, 3, 1), (1, 1, 2)), 1, 1, 9) == shares((1, 1, 9))


@pytest.mark.parametrize(("purpose", "noted_"), [("prune", False), ("backup", True)])
def test_a_share_that_was_read_while_a_prune_ran_is_not_noted(purpose: str, noted_: bool) -> None:
    lease = Lease(token=1, holder="h", purpose=purpose, run=None, expires_at=at(20))
    catalog = Catalog(instance=INSTANCE, lease=lease)
    read = shares((1, 3, 9))[0]
    if noted_:
        assert with_share(catalog, read, set()).read_shares == (read,)
    else:
        with pytest.raises(BackupInProgressError, match="removed meanwhile"):
            with_share(catalog, read, set())
    dead = replace(catalog, lease=replace(lease, expires_at=at(1)))
    assert with_share(dead, read, set()).read_shares == (read,)
    with pytest.raises(BackupInProgressError):
        with_share(dead, read, {"a backup that is gone"})


def test_runs_of_the_next_share_read_everything_in_turn(stored: Services) -> None:
    told = [verify(stored, INSTANCE, None, (0, 3)).to_json()["read_data"] for _ in range(4)]
    assert [each["part"] for each in told] == [1, 2, 3, 1]
    assert [each["unread"] for each in told] == [[2, 3], [3], [], []]
    assert all(each["remembered"] for each in told)
    times = [share["read_at"] for share in told[3]["shares"]]
    assert times[1] < times[2] < times[0]
    assert [share.part for share in read_catalog(stored.store, INSTANCE).read_shares] == [1, 2, 3]


def test_the_report_is_told_in_words(stored: Services) -> None:
    report = verify(stored, INSTANCE, None, (2, 3))
    words = str(report.read_data).splitlines()
    assert words[0] == "share 2/3 of the data read"
    assert words[1].startswith("last read: 2/3 2026-")
    assert words[2] == "not yet read: 1/3, 3/3"
    assert str(verify(stored, INSTANCE, None, (1, 1)).read_data) == "all data that is there was read"


def test_a_share_of_one_backup_is_no_share_of_all(stored: Services) -> None:
    report = verify(stored, INSTANCE, stored.now(), (1, 3))
    assert report.read_data is not None
    assert not report.read_data.remembered
    assert report.read_data.unread == [1, 2, 3]
    assert read_catalog(stored.store, INSTANCE).read_shares == ()


class ReadOnly(CountingStore):
    """A store that is there for reading."""

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        raise StoreAccessDeniedError(f"{key} cannot be written")


def test_a_store_for_reading_only_is_verified_and_says_that_it_was_not_noted(
    stored: Services, caplog: pytest.LogCaptureFixture
) -> None:
    report = verify(make_services(None, ReadOnly(stored.store)), INSTANCE, None, (1, 3))
    assert report.ok
    assert report.read_data is not None
    assert not report.read_data.remembered
    assert "not remembered that share 1/3" in caplog.text


def test_what_another_writer_puts_into_the_catalog_meanwhile_stays(stored: Services) -> None:
    class Raced(CountingStore):
        raced = False

        def replace(self, key: str, data: bytes, expected: str | None) -> str:
            if not self.raced:
                self.raced = True
                update_catalog(stored.store, INSTANCE, lambda old: replace(old, last_token=99))
            return super().replace(key, data, expected)

    verify(make_services(None, Raced(stored.store)), INSTANCE, None, (1, 3))
    catalog = read_catalog(stored.store, INSTANCE)
    assert catalog.last_token == 99
    assert len(catalog.read_shares) == 1
