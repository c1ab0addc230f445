"""What AWS answers (CloudFormation, Step Functions, Lambda, EC2, EBS), in the product's words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from questdb_backup.errors import (
    BackupToolError,
    ConfigurationError,
    StatusUnavailableError,
    TransientError,
)

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

BUSY = {
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "ServiceException",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    # of a function that slept for weeks
    "CodeArtifactUserPendingException",
    "ENINotReadyException",
    "ResourceNotReadyException",
    # of EC2 and EBS
    "ConcurrentLimitExceededException",
    "ConcurrentSnapshotLimitExceeded",
    "RequestThrottledException",
    "SnapshotCreationPerVolumeRateExceeded",
}
CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired", "UnauthorizedOperation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An error that a service answered: ``reason`` is the detail that EBS gives beside the code, or ""."""

    code: str
    message: str
    reason: str
    status: int

    @classmethod
    def of(cls, error: "ClientError") -> "Answer":
        """From boto3's error."""
        response: dict[str, Any] = {**error.response}
        told = response.get("Error", {})
        return cls(
            code=str(told.get("Code", "")),
            message=str(told.get("Message", "") or response.get("message", "")),
            reason=str(response.get("Reason", "") or told.get("Reason", "")),
            status=int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
        )

    def __str__(self) -> str:
        code = f"{self.code} ({self.reason})" if self.reason else self.code
        return f"{code}: {self.message}" if self.message else code


def refused_by_a_stack(fact: str, answer: Answer) -> BackupToolError:
    """The error for a refusal of the control APIs: the caller named what is not there, or may not."""
    if answer.code in DENIED:
        return ConfigurationError(fact, "allow the action for these credentials, or use others")
    return ConfigurationError(
        fact, "check the stack's name, AWS_DEFAULT_REGION and AWS_PROFILE, or deploy it again"
    )


@contextmanager
def translated(
    doing: str,
    *,
    unavailable: type[TransientError] = StatusUnavailableError,
    refused: Callable[[str, Answer], BackupToolError] = refused_by_a_stack,
) -> Iterator[None]:
    """Turn boto3's errors into ours; ``doing`` says what was tried, say ``looking up the stack 'x'``.

    Raise ConfigurationError (region, credentials), ``unavailable`` (no answer, or asked to slow down),
    and what ``refused`` makes of the fact and any other answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _from_answer(doing, Answer.of(error), unavailable, refused) from error
    except BotoCoreError as error:
        raise _from_client(doing, error, unavailable) from error
    except (ResponseParserError, HTTPError) as error:  # an answer that was cut, or is not AWS's
        raise unavailable(f"{doing}: {error}", "check the network, and try again") from error
    except ValueError as error:  # boto3's word for an endpoint that is no URL
        raise ConfigurationError(f"{doing}: {error}", "check AWS_ENDPOINT_URL and the profile") from error


def no_credentials() -> tuple[type["BotoCoreError"], ...]:
    """What the SDK raises where it has no credentials, or cannot get any."""
    from botocore import exceptions

    return (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.NoAuthTokenError,
    )


def _from_answer(
    doing: str,
    answer: Answer,
    unavailable: type[TransientError],
    refused: Callable[[str, Answer], BackupToolError],
) -> BackupToolError:
    fact = f"{doing}: {answer}"
    if answer.code in BUSY or answer.status == 429 or answer.status >= 500:
        return unavailable(fact, "AWS is busy or down: try again")
    if answer.code in CREDENTIALS:
        return ConfigurationError(fact, "renew the credentials, or name another profile with AWS_PROFILE")
    return refused(fact, answer)


def _from_client(doing: str, error: "BotoCoreError", unavailable: type[TransientError]) -> BackupToolError:
    from botocore import exceptions

    fact = f"{doing}: {error}"
    no_answer = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
    )
    if isinstance(error, no_credentials()):
        return ConfigurationError(fact, "log in (aws configure, aws sso login), or set AWS_PROFILE")
    if isinstance(error, exceptions.NoRegionError):
        return ConfigurationError(fact, "set AWS_DEFAULT_REGION, or a profile that has a region")
    if isinstance(error, no_answer):
        return unavailable(fact, "check the network and the region, and try again")
    return ConfigurationError(fact, "check the AWS settings of this environment")
