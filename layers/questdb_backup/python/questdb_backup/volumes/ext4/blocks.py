"""The blocks of a file system as they stand once its journal was replayed; the device stays as it is."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache

from questdb_backup.volumes.base import Device, check_range

_PIECE = 1 << 16
_KEPT_PIECES = 64
"""4 MiB of metadata."""
_NO_POSITIONS: Mapping[int, int] = {}


class Overlay:
    """Blocks whose bytes are in the journal.

    ``positions`` maps a block to the device's byte where its bytes are; where the block is escaped, so
    that its first bytes have to become ``escaped`` again, to the complement (``~``) of that.
    """

    def __init__(
        self, device: Device, block_size: int, positions: Mapping[int, int], escaped: bytes = b""
    ) -> None:
        self._device = device
        self._block_size = block_size
        self._positions = positions
        self._escaped = escaped
        self._numbers = array("Q", sorted(positions))

    def __len__(self) -> int:
        return len(self._numbers)

    def within(self, first: int, count: int) -> Sequence[int]:
        """The numbers of the blocks of a stretch that are here, rising."""
        if not self._numbers:
            return ()
        low = bisect_left(self._numbers, first)
        return self._numbers[low : bisect_left(self._numbers, first + count, low)]

    def read(self, block: int) -> bytes:
        """The bytes of a block that is here."""
        position = self._positions[block]
        if position >= 0:
            return self._device.read(position, self._block_size)
        return self._escaped + self._device.read(~position, self._block_size)[len(self._escaped) :]


class Blocks:
    """Read access under an overlay: metadata is read in larger pieces, of which the last ones are kept."""

    def __init__(self, device: Device, block_size: int, overlay: Overlay | None = None) -> None:
        self.device = device
        self.block_size = block_size
        self.overlay = overlay or Overlay(device, block_size, _NO_POSITIONS)
        self._piece_size = max(_PIECE, block_size)
        self._piece = lru_cache(maxsize=_KEPT_PIECES)(self._read_piece)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes of metadata from byte ``offset`` on.

        Raise DamagedVolumeError where that is not within the device.
        """
        number, start = divmod(offset, self._piece_size)
        if start + length <= self._piece_size:
            found = self._piece(number)[start : start + length]
            if len(found) == length:
                return found
        check_range(offset, length, self.device.size)
        rest = self._piece_size - start
        return self.read(offset, rest) + self.read(offset + rest, length - rest)

    def block(self, number: int) -> bytes:
        """The bytes of one block of metadata."""
        return self.read(number * self.block_size, self.block_size)

    def _read_piece(self, number: int) -> bytes:
        offset = number * self._piece_size
        length = max(0, min(self._piece_size, self.device.size - offset))
        below = self.device.read(offset, length)
        first = offset // self.block_size
        changed = self.overlay.within(first, self._piece_size // self.block_size)
        if not changed:
            return below
        piece = bytearray(below)
        for block in changed:
            at = (block - first) * self.block_size
            piece[at : at + self.block_size] = self.overlay.read(block)
        return bytes(piece)
