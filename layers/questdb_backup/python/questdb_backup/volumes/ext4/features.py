"""Feature bits of the superblock: chapter "Super Block", tables s_feature_compat, _incompat, _ro_compat."""

from enum import IntFlag

from questdb_backup.errors import UnsupportedVolumeError


class Compatible(IntFlag):
    """Bits that a reader which does not know them may ignore."""

    HAS_JOURNAL = 0x4
    SPARSE_SUPER2 = 0x200


class Incompatible(IntFlag):
    """Bits that a reader has to know."""

    COMPRESSION = 0x1
    FILETYPE = 0x2
    RECOVER = 0x4
    JOURNAL_DEV = 0x8
    META_BG = 0x10
    EXTENTS = 0x40
    BITS_64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    DIRDATA = 0x1000
    CSUM_SEED = 0x2000
    LARGE_DIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class ReadOnlyCompatible(IntFlag):
    """Bits that only a writer has to know; those that change what a reader finds."""

    SPARSE_SUPER = 0x1
    GDT_CSUM = 0x10
    METADATA_CSUM = 0x400


_READ = (
    Incompatible.FILETYPE
    | Incompatible.RECOVER
    | Incompatible.META_BG
    | Incompatible.EXTENTS
    | Incompatible.BITS_64
    | Incompatible.MMP
    | Incompatible.FLEX_BG
    | Incompatible.EA_INODE
    | Incompatible.CSUM_SEED
    | Incompatible.LARGE_DIR
    | Incompatible.INLINE_DATA
    | Incompatible.ENCRYPT
    | Incompatible.CASEFOLD
)


def refuse_unknown(incompatible: int) -> None:
    """Raise UnsupportedVolumeError, which names them, where there are bits that are not read."""
    names = unknown_bits(incompatible, Incompatible, _READ)
    if names:
        raise UnsupportedVolumeError(
            f"the ext4 file system has the incompatible features {names}, which are not read",
            "back this volume up with the source `path` on its host",
        )


def unknown_bits(found: int, names: type[IntFlag], known: int) -> str:
    """Name the bits of ``found`` that are not among ``known``; "" where all are."""
    unknown = found & ~int(known)  # The complement of a Flag has no bits but those that have names.
    bits = (1 << n for n in range(32) if unknown & 1 << n)
    by_bit = {flag.value: (flag.name or "").lower() for flag in names}
    return ", ".join(by_bit.get(bit, f"{bit:#x}") for bit in bits)
