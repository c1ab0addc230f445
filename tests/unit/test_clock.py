"""Timestamps as text: they sort as the times they stand for, however early."""

import pytest

from questdb_backup.clock import format_timestamp, parse_timestamp
from questdb_backup.errors import ConfigurationError


def test_every_year_has_four_digits_so_that_text_sorts_as_time() -> None:
    texts = ["0024-08-24", "0999-12-31", "2024-08-24T12:34:56.789123Z", "9999-12-31"]
    written = [format_timestamp(parse_timestamp(text)) for text in texts]
    assert written == sorted(written)
    assert written[0] == "0024-08-24T00:00:00.000000Z"
    assert written[2] == texts[2]


@pytest.mark.parametrize("text", ["0001-01-01T00:00+14:00", "9999-12-31T23:00-14:00", "2024-13-01", "now"])
def test_what_is_no_time_in_utc_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a timestamp"):
        parse_timestamp(text)
