"""What the control APIs of AWS answer (CloudFormation, Step Functions, Lambda), in the product's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from questdb_backup.errors import BackupToolError, ConfigurationError, StatusUnavailableError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_BUSY = {
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "ServiceException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired"}


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn boto3's errors into ours; ``doing`` says what was tried, say ``looking up the stack 'x'``.

    Raise ConfigurationError (region, credentials, rights, a name that is not there) and
    StatusUnavailableError (no answer, or asked to slow down).
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _from_answer(doing, error) from error
    except BotoCoreError as error:
        raise _from_client(doing, error) from error
    except ValueError as error:  # boto3's word for an endpoint that is no URL
        raise ConfigurationError(f"{doing}: {error}", "check AWS_ENDPOINT_URL and the profile") from error


def _from_answer(doing: str, error: "ClientError") -> BackupToolError:
    response: dict[str, Any] = {**error.response}
    told = response.get("Error", {})
    code, message = str(told.get("Code", "")), str(told.get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    fact = f"{doing}: {code}: {message}" if message else f"{doing}: {code}"
    if code in _BUSY or status == 429 or status >= 500:
        return StatusUnavailableError(fact, "AWS is busy or down: try again")
    if code in _CREDENTIALS:
        return ConfigurationError(fact, "renew the credentials, or name another profile with AWS_PROFILE")
    if code in _DENIED:
        return ConfigurationError(fact, "allow the action for these credentials, or use others")
    return ConfigurationError(
        fact, "check the stack's name, AWS_DEFAULT_REGION and AWS_PROFILE, or deploy it again"
    )


def _from_client(doing: str, error: "BotoCoreError") -> BackupToolError:
    from botocore import exceptions

    fact = f"{doing}: {error}"
    no_answer = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
    )
    no_credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.NoAuthTokenError,
    )
    if isinstance(error, no_credentials):
        return ConfigurationError(fact, "log in (aws configure, aws sso login), or set AWS_PROFILE")
    if isinstance(error, exceptions.NoRegionError):
        return ConfigurationError(fact, "set AWS_DEFAULT_REGION, or a profile that has a region")
    if isinstance(error, no_answer):
        return StatusUnavailableError(fact, "check the network and the region, and try again")
    return ConfigurationError(fact, "check the AWS settings of this environment")
