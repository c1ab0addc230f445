"""Decimals that were rounded to binary floats, stored as the integers that they were.

Prices and measurements have a few decimals: 62001.37 is 6200137 / 10 ** 2, and this quotient of two
exact floats is the very float that the text was parsed to. The integers cost half of what the floats
cost. Every value is checked bit by bit: a chunk with one value that is no such quotient is not stored so.

Stored: ``width`` of the float in bytes (u8), ``exponent`` (u8), ``lowest`` (i64 little endian), then the
signed integers of that width, as pco or as a shuffle stores them. A value is ``integer / 10 ** exponent``;
``lowest - 1`` is QuestDB's null (NaN), ``lowest - 2`` is -0.0.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from questdb_backup.codecs import frames, pco, shuffle
from questdb_backup.codecs.base import Buffer, Codec, Plan
from questdb_backup.errors import DamagedBackupError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_DECIMALS = 12
_HEADER = struct.Struct("<BBq")
_NULLS = {8: 0x7FF8_0000_0000_0000, 4: 0x7FC0_0000}
_NEGATIVE_ZEROS = {8: 1 << 63, 4: 1 << 31}
_TRIALS = 3
_SAMPLE = 128


@dataclass(frozen=True, slots=True)
class Decimals:
    """The integers of some floats, and what is needed to have them back."""

    numbers: "Array"
    exponent: int
    lowest: int


def decimals_of(values: "Array", exponent: int | None = None) -> Decimals | None:
    """Floats as integers; None where one has more decimals than `MOST_DECIMALS`, or is none at all.

    ``exponent`` is the number of decimals to try first, where it is known.
    """
    if exponent is None:
        exponent = _exponent_of(values)
    for _ in range(_TRIALS):
        if exponent is None:
            return None
        found = _integers(values, exponent)
        if isinstance(found, Decimals):
            return found
        more = _exponent_of(values[~found])
        exponent = more if more is not None and more > exponent else None
    return None


def pack(plain: Buffer, plan: Plan) -> bytes | None:
    """The stored bytes; None where `decimals_of` gives none."""
    import numpy as np

    found = decimals_of(np.frombuffer(plain, plan.dtype), plan.exponent)
    if found is None:
        return None
    numbers = found.numbers
    header = _HEADER.pack(numbers.itemsize, found.exponent, found.lowest)
    if plan.codec is Codec.PCO_DECIMAL:
        return header + pco.compress(numbers, plan.level, plan.spec)
    return header + frames.pack(shuffle.shuffled(numbers.data.cast("B"), numbers.itemsize), plan.level)


def unpack(codec: str, stored: bytes, plain_length: int) -> memoryview:
    """The inverse of `pack`. Raise DamagedBackupError."""
    import numpy as np

    if len(stored) < _HEADER.size:
        raise DamagedBackupError("the decimals are truncated")
    width, exponent, lowest = _HEADER.unpack_from(stored)
    if width not in _NULLS or exponent > MOST_DECIMALS:
        raise DamagedBackupError(f"decimals of {width} bytes, exponent {exponent} are unknown")
    if not _least(width) <= lowest < 1 << (8 * width - 1):
        raise DamagedBackupError(f"the lowest decimal {lowest} has no room in {width} bytes")
    rest = stored[_HEADER.size :]
    if codec == Codec.PCO_DECIMAL:
        numbers = pco.decompress(rest, plain_length)
    else:
        numbers = shuffle.unshuffled(rest, width, plain_length).reshape(-1).view(f"<i{width}")
    if numbers.dtype != np.dtype(f"i{width}"):
        raise DamagedBackupError(f"decimals of {width} bytes are stored as {numbers.dtype}")
    bits = _bits(numbers / 10.0**exponent, np.dtype(f"f{width}"))
    if int(numbers.min(initial=lowest)) < lowest:
        bits[numbers == lowest - 1] = _NULLS[width]
        bits[numbers == lowest - 2] = _NEGATIVE_ZEROS[width]
    return bits.data.cast("B")


def _exponent_of(values: "Array") -> int | None:
    """The fewest decimals that some of the values have; None where one has too many."""
    import numpy as np

    some = values[:: len(values) // _SAMPLE + 1]
    some = some[np.isfinite(some)]
    powers = 10.0 ** np.arange(MOST_DECIMALS + 1)
    with np.errstate(all="ignore"):
        quotients = np.rint(some[:, None] * powers) / powers
        exact = (quotients.astype(some.dtype) == some[:, None]).all(axis=0)
    return int(exact.argmax()) if exact.any() else None


def _integers(values: "Array", exponent: int) -> "Decimals | Array":
    """The integers; where a value is no integer divided by the power of ten: which values are well."""
    import numpy as np

    width = values.dtype.itemsize
    bits = values.view(f"u{width}")
    with np.errstate(all="ignore"):
        numbers = np.rint(values * 10.0**exponent).astype(f"i{width}")
        exact = _bits(numbers / 10.0**exponent, values.dtype) == bits
    least = _least(width)
    if exact.all():
        return Decimals(numbers, exponent, least)
    # A null or a negative zero is the next integer below all others: near to them it costs least.
    nulls, zeros = bits == _NULLS[width], bits == _NEGATIVE_ZEROS[width]
    lowest = int(numbers.min(where=exact, initial=np.iinfo(numbers.dtype).max)) if exact.any() else 0
    well: Array = exact | nulls | zeros
    if lowest < least or not well.all():
        return well
    numbers[nulls] = lowest - 1
    numbers[zeros] = lowest - 2
    return Decimals(numbers, exponent, lowest)


def _least(width: int) -> int:
    """The lowest integer that leaves two below it."""
    return -(1 << (8 * width - 1)) + 2


def _bits(quotients: "Array", dtype: Any) -> "Array":
    """The bits of the values as the column holds them."""
    return quotients.astype(dtype, copy=False).view(f"u{dtype.itemsize}")
