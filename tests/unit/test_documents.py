"""The documents name what there is, and what they link to is there."""

import re
from pathlib import Path

import pytest

from questdb_backup import errors
from questdb_backup.cli.main import load_verbs
from questdb_backup.errors import BackupToolError
from questdb_backup.settings import PROPERTIES, Property
from questdb_backup.words import BackupStatus
from tests.template.cloudformation import ROOT, resources

OPERATIONS = ROOT / "docs" / "OPERATIONS.md"
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _rows(first_cell: str) -> list[str]:
    """The rows of the runbook's tables that are about the word."""
    start = f"| `{first_cell}` |"
    return [line for line in OPERATIONS.read_text().splitlines() if line.startswith(start)]


def _leaves(family: type[BackupToolError]) -> list[type[BackupToolError]]:
    below = [child for child in family.__subclasses__() if child.__module__ == errors.__name__]
    return [leaf for child in below for leaf in _leaves(child)] if below else [family]


def _anchor(heading: str) -> str:
    """The fragment that a heading has on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _links(document: Path) -> list[str]:
    found: list[str] = _LINK.findall(_CODE.sub("", document.read_text()))
    return [link for link in found if "://" not in link]


@pytest.mark.parametrize("error", [leaf.__name__ for leaf in _leaves(BackupToolError)])
def test_the_runbook_has_one_row_for_every_error(error: str) -> None:
    assert len(_rows(error)) == 1


def test_the_runbook_lists_the_errors_in_the_order_of_the_code_and_no_others() -> None:
    named = re.findall(r"^\| `(\w+Error)` \|", OPERATIONS.read_text(), re.MULTILINE)
    assert named == [leaf.__name__ for leaf in _leaves(BackupToolError)]


@pytest.mark.parametrize("status", list(BackupStatus), ids=str)
def test_the_runbook_has_one_row_for_every_status_word(status: BackupStatus) -> None:
    assert len(_rows(status)) == 1


@pytest.mark.parametrize("known", PROPERTIES, ids=lambda known: known.name)
def test_the_runbook_has_every_setting_with_its_flag_and_variable(known: Property) -> None:
    (row,) = _rows(known.name)
    assert f"`--{known.flag}`" in row
    assert f"`{known.variable}`" in row


@pytest.mark.parametrize("verb", [verb.name for verb in load_verbs()])
def test_the_runbook_and_the_readme_have_every_verb(verb: str) -> None:
    assert len(_rows(verb)) == 1
    assert f"\n| `{verb}` |" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("alarm", sorted(resources("AWS::CloudWatch::Alarm")))
def test_the_runbook_has_one_row_for_every_alarm(alarm: str) -> None:
    assert len(_rows(alarm)) == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for link in _links(document):
        path, _, fragment = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if fragment:
            headings = _HEADING.findall(_CODE.sub("", target.read_text()))
            assert fragment in [_anchor(heading) for heading in headings], link
