"""The object store that the product needs: write once, read ranges, swap two small objects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

Data = bytes | memoryview
"""What is written; a view is of memory that is used again when the call has returned."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One listed object: key below the store's root, and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Versioned:
    """The bytes of an object and the opaque version that a swap compares."""

    data: bytes
    version: str


class ObjectStore(Protocol):
    """Keys are relative to the store's root, ``/`` separated, and never begin or end with ``/``.

    Every method raises StoreUnavailableError (transient), StoreAccessDeniedError, StoreNotFoundError
    (the bucket or root is not there) or StorageFullError besides what it names; foreign errors never pass.
    All methods may be called from several threads.
    """

    @property
    def location(self) -> str:
        """For messages: the store without its secrets, say ``s3://bucket/root``."""

    def address(self, key: str) -> tuple[str, str]:
        """Bucket and whole key, as another reader of the same store (Step Functions) names the object."""

    def get(self, key: str) -> bytes:
        """The whole object. Raise ObjectNotFoundError."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only where the object ends. Raise ObjectNotFoundError."""

    def read(self, key: str) -> Versioned | None:
        """The object with its version for `replace`; None where there is none."""

    def create(self, key: str, data: Data) -> None:
        """Write an object that is not there yet, whole and durable.

        Equal bytes that are there already are a success (a retry after a lost response).
        Raise ObjectExistsError where other bytes are there.
        """

    def replace(self, key: str, data: bytes, expected: str | None) -> str:
        """Compare-and-swap: write only while the version is ``expected`` (None: no object there).

        Give the new version. Raise PreconditionFailedError where it is another one. Of several
        concurrent swaps from one version exactly one succeeds.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects; a key that is not there is a success."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under the prefix, in no promised order. The verb `check` alone needs this."""
