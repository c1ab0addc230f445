import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws
from psycopg.conninfo import conninfo_to_dict

from questdb_backup.errors import ConfigurationError, DatabaseUnavailableError
from questdb_backup.questdb.conninfo import DEFAULTS, conninfo_from, conninfo_from_secret


def parsed(conninfo: str) -> dict[str, Any]:
    return dict(conninfo_to_dict(conninfo))


def test_without_anything_the_server_is_questdb_on_this_machine() -> None:
    assert parsed(conninfo_from(None, {})) == dict(DEFAULTS)


def test_libpq_variables_override_the_defaults() -> None:
    environ = {
        "PGHOST": "db.internal",
        "PGPORT": "8813",
        "PGUSER": "backup",
        "PGPASSWORD": "it's",
        "PGDATABASE": "other",
        "PGSSLMODE": "require",
        "HOME": "/root",
        "PGAPPNAME": "",
    }
    assert parsed(conninfo_from(None, environ)) == {
        "host": "db.internal",
        "port": "8813",
        "user": "backup",
        "password": "it's",
        "dbname": "other",
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    "dsn",
    [
        "host=10.0.0.7 port=1 password='a b'",
        "postgresql://:a%20b@10.0.0.7:1",
        "postgres://:a%20b@10.0.0.7:1/",
    ],
)
def test_the_dsn_wins_in_either_form(dsn: str) -> None:
    result = parsed(conninfo_from(dsn, {"PGHOST": "db.internal", "PGUSER": "backup"}))
    assert result == {**DEFAULTS, "host": "10.0.0.7", "port": "1", "password": "a b", "user": "backup"}


def test_a_service_is_not_overridden_by_the_defaults() -> None:
    assert parsed(conninfo_from("service=questdb", {"PGUSER": "me"})) == {"service": "questdb", "user": "me"}


@pytest.mark.parametrize(
    "dsn", ["password = a s3cret", "s3cret", "postgresql://u:s3cret@[::1/db", "s3cret=1"]
)
def test_a_dsn_that_cannot_be_parsed_is_refused_without_showing_it(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        conninfo_from(dsn, {})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("secretsmanager")


def put(secrets: Any, value: str) -> str:
    return str(secrets.create_secret(Name="questdb", SecretString=value)["ARN"])


def test_a_secret_gives_the_whole_connection(secrets: Any) -> None:
    value = {"username": "backup", "password": "p w'", "host": "10.0.0.9", "port": 8813, "dbname": "other"}
    expected = {"user": "backup", "password": "p w'", "host": "10.0.0.9", "port": "8813", "dbname": "other"}
    assert parsed(conninfo_from_secret(put(secrets, json.dumps(value)))) == expected


def test_a_given_host_and_port_win_and_questdb_s_defaults_fill_the_rest(secrets: Any) -> None:
    arn = put(secrets, json.dumps({"username": "backup", "password": "x", "host": "10.0.0.9"}))
    result = parsed(conninfo_from_secret(arn, host="10.1.1.1", port="9"))
    assert result == {"user": "backup", "password": "x", "host": "10.1.1.1", "port": "9", "dbname": "qdb"}


@pytest.mark.parametrize("value", ["s3cret", "[1]", '{"username": "backup", "pass": "s3cret"}'])
def test_a_secret_of_another_form_is_refused_without_showing_it(secrets: Any, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        conninfo_from_secret(put(secrets, value))
    assert "s3cret" not in str(caught.value)


def test_a_secret_that_does_not_exist_is_a_configuration_error(secrets: Any) -> None:
    with pytest.raises(ConfigurationError, match="ResourceNotFoundException"):
        conninfo_from_secret("nothing")


class FailingClient:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_secret_value(self, **_arguments: str) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "GetSecretValue"), DatabaseUnavailableError),
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetSecretValue"), ConfigurationError),
        (EndpointConnectionError(endpoint_url="https://secrets"), DatabaseUnavailableError),
    ],
)
def test_failures_of_secrets_manager_are_told_apart(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        conninfo_from_secret("questdb", client=FailingClient(error))
