import random
import secrets

import pytest

from questdb_backup.instance_name import PLACES, QUALITIES, THINGS, is_instance_name, new_instance_name


@pytest.mark.parametrize("words", [QUALITIES, PLACES, THINGS], ids=["qualities", "places", "things"])
def test_a_list_has_at_least_64_different_plain_words(words: tuple[str, ...]) -> None:
    assert len(set(words)) == len(words) >= 64
    assert all(word.isascii() and word.isalpha() and word.islower() and len(word) <= 12 for word in words)


def test_the_example_of_questdbs_page_could_be_drawn() -> None:
    assert "gentle" in QUALITIES
    assert "forest" in PLACES
    assert "orchid" in THINGS


def test_a_new_name_has_three_words_and_depends_on_chance_alone() -> None:
    names = {new_instance_name(random.Random(seed)) for seed in range(200)}

    assert len(names) > 190
    assert all(is_instance_name(name) for name in names)
    assert new_instance_name(random.Random(7)) == new_instance_name(random.Random(7))
    assert is_instance_name(new_instance_name(secrets))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gentle-forest",
        "gentle-forest-orchid-rose",
        "Gentle-forest-orchid",
        "gentle_forest_orchid",
        "gentle-forest-orchid\n",
        "../forest-orchid",
        "gentle--orchid",
        "gentle-forêt-orchid",
        "a" * 40 + "-" + "b" * 40 + "-c",
    ],
)
def test_text_of_another_form_is_no_name(text: str) -> None:
    assert not is_instance_name(text)
