import pytest
from hypothesis import given
from hypothesis import strategies as st

from questdb_backup.properties import parse_properties
from questdb_backup.server_conf import with_property

CONF = "# my server\n#pg.user=admin\n\npg.user=old\nhttp.port = 9000\n"


def test_an_active_line_is_replaced_where_it_stands() -> None:
    assert with_property(CONF, "pg.user", "new") == CONF.replace("pg.user=old", "pg.user=new")


def test_a_commented_line_is_not_touched_and_the_property_appended_with_its_reason() -> None:
    text = "# my server\n#pg.user=admin\n"

    assert with_property(text, "pg.user", "new", why="the restored root has its own user") == (
        text + "# the restored root has its own user\npg.user=new\n"
    )


def test_of_two_active_lines_the_one_that_counts_is_replaced() -> None:
    assert with_property("a=1\na=2\n", "a", "3") == "a=1\na=3\n"


def test_a_value_that_is_set_already_leaves_the_text_alone() -> None:
    assert with_property(CONF, "http.port", "9000") == CONF
    once = with_property(CONF, "b", "1")
    assert with_property(once, "b", "1") == once


def test_a_property_on_several_lines_is_replaced_whole() -> None:
    assert with_property("a=1,\\\n  2\nb=3\n", "a", "4") == "a=4\nb=3\n"


def test_windows_line_endings_stay() -> None:
    assert with_property("a=1\r\nb=2\r\n", "a", "3") == "a=3\r\nb=2\r\n"
    assert with_property("a=1\r\n", "b", "2", why="why") == "a=1\r\n# why\r\nb=2\r\n"


@pytest.mark.parametrize("text", ["a=1", "a=1\n", "", "a=1\\", "a=1\\\n", "a=1\\\r", "a=1\n\\\r", "# c:\\"])
def test_an_appended_line_never_runs_into_the_one_before(text: str) -> None:
    before = parse_properties(text)

    assert parse_properties(with_property(text, "b", "2")) == before | {"b": "2"}


@given(st.text(alphabet="ab=#!\\: \n\r\t1"), st.sampled_from(["a", "b", "ab"]), st.text())
def test_only_the_one_property_changes(text: str, key: str, value: str) -> None:
    changed = with_property(text, key, value)

    assert parse_properties(changed) == parse_properties(text) | {key: value}
    assert with_property(changed, key, value) == changed
