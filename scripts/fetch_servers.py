"""Fetch the servers that the tests run against, through Maven, into ``.cache``.

    python scripts/fetch_servers.py [questdb|dynamodb|all]

QuestDB goes to ``.cache/questdb/questdb-VERSION.jar``, DynamoDB Local with what it depends on to
``.cache/dynamodb``. What is there whole is left alone; everything is written under another name
first, so that a run that was cut short leaves nothing that looks whole.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache"
QUESTDB_VERSIONS = ("9.3.4", "9.1.0", "8.1.4")
DYNAMODB_VERSION = "2.6.1"
OLDEST_JAVA = 17

_POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>questdb-backup</groupId>
  <artifactId>fetch-servers</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>com.amazonaws</groupId>
      <artifactId>DynamoDBLocal</artifactId>
      <version>{DYNAMODB_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class FetchError(Exception):
    """A fact, and what to do about it."""


def check_java() -> None:
    """Raise FetchError where there is no Java, or an older one than the servers need."""
    if shutil.which("java") is None:
        raise FetchError(f"java is not on the PATH; install a JDK {OLDEST_JAVA} or newer")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if match is None:
        raise FetchError(f"`java -version` gave no version but: {said.strip()}")
    if int(match[1]) < OLDEST_JAVA:
        raise FetchError(f"java is version {match[1]}; install a JDK {OLDEST_JAVA} or newer")


def run_maven(*arguments: str) -> None:
    """Run Maven quietly; raise FetchError with its output where it fails."""
    maven = shutil.which("mvn")
    if maven is None:
        raise FetchError("mvn is not on the PATH; install Apache Maven")
    done = subprocess.run([maven, "-q", "-B", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise FetchError(f"`mvn {' '.join(arguments)}` failed:\n{(done.stdout + done.stderr).strip()}")


def is_whole(jar: Path) -> bool:
    """Whether the file is a jar with its directory, which stands at the end."""
    return jar.is_file() and zipfile.is_zipfile(jar)


def fetch_questdb() -> None:
    folder = CACHE / "questdb"
    folder.mkdir(parents=True, exist_ok=True)
    for version in QUESTDB_VERSIONS:
        jar = folder / f"questdb-{version}.jar"
        if is_whole(jar):
            print(f"{jar}: there already")
            continue
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            artifact = f"org.questdb:questdb:{version}"
            run_maven("dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={partial}")
            fetched = Path(partial) / jar.name
            if not is_whole(fetched):
                raise FetchError(f"Maven's {artifact} is damaged; remove it from ~/.m2 and try again")
            fetched.replace(jar)
        print(f"{jar}: fetched")


def fetch_dynamodb() -> None:
    folder = CACHE / "dynamodb"
    if is_whole(folder / f"DynamoDBLocal-{DYNAMODB_VERSION}.jar"):
        print(f"{folder}: there already")
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".partial-") as partial:
        pom = Path(partial) / "pom.xml"
        pom.write_text(_POM)
        jars = Path(partial) / "dynamodb"
        run_maven(
            *("-f", str(pom), "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={jars}"),
        )
        if damaged := [jar.name for jar in sorted(jars.glob("*.jar")) if not is_whole(jar)]:
            raise FetchError(
                f"Maven's {', '.join(damaged)} are damaged; remove them from ~/.m2 and try again"
            )
        shutil.rmtree(folder, ignore_errors=True)
        jars.rename(folder)
    print(f"{folder}: fetched")


def main(arguments: list[str] | None = None) -> int:
    """Give the exit code: 0 fetched or there, 1 failed."""
    parser = argparse.ArgumentParser(description="Fetch the servers that the tests run against.")
    parser.add_argument("server", nargs="?", default="all", choices=["questdb", "dynamodb", "all"])
    server = parser.parse_args(arguments).server
    try:
        check_java()
        if server in ("questdb", "all"):
            fetch_questdb()
        if server in ("dynamodb", "all"):
            fetch_dynamodb()
    except FetchError as error:
        print(f"fetch_servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
