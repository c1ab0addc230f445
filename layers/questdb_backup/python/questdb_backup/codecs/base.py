"""What the codecs share: their names, and a plan of how to store a chunk."""

from dataclasses import dataclass, replace
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


@dataclass(slots=True)
class ColumnMemory:
    """What the last chunk of a column was stored as: the next one is tried with it, without a search.

    ``share`` is what was left of the chunk. Threads may use one together: a note that is lost costs a
    search.
    """

    plan: Plan | None = None
    share: float = 1.0
    uses: int = 0

    def recall(self, length: int) -> Plan | None:
        """The plan for a chunk of so many bytes; None where it is time to search again."""
        self.uses += 1
        if self.plan is None or self.uses % _USES == 0:
            return None
        return replace(self.plan, expected=self.share * length)

    def note(self, plan: Plan | None, share: float) -> None:
        """What the chunk was stored as in the end; None for bytes as they are."""
        self.plan, self.share = plan, share


_USES = 8
