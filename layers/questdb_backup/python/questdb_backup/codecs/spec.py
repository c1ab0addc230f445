"""How pco is to look at numbers."""

from dataclasses import dataclass
from enum import IntEnum


class Mode(IntEnum):
    """How a number is taken apart, by its four bits in the chunk's metadata."""

    CLASSIC = 0
    INT_MULT = 1
    FLOAT_MULT = 2
    FLOAT_QUANT = 3


@dataclass(frozen=True, slots=True)
class Spec:
    """What the search for a good mode found; with it given, pco need not search again.

    ``base``: the multiple, or the bits of a float quant. ``delta``: the order of consecutive deltas.
    """

    mode: Mode = Mode.CLASSIC
    base: int | float = 0
    delta: int = 0


CLASSIC = Spec()
"""Numbers as they are, without deltas."""
