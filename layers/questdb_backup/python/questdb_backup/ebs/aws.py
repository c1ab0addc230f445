"""What EC2 and the EBS direct APIs answer, in the product's words; and how their clients are built.

Codes: EC2's error code list in its API reference; the direct APIs' exceptions and their ``Reason`` in
the service model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from questdb_backup import __version__, aws_errors
from questdb_backup.aws_errors import BUSY, DENIED, Answer
from questdb_backup.errors import BackupToolError, SnapshotError, TokenExpiredError, VolumeUnavailableError

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60

_STALE_TOKENS = {"INVALID_BLOCK_TOKEN", "INVALID_PAGE_TOKEN"}


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn boto3's errors into ours; ``doing`` says what was tried, say ``listing the blocks of snap-1``.

    Raise SnapshotError (refused: rights, what is not there, a state that does not allow it),
    TokenExpiredError (a token of the direct APIs), VolumeUnavailableError (no answer, or asked to slow
    down) and ConfigurationError (credentials, region).
    """
    with aws_errors.translated(doing, unavailable=VolumeUnavailableError, refused=_refused):
        yield


def open_client(service: Literal["ec2", "ebs"], *, max_connections: int = 10, attempts: int = 4) -> Any:
    """A client by the environment's credentials and region; one serves all threads of a process.

    Args:
        service: boto3's name of it.
        max_connections: connections that are kept open; at least the number of threads.
        attempts: how often the SDK sends a request that got no answer or was asked to slow down; 1 is once.

    Raises:
        ConfigurationError: no region, or settings that the SDK rejects.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=max_connections,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Each is a tenth of what the SDK takes for a block: to put its own user agent together, to look at
        # parameters that are always of the right types.
        user_agent=f"questdb-backup/{__version__}",
        parameter_validation=service != "ebs",
    )
    with translated(f"opening a client for {service}"):
        return boto3.session.Session().client(service, config=config)


def _refused(fact: str, answer: Answer) -> BackupToolError:
    if answer.reason in _STALE_TOKENS:
        return TokenExpiredError(fact, "list the blocks again")
    if answer.code in DENIED:
        return SnapshotError(fact, "allow the action on it for the role of this function")
    if answer.reason == "UNRELATED_SNAPSHOTS":
        return SnapshotError(fact, "the two are not of one volume: take all blocks as changed")
    if answer.code == "ResourceNotFoundException" or answer.code.endswith(".NotFound"):
        return SnapshotError(fact, "it was deleted, or is in another Region or account")
    return SnapshotError(fact, "look it up in EC2's console: its state, its tier, its key")


def throttle_reason(error: BaseException) -> str | None:
    """Why a call was throttled: the direct APIs' ``Reason``, or the code; None where it was not.

    ``error`` is one that `translated` has raised.
    """
    from botocore.exceptions import ClientError

    if not isinstance(error.__cause__, ClientError):
        return None
    answer = Answer.of(error.__cause__)
    return (answer.reason or answer.code) if answer.code in BUSY or answer.status == 429 else None


def is_not_found(error: BaseException) -> bool:
    """Whether the direct APIs know no such snapshot; ``error`` is one that `translated` has raised."""
    from botocore.exceptions import ClientError

    cause = error.__cause__
    return isinstance(cause, ClientError) and Answer.of(cause).code == "ResourceNotFoundException"
