"""Words of the command line that are refused before anything is begun."""

from pathlib import Path

import pytest

from questdb_backup.cli.main import main


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "--root", "{new}", "--timestamp", ""],
        ["restore", "--root", "{new}", "--timestamp", "yesterday"],
        ["backup", "--root", "{root}", "--frozen", "--server-version", "zz"],
    ],
    ids=["empty timestamp", "no timestamp", "no release"],
)
def test_they_are_refused_with_the_code_of_wrong_usage(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, new, store = (tmp_path / name for name in ("root", "new", "store"))
    (root / "db").mkdir(parents=True)
    text = f"fs::root={store};atomic_write_dir={tmp_path / 'atomic'};"
    given = [word.format(root=root, new=new) for word in words]
    assert main([*given, "--object-store", text]) == 2
    assert words[-1] in capsys.readouterr().err
    assert not new.exists()
    assert not store.exists()
