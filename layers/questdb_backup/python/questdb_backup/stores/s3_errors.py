"""The answers of S3 and its kind, and the failures of botocore, in the product's words."""

from typing import TYPE_CHECKING, Any

from questdb_backup.aws_errors import no_credentials
from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageFullError,
    StoreAccessDeniedError,
    StoreNotFoundError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

CONFLICT = "ConditionalRequestConflict"
BUSY = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests",
    "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted", CONFLICT,
}  # fmt: skip

_FULL = {"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "QuotaExceededException"}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_DENIED_HINTS = {
    "InvalidAccessKeyId": "check access_key_id in backup.object.store",
    "SignatureDoesNotMatch": "check secret_access_key and region in backup.object.store",
    "ExpiredToken": "renew the session's credentials",
    "InvalidToken": "renew the session's credentials",
    "RequestTimeTooSkewed": "set this host's clock",
    "InvalidObjectState": "the object was moved to an archive class: bring it back to one that can be read",
    "AccessDenied": (
        "allow s3:GetObject, s3:PutObject, s3:DeleteObject on the root and s3:ListBucket on the bucket"
        " (without s3:ListBucket, a missing key is answered so too)"
    ),
}


def code_of(error: "ClientError") -> tuple[int, str]:
    """The HTTP status and the error code of an answer; to a HEAD the code is the status."""
    metadata: dict[str, Any] = {**error.response.get("ResponseMetadata", {})}
    return int(metadata.get("HTTPStatusCode", 0)), error.response.get("Error", {}).get("Code", "")


def translate_client_error(error: "ClientError", doing: str, location: str) -> BackupToolError:
    """The error for a call that the server refused. ``doing`` says what was tried, say ``reading 'a/b'``."""
    status, code = code_of(error)
    message = error.response.get("Error", {}).get("Message", "")
    return translate_answer(status, code, message, f"{doing} in {location}")


def translate_answer(status: int, code: str, message: str, doing: str) -> BackupToolError:
    """The error for a status (0 where there is none), a code and a message of the server."""
    said = " ".join(part for part in (str(status or ""), code, message) if part)
    fact = f"{doing}: the store answered {said}"
    if code == "NoSuchBucket":
        return StoreNotFoundError(fact, "make the bucket, or correct its name")
    if code == "PreconditionFailed" or status == 412:
        return PreconditionFailedError(fact)
    if code in _FULL or status == 507:
        return StorageFullError(fact, "free space or raise the quota, then run again")
    if code in BUSY or status == 429 or (status >= 500 and status != 501):
        return StoreUnavailableError(fact, "the store is busy or down: try again later")
    if code in _WRONG_REGION or status == 301:
        return ConfigurationError(fact, "set region in backup.object.store to the bucket's own")
    if code == "NoSuchKey" or status == 404:
        return ObjectNotFoundError(fact)
    if code == "NotImplemented" or status == 501:
        return ConfigurationError(
            fact, "this store lacks what a backup needs: use one with conditional writes"
        )
    return StoreAccessDeniedError(
        fact, _DENIED_HINTS.get(code, "check the credentials and the bucket's policy")
    )


def translate_failure(error: Exception, doing: str, location: str) -> BackupToolError:
    """The error for what the SDK raises by itself: no answer, no credentials, a bad setting."""
    from botocore import exceptions

    fact = f"{doing} in {location}: {error}"
    if isinstance(error, no_credentials()):
        return StoreAccessDeniedError(
            fact,
            "give access_key_id and secret_access_key, the AWS_* variables, a profile or an instance role",
        )
    transfer = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.FlexibleChecksumError,
    )
    if isinstance(error, transfer) or not isinstance(error, exceptions.BotoCoreError):
        return StoreUnavailableError(fact, "check the network and endpoint in backup.object.store")
    return ConfigurationError(fact, "check backup.object.store and the AWS settings of this environment")
