"""Which codec a chunk gets: judged on a small sample, by the time it takes and the bytes it leaves.

The sample is four pieces of the chunk, so that a change within it is seen. What a sample cannot see,
repeats at a distance, is looked for in the chunk itself (`_repeats`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from questdb_backup.codecs import decimal, frames, pco, shuffle
from questdb_backup.codecs.base import Buffer, Codec, Plan
from questdb_backup.codecs.columns import Shape, shape_of
from questdb_backup.codecs.spec import Mode, Spec
from questdb_backup.errors import DamagedBackupError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE = 4096
_PIECES = 4
_NOISE = 0.98
"""What hardly shrinks is not worth a search: the share of its size that is left of it."""

_NO_WORSE = 0.7
"""What is quick may leave a little more than plain Zstandard would at the user's level, not much more."""

_SOME = 0.75
_REPEATS_GAIN = 0.85
_SHUFFLED_GAIN = 0.92
_DELTA_GAIN = 0.88
"""What is left of the sample's share in the whole: more repeats are found, tables weigh less, no
piece starts far from the one before."""

_PCO_TIMES = {8: 2.5, 4: 4.0, 2: 7.4, 1: 11.0}
"""By the width of a number: milliseconds for 1 MiB at pco's level 4."""

_LONG_PIECE = 64 << 10
_MIDDLE_LEVELS = range(2, 10)
_DEFAULT_LEVEL = 5
_ENOUGH = 0.85
"""At the default level a search three times as long has to leave so much less."""

_REPEAT_WORDS = 32
_REPEAT_TRIALS = 8
_WORTH_A_LOOK = 1 / 32


def plans(plain: Buffer, level: int, column_type: str | None) -> Iterator[Plan]:
    """Ways to store the chunk, the best first; the last is plain Zstandard, which fits everything."""
    if len(plain) <= _PIECE:
        yield Plan(codec=Codec.ZSTD, level=level, expected=len(plain))
        return
    trial = _Trial(_sample(plain), shape_of(column_type, len(plain)), level, len(plain))
    zstd = trial.zstd()
    found = [plan for plan in trial.others() if plan.expected < _NOISE * len(plain)]
    fair = sorted((plan for plan in found if _NO_WORSE * plan.expected <= zstd.expected), key=trial.cost)
    if fair and fair[0].expected > _WORTH_A_LOOK * len(plain) and _repeats(plain, trial.shape):
        # The first plan that comes up to the best one's promise is taken.
        yield replace(zstd, expected=fair[0].expected)
    elif found and (not fair or trial.cost(zstd) < trial.cost(fair[0])):
        yield replace(zstd, level=_useful_level(plain, zstd.level))
    yield from fair
    yield replace(zstd, level=_useful_level(plain, zstd.level))


