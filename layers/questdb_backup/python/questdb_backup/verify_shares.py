"""Shares of the data: a backup too large to be read at once is read in t runs, and the catalog knows which.

A pack's share is told by its name alone, so that packs that come and go move no other one.
"""

from dataclasses import dataclass, replace
from typing import Any

from questdb_backup.catalog import Catalog, ReadShare
from questdb_backup.catalog_store import read_catalog, update_catalog
from questdb_backup.codec import digest_of
from questdb_backup.errors import BackupInProgressError, BackupToolError, ConfigurationError
from questdb_backup.services import Services, logger

ReadData = tuple[int, int]
"""Which share of the packs to read whole: ``(n, t)`` is the n-th of t, ``(1, 1)`` is all, ``(0, t)`` the one
of t that was read longest ago."""

_MOST_SHARES = 366


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesRead:
    """The share that was read, and when each of its kind was read last (None: not yet)."""

    part: int
    parts: int
    remembered: bool
    read_at: tuple[str | None, ...]

    @property
    def unread(self) -> list[int]:
        """The shares that no run has read."""
        return [number for number, read_at in enumerate(self.read_at, 1) if read_at is None]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the JSON of `verify`."""
        return {
            "part": self.part,
            "parts": self.parts,
            "remembered": self.remembered,
            "shares": [{"part": number, "read_at": at} for number, at in enumerate(self.read_at, 1)],
            "unread": self.unread,
        }

    def __str__(self) -> str:
        """For the terminal."""
        if self.parts == 1:
            return "all data that is there was read"
        dates = [f"{number}/{self.parts} {at}" for number, at in enumerate(self.read_at, 1) if at]
        unread = [f"{number}/{self.parts}" for number in self.unread]
        return "\n".join(
            [
                f"share {self.part}/{self.parts} of the data read",
                *([f"last read: {', '.join(dates)}"] if dates else []),
                *([f"not yet read: {', '.join(unread)}"] if unread else []),
            ]
        )


def parse_read_data(text: str | None) -> ReadData:
    """``n/t`` as the share to read, ``next/t`` or ``/t`` as the one due; None or empty text is all.

    Raise ConfigurationError.
    """
    if not text:
        return 1, 1
    part, _, parts = text.partition("/")
    part = "0" if part in ("", "next") else part if part != "0" else "none"
    if part.isascii() and parts.isascii() and part.isdecimal() and parts.isdecimal():
        n, t = int(part), int(parts)
        if n <= t and 1 <= t <= _MOST_SHARES:
            return n, t
    raise ConfigurationError(
        f"'{text}' is no part of the data",
        f"write it as 1/7, the first of seven parts, or as next/7; at most {_MOST_SHARES} parts",
    )


def is_in_share(pack: str, share: ReadData) -> bool:
    """Whether a pack belongs to the share."""
    part, parts = share
    return parts == 1 or int(digest_of(pack.encode())[:8], 16) % parts == part - 1


def due_share(catalog: Catalog, asked: ReadData) -> ReadData:
    """The share that is asked for; of ``(0, t)`` the one that was read longest ago, unread ones first."""
    part, parts = asked
    if part:
        return asked
    return min(
        range(1, parts + 1), key=lambda number: (_read_at(catalog, number, parts) or "", number)
    ), parts


def remember_share(services: Services, instance: str, share: ReadData, backups: set[str]) -> SharesRead:
    """Record in the catalog that a share of these backups has been read.

    That it cannot be recorded is logged and told: the store may be there for reading only.
    """
    read = ReadShare(part=share[0], parts=share[1], read_at=services.now())
    try:
        catalog = update_catalog(services.store, instance, lambda before: with_share(before, read, backups))
        return shares_read(catalog, share, remembered=True)
    except BackupToolError as error:
        logger.warning("it is not remembered that share %d/%d of the data was read: %s", *share, error)
    return shares_read(read_catalog(services.store, instance), share, remembered=False)


def shares_read(catalog: Catalog, share: ReadData, *, remembered: bool) -> SharesRead:
    """What the catalog knows of the shares of that kind."""
    part, parts = share
    at = tuple(_read_at(catalog, number, parts) for number in range(1, parts + 1))
    return SharesRead(part=part, parts=parts, remembered=remembered, read_at=at)


def with_share(catalog: Catalog, read: ReadShare, backups: set[str]) -> Catalog:
    """The catalog with the share; of other kinds only the whole stays, which covers every kind.

    Raise BackupInProgressError where a prune runs or has removed a backup meanwhile: what was read is
    not what there is.
    """
    lease = catalog.lease
    pruning = lease is not None and lease.purpose != "backup" and lease.expires_at > read.read_at
    if pruning or not backups <= {row.backup_timestamp for row in catalog.complete_rows()}:
        raise BackupInProgressError(
            f"backups of instance '{catalog.instance}' were removed meanwhile", "read the share again"
        )
    kept = [
        old
        for old in catalog.read_shares
        if (old.parts == read.parts and old.part != read.part) or (old.parts == 1 and read.parts > 1)
    ]
    shares = sorted([*kept, read], key=lambda share: (share.parts, share.part))
    return replace(catalog, read_shares=tuple(shares))


def _read_at(catalog: Catalog, part: int, parts: int) -> str | None:
    """When a share was read last, by itself or with everything."""
    times = [
        share.read_at for share in catalog.read_shares if (share.part, share.parts) in {(part, parts), (1, 1)}
    ]
    return max(times, default=None)
