"""An object store in a bucket: S3, or a server that speaks its protocol with conditional writes."""

import random
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from questdb_backup.errors import (
    ConfigurationError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from questdb_backup.stores.base import Data, StoredObject, Versioned
from questdb_backup.stores.connection_string import S3Location
from questdb_backup.stores.keys import check_key, check_prefix, check_range
from questdb_backup.stores.s3_errors import (
    BUSY,
    CONFLICT,
    code_of,
    translate_answer,
    translate_client_error,
    translate_failure,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60
ATTEMPTS = 4  # the SDK waits up to 1, 2 and 4 seconds between them
_CONFLICT_ATTEMPTS = 6
_BODY_ATTEMPTS = 3
_DELETE_BATCH = 1000
_MARK = "questdb-backup-write"  # user metadata: the header x-amz-meta-questdb-backup-write

Answer = Mapping[str, Any]


class S3ObjectStore:
    """Objects are S3 objects below ``root`` of the bucket; the version of an object is its ETag.

    Every write is one conditional PUT (objects are far below the 5 GB that it takes), so two writers
    never overwrite each other. One client serves all threads.

    Args:
        location: the bucket, and how to reach it.
        max_connections: connections that are kept open; at least the number of threads.
        attempts: how often the SDK sends a request that got no answer or was asked to slow down.

    Raises:
        ConfigurationError: the SDK rejects the settings, say a profile that does not exist.
    """

    def __init__(self, location: S3Location, *, max_connections: int, attempts: int = ATTEMPTS) -> None:
        self._bucket = location.bucket
        self._prefix = f"{location.root}/" if location.root else ""
        self._location = f"s3://{location.bucket}/{location.root}".rstrip("/")
        self._deletes_in_batches = True
        try:
            with self._errors("opening the store"):
                self._client = _client(location, max_connections, attempts)
        except ValueError as error:  # an endpoint that the SDK does not accept
            raise ConfigurationError(str(error), "correct endpoint in backup.object.store") from error

    @property
    def location(self) -> str:
        """``s3://bucket/root``."""
        return self._location

    def address(self, key: str) -> tuple[str, str]:
        """The bucket, and the key with the root before it."""
        return self._bucket, self._prefix + check_key(key)

    def close(self) -> None:
        """Close the connections; the store cannot be used any more."""
        self._client.close()

    def get(self, key: str) -> bytes:
        """The whole object."""
        return self._download(key)[0]

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Some bytes of the object, fewer where it ends."""
        check_range(key, offset, length)
        last = offset + max(length, 1) - 1  # an empty range cannot be asked for: one byte proves the key
        data, answer = self._download(key, Range=f"bytes={offset}-{last}")
        if answer["ResponseMetadata"]["HTTPStatusCode"] == 200:  # this server ignores ranges
            data = data[offset:]
        return data[:length]

    def read(self, key: str) -> Versioned | None:
        """The object with its ETag, or None."""
        try:
            data, answer = self._download(key)
        except ObjectNotFoundError:
            return None
        return Versioned(data, answer["ETag"])

    def create(self, key: str, data: Data) -> None:
        """Write an object that is not there yet.

        After a lost response the SDK sends the request again and meets its own object: equal bytes are
        therefore a success here, as the contract says.
        """
        try:
            self._put(key, bytes(data), {"IfNoneMatch": "*"})
        except PreconditionFailedError as error:
            found = self.read(key)
            if found is None or found.data != data:
                raise ObjectExistsError(f"'{key}' is in {self.location} already, with other bytes") from error

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        """Compare-and-swap by If-Match, or If-None-Match where nothing is expected.

        A refusal can be the echo of our own success: the first response was lost, the SDK sent the request
        again, and the version is not the expected one any more because we have changed it. Equal bytes
        would not prove that (two writers may swap the same bytes in), so each call marks what it writes
        with a random word in the object's metadata, and a refused call looks for its own mark. It is there
        only if this very call has won. A mark that another writer has replaced meanwhile, or that the
        server does not keep, leaves PreconditionFailedError: read again, as after any lost race.

        StoreUnavailableError says that the outcome is not known: read again, too.
        """
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        mark = secrets.token_hex(16)
        try:
            return self._put(key, data, {**condition, "Metadata": {_MARK: mark}})
        except (PreconditionFailedError, ObjectNotFoundError) as error:
            version = self._version_with(key, mark)
            if version is None:
                fact = f"'{key}' in {self.location} was changed by another writer"
                raise PreconditionFailedError(fact) from error
            return version

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects, a thousand with one request where the server can do that."""
        doomed = [self._prefix + check_key(key) for key in keys]
        for start in range(0, len(doomed), _DELETE_BATCH):
            batch = doomed[start : start + _DELETE_BATCH]
            if not self._delete_batch(batch):
                self._delete_singly(batch)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with the prefix; the folder markers of consoles are left out."""
        paginator = self._client.get_paginator("list_objects_v2")
        pages = iter(paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + check_prefix(prefix)))
        while True:
            with self._errors(f"listing '{prefix}'"):
                page = next(pages, None)
            if page is None:
                return
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                if key and not key.endswith("/"):
                    yield StoredObject(key, item["Size"])

    def _download(self, key: str, attempts: int = _BODY_ATTEMPTS, **more: Any) -> tuple[bytes, Answer]:
        """The body and the answer; a range past the end is no bytes. The SDK does not retry a torn body."""
        from botocore.exceptions import ClientError

        doing = f"reading '{key}'"
        with self._errors(doing):
            try:
                answer = self._client.get_object(
                    Bucket=self._bucket, Key=self._prefix + check_key(key), **more
                )
            except ClientError as error:
                if code_of(error)[0] != 416:
                    raise
                return b"", error.response
        try:
            with self._errors(doing), closing(answer["Body"]) as body:
                return body.read(), answer
        except StoreUnavailableError:
            if attempts == 1:
                raise
        return self._download(key, attempts - 1, **more)

    def _put(self, key: str, data: bytes, options: dict[str, Any]) -> str:
        """One PUT, again after 409, which says that the race with another writer is still open."""
        from botocore.exceptions import ClientError

        name = self._prefix + check_key(key)
        with self._errors(f"writing '{key}'"):
            for attempt in range(1, _CONFLICT_ATTEMPTS):
                try:
                    return self._client.put_object(Bucket=self._bucket, Key=name, Body=data, **options)[
                        "ETag"
                    ]
                except ClientError as error:
                    if code_of(error)[1] != CONFLICT:
                        raise
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))
            return self._client.put_object(Bucket=self._bucket, Key=name, Body=data, **options)["ETag"]

    def _version_with(self, key: str, mark: str) -> str | None:
        """The version of the object if it bears the mark."""
        try:
            with self._errors(f"reading '{key}'"):
                answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ObjectNotFoundError:
            return None
        return answer["ETag"] if answer["Metadata"].get(_MARK) == mark else None

    def _delete_batch(self, names: Sequence[str]) -> bool:
        """False where the server does not do this, or wants a checksum that the SDK no longer sends."""
        from botocore.exceptions import ClientError

        if not self._deletes_in_batches:
            return False
        doomed: Any = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        with self._errors(f"deleting {len(names)} objects"):
            try:
                answer = self._client.delete_objects(Bucket=self._bucket, Delete=doomed)
            except ClientError as error:
                status, code = code_of(error)
                if status not in (400, 405, 411, 501) or code in BUSY:
                    raise
                self._deletes_in_batches = False
                return False
        for failed in answer.get("Errors", ()):
            self._check_deleted(failed)
        return True

    def _check_deleted(self, failed: Any) -> None:
        code, message = failed.get("Code", ""), failed.get("Message", "")
        if code != "NoSuchKey":
            doing = f"deleting '{failed.get('Key', '')}' in {self.location}"
            raise translate_answer(0, code, message, doing)

    def _delete_singly(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                with self._errors(f"deleting '{name}'"):
                    self._client.delete_object(Bucket=self._bucket, Key=name)
            except ObjectNotFoundError:
                continue

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as error:
            raise translate_client_error(error, doing, self.location) from error
        except (BotoCoreError, ResponseParserError, HTTPError) as error:
            raise translate_failure(error, doing, self.location) from error


def _client(location: S3Location, max_connections: int, attempts: int) -> "S3Client":
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        aws_access_key_id=location.access_key_id,
        aws_secret_access_key=location.secret_access_key,
        region_name=location.region,
    )
    config = Config(
        max_pool_connections=max_connections,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    if location.endpoint:  # servers like S3 know buckets as paths, and not all know the SDK's new checksums
        config = config.merge(
            Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
        )
    region = session.region_name or "us-east-1"
    return session.client("s3", endpoint_url=location.endpoint, region_name=region, config=config)