@dataclass(frozen=True, slots=True)
class _Trial:
    """The codecs on a sample of a chunk of ``size`` bytes; ``level`` is the user's."""

    sample: bytes
    shape: Shape
    level: int
    size: int

    def zstd(self) -> Plan:
        """Plain Zstandard. On noise its first level gives up at once, the higher ones search in vain."""
        stored = len(frames.pack(self.sample, 1))
        level = 1 if stored > _NOISE * len(self.sample) else self.level
        return Plan(codec=Codec.ZSTD, level=level, expected=self._expected(stored, _REPEATS_GAIN))

    def others(self) -> list[Plan]:
        """What the type's shape offers; no numbers where pco's library fails on them."""
        found = list(self.shuffles())
        try:
            found += self.numbers()
        except DamagedBackupError:
            return found
        return found

    def shuffles(self) -> Iterator[Plan]:
        """The shuffles by the widths of the type."""
        for width in self.shape.widths:
            expected = self._shuffled(self.sample, width)
            yield Plan(codec=shuffle.CODECS[width], level=_shuffle_level(self.level), expected=expected)

    def numbers(self) -> Iterator[Plan]:
        """What pco makes of the numbers; of their integers, where floats are decimals."""
        if not self.shape.dtype:
            return
        import numpy as np

        values: NDArray[Any] = np.frombuffer(self.sample, self.shape.dtype)
        decimals = decimal.decimals_of(values) if self.shape.dtype[0] == "f" else None
        if decimals is None:
            yield self._pco(values)
            return
        base = replace(self._pco(decimals.numbers), codec=Codec.PCO_DECIMAL, exponent=decimals.exponent)
        yield base
        # For a chunk that has some values which are no decimals.
        mult = Spec(Mode.FLOAT_MULT, 10.0**-decimals.exponent, base.spec.delta)
        yield replace(base, codec=Codec.PCO, expected=1.2 * base.expected, spec=mult)
        expected = self._shuffled(decimals.numbers.data.cast("B"), values.itemsize)
        level = _shuffle_level(self.level)
        yield replace(base, codec=Codec.ZSTD_SHUFFLE_DECIMAL, level=level, expected=expected)

    def cost(self, plan: Plan) -> float:
        """Milliseconds for encoding, the decoding that verifies it, and what the stored bytes are worth.

        The times are measured ones (``benchmarks/codecs.py``) for 1 MiB. A byte is worth more at a higher
        level: 20 ns at level 5, what it takes to send it at 50 MB/s.
        """
        time = _time(plan, self.shape, plan.expected / self.size)
        return time * self.size / (1 << 20) + plan.expected * 4e-6 * self.level

    def _pco(self, numbers: "NDArray[Any]") -> Plan:
        """The better of no deltas and deltas, each in the best mode that pco finds."""
        level = min(12, 3 + self.level // 4)
        stored, spec = min((pco.search(numbers, level, delta) for delta in (0, 1)), key=lambda pair: pair[0])
        expected = self._expected(stored, _DELTA_GAIN if spec.delta else 1)
        return Plan(codec=Codec.PCO, level=level, expected=expected, dtype=self.shape.dtype, spec=spec)

    def _shuffled(self, data: Buffer, width: int) -> float:
        return self._expected(len(frames.pack(shuffle.shuffled(data, width), 1)), _SHUFFLED_GAIN)

    def _expected(self, stored: int, gain: float) -> float:
        share = stored / len(self.sample)
        return share * self.size * (gain if share < _SOME else 1)


def _useful_level(plain: Buffer, level: int) -> int:
    """The first level where a longer search finds too little in a piece of the chunk, as in many logs.

    Up to the default level its time has to pay, above it any gain is enough. The highest levels are not
    doubted: who asks for them wants the last byte.
    """
    if level not in _MIDDLE_LEVELS or len(plain) < 4 * _LONG_PIECE:
        return level
    piece = memoryview(plain)[len(plain) // 2 :][:_LONG_PIECE]
    enough = _ENOUGH if level <= _DEFAULT_LEVEL else 1.0
    return level if len(frames.pack(piece, level)) < enough * len(frames.pack(piece, 1)) else 1


def _shuffle_level(level: int) -> int:
    """Zstandard's level for shuffled bytes: they gain nothing from a longer search, short of the longest."""
    return 1 if level < 16 else level


def _time(plan: Plan, shape: Shape, share: float) -> float:
    """Milliseconds for 1 MiB; ``share`` is what is left of it."""
    if plan.codec is Codec.ZSTD:
        return 4.3 + 1.6 * (plan.level - 1) if plan.level <= 5 else 10.7 * 1.35 ** (plan.level - 5)
    if plan.codec in shuffle.WIDTHS:
        return 2.1 if share < _SOME else 1.3
    if plan.codec is Codec.ZSTD_SHUFFLE_DECIMAL:
        return 2.4
    time = _PCO_TIMES[shape.width] * (1 + 0.13 * (plan.level - 4))
    return time * (1.0 if plan.spec.mode is Mode.CLASSIC else 1.5) + 0.5 * (plan.codec is Codec.PCO_DECIMAL)


def _sample(plain: Buffer) -> bytes:
    """Pieces from the whole length, each on a multiple of its size."""
    view = memoryview(plain)
    last = len(plain) // _PIECE - 1
    starts = sorted({last * piece // (_PIECES - 1) * _PIECE for piece in range(_PIECES)})
    return b"".join(view[start : start + _PIECE] for start in starts)


def _repeats(plain: Buffer, shape: Shape) -> bool:
    """Whether the chunk's end stands in it before, farther away than a sample reaches."""
    import numpy as np

    words = np.frombuffer(plain, f"u{shape.width}" if shape.dtype else "u8")
    end = words[-_REPEAT_WORDS:]
    places = np.flatnonzero(words[:-_REPEAT_WORDS] == end[0])[:_REPEAT_TRIALS]
    return any(np.array_equal(words[place : place + _REPEAT_WORDS], end) for place in places)
