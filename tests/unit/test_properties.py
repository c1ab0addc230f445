import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.properties import escape_value, parse_properties


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("", {}),
        ("a=1\nb: 2\nc 3\nd\n", {"a": "1", "b": "2", "c": "3", "d": ""}),
        ("  a = 1 \n", {"a": "1 "}),
        ("# a=1\n! b=2\n  # c=3\n\n", {}),
        ("a=1#2\n", {"a": "1#2"}),
        ("a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1\na=2\n", {"a": "2"}),
        ("s=s3::bucket=b;key=a:b=c;", {"s": "s3::bucket=b;key=a:b=c;"}),
        ("a\\=b\\:c=1", {"a=b:c": "1"}),
        ("a=tab\\tline\\n\\u00e9\\q", {"a": "tab\tline\n\u00e9q"}),
        ("a=C:\\\\data", {"a": "C:\\data"}),
        ("a=1,\\\n   2\nb=3", {"a": "1,2", "b": "3"}),
        ("# comment \\\nb=3", {"b": "3"}),
        ("a=1\\", {"a": "1"}),
        ("a=1\x0b\x85b=2", {"a": "1\x0b\x85b=2"}),
    ],
)
def test_a_file_is_read_as_java_reads_it(text: str, properties: dict[str, str]) -> None:
    assert parse_properties(text) == properties


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse_properties(text)


@given(st.text())
def test_an_escaped_value_is_read_back_unchanged(value: str) -> None:
    assert parse_properties(f"key={escape_value(value)}\nnext=1") == {"key": value, "next": "1"}
