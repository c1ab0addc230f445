"""The value of ``backup.object.store``: what it says, and how it says what is wrong."""

from pathlib import Path

import pytest

from questdb_backup.errors import ConfigurationError
from questdb_backup.stores.connection_string import (
    FsLocation,
    S3Location,
    parse_connection_string,
    redact,
    to_text,
)
from questdb_backup.stores.fs import FsObjectStore
from questdb_backup.stores.open import open_store

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY="
WHOLE = (
    "s3::bucket=backups;root=prod/eu;region=eu-central-1;access_key_id=AKIAEXAMPLE;"
    f"secret_access_key={SECRET};endpoint=https://minio.example:9000;"
)


def test_every_s3_option_is_taken() -> None:
    assert parse_connection_string(WHOLE) == S3Location(
        bucket="backups",
        root="prod/eu",
        region="eu-central-1",
        access_key_id="AKIAEXAMPLE",
        secret_access_key=SECRET,
        endpoint="https://minio.example:9000",
    )


def test_the_example_of_the_questdb_page_is_taken() -> None:
    text = "fs::root=/mnt/backups;atomic_write_dir=/mnt/backups/atomic;"
    location = FsLocation(root="/mnt/backups", atomic_write_dir="/mnt/backups/atomic")
    assert parse_connection_string(text) == location


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3::bucket=b", S3Location(bucket="b")),
        ("s3::bucket=b;", S3Location(bucket="b")),
        (" s3::bucket = b ; root = / ;\n", S3Location(bucket="b")),
        ("s3::root=/a/b/;bucket=b;", S3Location(bucket="b", root="a/b")),
        ("s3::bucket=b;region=;access_key_id=;secret_access_key=;endpoint=;", S3Location(bucket="b")),
        ("s3::bucket=b;endpoint=http://[::1]:9000/;", S3Location(bucket="b", endpoint="http://[::1]:9000")),
        ("fs::root=/a/;atomic_write_dir=/b//c", FsLocation(root="/a", atomic_write_dir="/b/c")),
    ],
)
def test_spaces_slashes_and_empty_optional_values_do_not_matter(
    text: str, expected: S3Location | FsLocation
) -> None:
    assert parse_connection_string(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no scheme"),
        ("/mnt/backups", "no scheme"),
        ("s3:bucket=b;", "no scheme"),
        ("ftp::root=/a;", "unknown scheme 'ftp'"),
        ("S3::bucket=b;", "unknown scheme"),
        ("azblob::container=c;", "'azblob' is not supported yet"),
        ("gcs::bucket=c;", "'gcs' is not supported yet"),
        ("s3::", "'bucket' is missing"),
        ("s3::root=a;", "'bucket' is missing"),
        ("s3::bucket=;", "'bucket' is missing"),
        ("fs::atomic_write_dir=/a;", "'root' is missing"),
        ("fs::root=/a;", "'atomic_write_dir' is missing"),
        ("s3::bucket=b;colour=red;", "unknown option 'colour' for s3"),
        ("fs::root=/a;atomic_write_dir=/b;bucket=c;", "unknown option 'bucket' for fs"),
        ("s3::bucket=b;bucket=c;", "'bucket' is given twice"),
        ("s3::bucket=b;root=;root=a;", "'root' is given twice"),
        ("s3::bucket=b;region;", "parameter 'region' has no '='"),
        ("s3::bucket=b;=x;", "unknown option number 2"),
        ("s3::bucket=b;access_key_id=A;", "'secret_access_key' is missing beside 'access_key_id'"),
        ("s3::bucket=b;secret_access_key=A;", "'access_key_id' is missing beside 'secret_access_key'"),
        ("s3::bucket=b/folder;", "'b/folder' is not a bucket's name"),
        ("s3::bucket=b;root=a/../c;", "root 'a/../c'"),
        ("s3::bucket=b;root=a//c;", "root 'a//c'"),
        ("s3::bucket=b;endpoint=localhost:9000;", "endpoint 'localhost:9000'"),
        ("s3::bucket=b;endpoint=http://host:port;", "endpoint 'http://host:port'"),
        ("s3::bucket=b;endpoint=http://;", "endpoint 'http://'"),
        ("fs::root=backups;atomic_write_dir=/b;", "root 'backups' is not an absolute path"),
        ("fs::root=/a;atomic_write_dir=/a/../b;", "atomic_write_dir '/a/../b' is not an absolute path"),
        ("fs::root=/a;atomic_write_dir=/a/;", "root '/a' is atomic_write_dir or inside it"),
        ("fs::root=/a/b;atomic_write_dir=/a;", "root '/a/b' is atomic_write_dir or inside it"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_connection_string(text)
    assert named in str(caught.value)
    assert caught.value.hint or "scheme" in named


@pytest.mark.parametrize(
    "text",
    [
        f"s3::bucket=b;access_key_id=A;secret_access_key={SECRET};secret_access_key={SECRET};",
        f"s3::bucket=b;access_key_id=A;secret_access_key:{SECRET[:-1]};",
        f"s3::bucket=b;access_key_id=A;secret_access_key=half;{SECRET};",
        f"s3::bucket=b;access_key_id=A;secret_access_key=half;{SECRET[:-1]};",
        f"s3::bucket=b;secret_access_key={SECRET};",
        f"s3::bucket=b;access_key_id=A;secret_access_key={SECRET};colour=red;",
        f"s3::bucket=b;endpoint=https://user:{SECRET.replace('/', '')}@host;",
        f"s3:bucket=b;access_key_id=A;secret_access_key={SECRET};",
        f"{SECRET}::bucket=b;",
    ],
)
def test_no_error_shows_a_secret_or_its_half(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_connection_string(text)
    assert SECRET[:6] not in str(caught.value)
    assert SECRET[-8:-1] not in str(caught.value)


def test_the_repr_of_a_location_shows_no_secret() -> None:
    shown = repr(parse_connection_string(WHOLE))
    assert "backups" in shown
    assert SECRET not in shown
    assert "AKIAEXAMPLE" not in shown


@pytest.mark.parametrize("text", [WHOLE, "s3::bucket=b;", "fs::root=/a;atomic_write_dir=/a/atomic;"])
def test_the_text_of_a_location_parses_to_the_same_location(text: str) -> None:
    location = parse_connection_string(text)
    assert to_text(location) == text
    assert parse_connection_string(to_text(location)) == location


def test_redacting_leaves_everything_but_the_secrets() -> None:
    message = f"cannot use {WHOLE}\nsee https://user:pass@host/path"
    assert redact(message) == (
        "cannot use s3::bucket=backups;root=prod/eu;region=eu-central-1;access_key_id=***;"
        "secret_access_key=***;endpoint=https://minio.example:9000;\nsee https://***@host/path"
    )


def test_a_wrong_string_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        open_store(f"fs::root={tmp_path}/r;atomic_write_dir={tmp_path}/a;colour=red;", max_connections=1)
    assert list(tmp_path.iterdir()) == []


def test_the_factory_opens_a_folder(tmp_path: Path) -> None:
    store = open_store(f"fs::root={tmp_path}/r;atomic_write_dir={tmp_path}/r/atomic;", max_connections=1)
    assert isinstance(store, FsObjectStore)
    assert store.location == f"fs://{tmp_path}/r"
