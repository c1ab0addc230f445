import os
import stat
import zipfile
from pathlib import Path

import pytest

from scripts import fetch_servers

JAVA = "#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n"
MAVEN = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in
  *copy-dependencies*) name=DynamoDBLocal-2.6.1.jar ;;
  *9.3.4*) name=questdb-9.3.4.jar ;;
  *9.1.0*) name=questdb-9.1.0.jar ;;
  *) name=questdb-8.1.4.jar ;;
esac
for argument; do case "$argument" in -DoutputDirectory=*) folder="${{argument#*=}}" ;; esac; done
mkdir -p "$folder" && cp "{jar}" "$folder/$name"
"""


class Tools:
    """A ``bin`` folder with a Java and a Maven that give what the test wants."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.jar = folder / "any.jar"
        self.log = folder / "maven.log"
        self.bin.mkdir()
        with zipfile.ZipFile(self.jar, "w") as jar:
            jar.writestr("META-INF/MANIFEST.MF", "")
        self.write("java", JAVA.format(version="17.0.15"))
        self.write("mvn", MAVEN.format(log=self.log, jar=self.jar))

    def write(self, name: str, text: str) -> None:
        tool = self.bin / name
        tool.write_text(text)
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fetch_servers, "CACHE", tmp_path / ".cache")
    return tmp_path / ".cache"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    tools = Tools(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tools.bin), "/usr/bin", "/bin"]))
    return tools


def names(cache: Path) -> list[str]:
    return sorted(str(file.relative_to(cache)) for file in cache.rglob("*") if file.is_file())


EVERYTHING = [
    "dynamodb/DynamoDBLocal-2.6.1.jar",
    "questdb/questdb-8.1.4.jar",
    "questdb/questdb-9.1.0.jar",
    "questdb/questdb-9.3.4.jar",
]


def test_everything_is_fetched_once_and_nothing_else_is_left(cache: Path, tools: Tools) -> None:
    assert fetch_servers.main([]) == 0
    assert names(cache) == EVERYTHING
    assert fetch_servers.main(["all"]) == 0
    assert tools.calls() == 4


@pytest.mark.parametrize(("server", "count"), [("questdb", 3), ("dynamodb", 1)])
def test_one_server_is_fetched_alone(cache: Path, tools: Tools, server: str, count: int) -> None:
    assert fetch_servers.main([server]) == 0
    assert names(cache) == [name for name in EVERYTHING if name.startswith(server)]
    assert tools.calls() == count


def test_a_jar_that_is_cut_off_is_fetched_again(cache: Path, tools: Tools) -> None:
    for name in ("questdb/questdb-9.1.0.jar", "dynamodb/DynamoDBLocal-2.6.1.jar"):
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_bytes(tools.jar.read_bytes()[:-10])
    assert fetch_servers.main([]) == 0
    assert all(fetch_servers.is_whole(cache / name) for name in EVERYTHING)
    assert tools.calls() == 4


def test_a_damaged_download_is_refused_and_left_nowhere(
    cache: Path, tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.jar.write_bytes(b"cut off")
    for server in ("questdb", "dynamodb"):
        assert fetch_servers.main([server]) == 1
        assert "damaged" in capsys.readouterr().err
    assert names(cache) == []


def test_mavens_own_words_are_told_where_it_fails(
    cache: Path, tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.write("mvn", "#!/bin/sh\necho 'no such artifact'; exit 1\n")
    assert fetch_servers.main(["questdb"]) == 1
    assert "no such artifact" in capsys.readouterr().err
    assert names(cache) == []


@pytest.mark.parametrize(("tool", "words"), [("java", "install a JDK 17"), ("mvn", "install Apache Maven")])
def test_a_missing_tool_is_named(
    cache: Path,
    tools: Tools,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tool: str,
    words: str,
) -> None:
    monkeypatch.setenv("PATH", str(tools.bin))
    (tools.bin / tool).unlink()
    assert fetch_servers.main(["dynamodb"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("version", "code"), [("1.8.0_402", 1), ("11.0.2", 1), ("17", 0), ("24-ea", 0)])
def test_java_must_be_17_or_newer(
    cache: Path, tools: Tools, capsys: pytest.CaptureFixture[str], version: str, code: int
) -> None:
    tools.write("java", JAVA.format(version=version))
    assert fetch_servers.main(["dynamodb"]) == code
    assert ("install a JDK 17 or newer" in capsys.readouterr().err) == bool(code)
