"""Where the server is and who we are there, as a libpq connection string. No message shows a password.

psycopg is imported where it is asked: a run that asks no server does without.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from questdb_backup.errors import BackupToolError, ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

DEFAULTS: Mapping[str, str] = {
    "host": "127.0.0.1",
    "port": "8812",
    "user": "admin",
    "password": "quest",
    "dbname": "qdb",
}
"""QuestDB's own."""

_SECRET_BUSY = {"ThrottlingException", "InternalServiceError", "InternalServiceErrorException"}


def conninfo_from(dsn: str | None, environ: Mapping[str, str]) -> str:
    """QuestDB's defaults, overridden by libpq's variables (``PGHOST``...), then by ``dsn`` (keywords or URI).

    Raise ConfigurationError for a ``dsn`` that libpq cannot parse. With a ``service`` the defaults are left
    out, for they would override what it says.
    """
    from psycopg.conninfo import make_conninfo

    given = _from_environment(environ) | _parse(dsn or "")
    defaults = {} if "service" in given else DEFAULTS
    return make_conninfo(**{**defaults, **given})


def conninfo_from_secret(
    secret_id: str, *, host: str | None = None, port: str | None = None, client: Any = None
) -> str:
    """Connect as a secret of Secrets Manager says: ``{"username", "password", "host", "port", "dbname"}``.

    That is the form in which Secrets Manager keeps a database's credentials; the last three may be missing.
    ``host`` and ``port`` win over the secret's. Raise ConfigurationError where the secret cannot be read or
    is not of that form, DatabaseUnavailableError where Secrets Manager does not answer.
    """
    from psycopg.conninfo import make_conninfo

    secret = _parse_secret(secret_id, _read_secret(secret_id, client))
    given = {
        "user": secret.get("username"),
        "password": secret.get("password"),
        "host": host or secret.get("host"),
        "port": port or secret.get("port"),
        "dbname": secret.get("dbname"),
    }
    missing = [name for name in ("user", "password") if not given[name]]
    if missing:
        raise ConfigurationError(
            f"the secret {secret_id} has no {' and no '.join(missing)}", _secret_form("username and password")
        )
    return make_conninfo(**{**DEFAULTS, **{key: str(value) for key, value in given.items() if value}})


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    from psycopg.pq import Conninfo

    names = {
        option.keyword.decode(): option.envvar.decode()
        for option in Conninfo.get_defaults()
        if option.envvar is not None
    }
    return {keyword: environ[name] for keyword, name in names.items() if environ.get(name)}


def _parse(dsn: str) -> dict[str, str]:
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    except Error:
        pass  # libpq's words quote a part of the text, which may be the password
    raise ConfigurationError(
        "the connection string of --dsn cannot be parsed",
        "write it as 'host=127.0.0.1 port=8812 user=admin password=...' or postgresql://admin:...@127.0.0.1:8812/qdb",
    )


def _read_secret(secret_id: str, client: Any) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = client or boto3.client("secretsmanager")
        answer = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        raise _translate_answer(secret_id, error) from error
    except BotoCoreError as error:
        raise DatabaseUnavailableError(
            f"the secret {secret_id} could not be read: {error}",
            "check the function's network: it needs an interface endpoint for Secrets Manager",
        ) from error
    return str(answer.get("SecretString") or "")


def _translate_answer(secret_id: str, error: "ClientError") -> BackupToolError:
    said = error.response.get("Error", {})
    fact = f"the secret {secret_id} could not be read: {said.get('Code')} {said.get('Message', '')}"
    if said.get("Code") in _SECRET_BUSY:
        return DatabaseUnavailableError(fact, "Secrets Manager is busy: try again later")
    return ConfigurationError(fact, "check the secret's ARN and the permission secretsmanager:GetSecretValue")


def _parse_secret(secret_id: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None  # the error below does not quote the text: it is a secret
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"the secret {secret_id} is not a JSON object", _secret_form("the credentials")
        )
    return value


def _secret_form(what: str) -> str:
    return f'store {what} as {{"username": "...", "password": "..."}}'
