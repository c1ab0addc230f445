"""What DynamoDB's and boto3's errors mean for the live status."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from questdb_backup.errors import BackupToolError, ConfigurationError, StatusUnavailableError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_BUSY = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionInProgressException",
}
_DENIED = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}
_TRY_THE_TRANSACTION_AGAIN = {
    "ConditionalCheckFailed",
    "ProvisionedThroughputExceeded",
    "ThrottlingError",
    "TransactionConflict",
}
"""Codes of ``CancellationReasons``, where ``None`` as text says that an action was not the reason."""


class RefusedError(Exception):
    """The condition of a write does not hold; ``item`` is what stands there, None where nothing does."""

    def __init__(self, item: dict[str, Any] | None) -> None:
        super().__init__()
        self.item = item


class ConflictError(Exception):
    """Another writer came in between: read again and write again."""


@contextmanager
def translated(table_name: str) -> Iterator[None]:
    """Turn boto3's errors into ours.

    Raise RefusedError and ConflictError for the store to handle, StatusUnavailableError and
    ConfigurationError for its callers.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _from_answer(table_name, error) from error
    except BotoCoreError as error:
        raise _from_client(table_name, error) from error
    except ValueError as error:  # boto3's word for an endpoint that is no URL
        raise _unusable(table_name, str(error)) from error


def _from_answer(table_name: str, error: "ClientError") -> Exception:
    response: dict[str, Any] = dict(error.response)
    code = response.get("Error", {}).get("Code", "")
    if code == "ConditionalCheckFailedException":
        return RefusedError(response.get("Item"))
    if code == "TransactionConflictException" or _is_overtaken(response):
        return ConflictError()
    if code in _BUSY or response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return _unavailable(table_name, str(error))
    if code == "ResourceNotFoundException":
        return ConfigurationError(
            f"the status table {table_name} does not exist: {error}",
            "deploy the stack, or check the table's name, the account and the region",
        )
    if code in _DENIED:
        return ConfigurationError(
            f"the status table {table_name} refused the credentials or the action: {error}",
            "allow GetItem, PutItem, UpdateItem and DeleteItem on the table, or renew the credentials",
        )
    return _unusable(table_name, str(error))


def _is_overtaken(response: dict[str, Any]) -> bool:
    """Whether a transaction was cancelled only for reasons that reading again answers."""
    codes = {reason.get("Code") for reason in response.get("CancellationReasons", [])} - {"None", None}
    return bool(codes) and codes <= _TRY_THE_TRANSACTION_AGAIN


def _from_client(table_name: str, error: "BotoCoreError") -> BackupToolError:
    from botocore.exceptions import ChecksumError, ConnectionError, HTTPClientError, IncompleteReadError

    if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | ChecksumError):
        return _unavailable(table_name, str(error))
    return _unusable(table_name, str(error))


def _unavailable(table_name: str, words: str) -> StatusUnavailableError:
    return StatusUnavailableError(
        f"the status table {table_name} did not answer or asked to slow down: {words}", "try again"
    )


def _unusable(table_name: str, words: str) -> ConfigurationError:
    return ConfigurationError(
        f"the status table {table_name} cannot be used: {words}",
        "check the credentials, the region, the endpoint, and that its keys are `pk` and `sk`, both text",
    )
