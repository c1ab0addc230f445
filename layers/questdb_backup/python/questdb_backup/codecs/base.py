"""What the codecs share: their names, and a plan of how to store a chunk."""

from dataclasses import dataclass
from enum import StrEnum

from questdb_backup.codecs.spec import CLASSIC, Spec

Buffer = bytes | bytearray | memoryview
"""Plain bytes, as a caller may hold them."""


class Codec(StrEnum):
    """Names of the codecs, as they stand in shards and pack indexes."""

    ZERO = "zero"
    RAW = "raw"
    ZSTD = "zstd"
    ZSTD_SHUFFLE_4 = "zstd-shuffle4"
    ZSTD_SHUFFLE_8 = "zstd-shuffle8"
    ZSTD_SHUFFLE_16 = "zstd-shuffle16"
    ZSTD_SHUFFLE_32 = "zstd-shuffle32"
    ZSTD_SHUFFLE_DECIMAL = "zstd-shuffle-decimal"
    PCO = "pco"
    PCO_DECIMAL = "pco-decimal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to store a chunk.

    ``level`` is the codec's own (Zstandard's 1-22, pco's 0-12). ``expected`` is the stored size in
    bytes that a sample foretold: a result far above it is a reason to try the next plan.
    """

    codec: Codec
    level: int
    expected: float
    dtype: str = ""
    """numpy's name of the numbers, for pco's codecs."""
    spec: Spec = CLASSIC
    exponent: int = 0
