"""What a column type's bytes are to a codec: numbers of a width, or records to shuffle."""

from dataclasses import dataclass

SYMBOL = "symbol"

_NUMBERS = {
    "i1": ("byte", "boolean", "geobyte", "decimal8"),
    "i2": ("short", "geoshort", "decimal16"),
    "u2": ("char",),
    "i4": ("int", "geoint", "decimal32", SYMBOL),
    "u4": ("ipv4",),
    "i8": ("long", "date", "timestamp", "timestamp_ns", "geolong", "decimal64", "long[]"),
    "f4": ("float",),
    "f8": ("double", "double[]"),
}
_RECORDS = {16: ("uuid", "long128", "decimal128"), 32: ("long256", "decimal256")}


@dataclass(frozen=True, slots=True)
class Shape:
    """``dtype`` is numpy's name of the numbers, "" where there are none; ``widths`` are worth a shuffle."""

    dtype: str = ""
    widths: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The bytes of a number."""
        return int(self.dtype[1:] or 0)


TEXT = Shape()
"""No numbers and no records: text, or bytes of an unknown kind."""

_SHAPES = {
    **{
        name: Shape(dtype, (int(dtype[1]),) if int(dtype[1]) in (4, 8) else ())
        for dtype, names in _NUMBERS.items()
        for name in names
    },
    **{name: Shape("", (width,)) for width, names in _RECORDS.items() for name in names},
    # Offsets of 8 bytes (STRING, BINARY) or entries of 16 (VARCHAR, arrays): the sample tells.
    "aux": Shape("i8", (16,)),
}


def shape_of(column_type: str | None, length: int) -> Shape:
    """The shape of ``length`` bytes of a column; `TEXT` where they are no whole number of values."""
    shape = _SHAPES.get(column_type or "", TEXT)
    if shape.dtype and length % shape.width:
        return TEXT
    widths = tuple(width for width in shape.widths if length % width == 0)
    return Shape(shape.dtype, widths) if shape.dtype or widths else TEXT
