"""How each column type lies on disk."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.questdb.column_types import TIMESTAMP_NS, Storage, column_type
from questdb_backup.questdb.layout import UnknownLayout

GEOHASH = 1 << 16


@pytest.mark.parametrize(
    ("code", "name", "width"),
    [
        (1, "boolean", 1),
        (2, "byte", 1),
        (3, "short", 2),
        (4, "char", 2),
        (5, "int", 4),
        (6, "long", 8),
        (7, "date", 8),
        (8, "timestamp", 8),
        (TIMESTAMP_NS, "timestamp_ns", 8),
        (9, "float", 4),
        (10, "double", 8),
        (12, "symbol", 4),
        (13, "long256", 32),
        (14 | 7 << 8 | GEOHASH, "geobyte", 1),
        (15 | 8 << 8 | GEOHASH, "geoshort", 2),
        (16 | 31 << 8 | GEOHASH, "geoint", 4),
        (17 | 60 << 8 | GEOHASH, "geolong", 8),
        (19, "uuid", 16),
        (24, "long128", 16),
        (25, "ipv4", 4),
        (28 | 2 << 8 | 1 << 16, "decimal8", 1),
        (29 | 4 << 8, "decimal16", 2),
        (30 | 9 << 8, "decimal32", 4),
        (31 | 18 << 8, "decimal64", 8),
        (32 | 38 << 8, "decimal128", 16),
        (33 | 76 << 8, "decimal256", 32),
    ],
)
def test_a_fixed_type_needs_its_width_for_each_row(code: int, name: str, width: int) -> None:
    kind = column_type(code)
    assert (kind.name, kind.width, kind.storage) == (name, width, Storage.FIXED)
    assert (kind.data_size(7), kind.aux_size(7)) == (7 * width, 0)


@pytest.mark.parametrize(
    "code", [0, 20, 21, 22, 23, 34, 39, 40, 99, 5 | 1 << 8, 14, 14 | 8 << 8 | GEOHASH, 27 | 1 << 20, -5]
)
def test_what_no_version_stores_is_an_unknown_layout(code: int) -> None:
    with pytest.raises(UnknownLayout):
        column_type(code)


@pytest.mark.parametrize(("code", "name"), [(11, "string"), (18, "binary")])
def test_the_offset_behind_the_last_row_is_the_length_of_strings(code: int, name: str) -> None:
    kind = column_type(code)
    assert (kind.name, kind.aux_size(0), kind.aux_size(3), kind.last_aux(3)) == (name, 8, 32, (24, 8))
    assert kind.data_size(3, struct.pack("<q", 100)) == 100


@given(rows=st.integers(1, 1 << 30), offset=st.integers(0, 1 << 39), length=st.integers(10, (1 << 28) - 1))
def test_a_varchar_ends_after_its_last_text(rows: int, offset: int, length: int) -> None:
    kind = column_type(26)
    entry = struct.pack("<I6xHI", length << 4, offset & 0xFFFF, offset >> 16)
    assert kind.data_size(rows, entry) == offset + length
    assert kind.last_aux(rows) == (kind.aux_size(rows) - 16, 16)


@pytest.mark.parametrize("header", [4, 0b0011 | 5 << 4])
def test_a_varchar_that_is_null_or_held_in_its_entry_adds_nothing(header: int) -> None:
    assert column_type(26).data_size(2, struct.pack("<I4xQ", header, 77 << 16)) == 77


def test_an_array_ends_after_its_last_value() -> None:
    kind = column_type(27 | 10 << 8)
    assert (kind.name, kind.aux_size(2), kind.last_aux(2)) == ("double[]", 32, (16, 16))
    assert kind.data_size(2, struct.pack("<Qi4x", 0xABCD << 48 | 64, 24)) == 88


@pytest.mark.parametrize(("code", "entry"), [(11, bytes(8)), (26, bytes(16)), (11, struct.pack("<q", -1))])
def test_an_entry_that_was_never_written_is_refused(code: int, entry: bytes) -> None:
    with pytest.raises(ValueError, match=r"entry|length"):
        column_type(code).data_size(2, entry)


def test_no_rows_need_no_data() -> None:
    assert column_type(26).data_size(0) == 0
