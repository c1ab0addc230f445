"""pco: numbers as one standalone file of pcodec, https://github.com/pcodec/pcodec/blob/main/docs/format.md.

The file's header names the number type. Written are files of one chunk, with the modes classic, int mult,
float mult and float quant, and no delta or a consecutive one. Nothing else is read: a header may claim any
count of numbers, and lookback a window of 256 MiB that the library would allocate.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from questdb_backup.codecs.base import Buffer
from questdb_backup.codecs.spec import Mode, Spec
from questdb_backup.errors import DamagedBackupError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pcodec import ChunkConfig

_MAGIC = b"pco!"
_STANDALONE_VERSION = 3
_FORMAT_VERSION = 4
_TERMINATION = b"\0"
_DTYPES = {1: "u4", 2: "u8", 3: "i4", 4: "i8", 5: "f4", 6: "f8", 7: "u2", 8: "i2", 10: "u1", 11: "i1"}
"""numpy's names by the number type's byte."""


@dataclass(frozen=True, slots=True)
class _Header:
    """A file of one chunk: ``wrapped`` and ``meta`` are where pco's own header and the metadata begin."""

    dtype: str
    count: int
    spec: Spec
    wrapped: int
    meta: int


def pack(plain: Buffer, dtype: str, level: int, spec: Spec) -> bytes:
    """`compress` for the bytes of numbers."""
    import numpy as np

    return compress(np.frombuffer(plain, dtype), level, spec)


def compress(numbers: "NDArray[Any]", level: int, spec: Spec) -> bytes:
    """One standalone file. Raise DamagedBackupError where the library fails."""
    from pcodec import standalone

    with _foreign_errors():
        return bytes(standalone.simple_compress(numbers, _config(len(numbers), level, spec)))


def search(numbers: "NDArray[Any]", level: int, delta: int) -> tuple[int, Spec]:
    """The size of a file of some numbers in the best mode that pco finds, and that mode."""
    from pcodec import ChunkConfig, standalone

    with _foreign_errors():
        config = ChunkConfig(compression_level=level, delta_spec=_delta(delta), enable_8_bit=True)
        stored = standalone.simple_compress(numbers, config)
    try:
        return len(stored), _header(stored).spec
    except DamagedBackupError:  # a mode that is not read here
        return len(stored), Spec(delta=delta)


def decompress(stored: bytes, plain_length: int) -> "NDArray[Any]":
    """The numbers of a file that hold ``plain_length`` bytes. Raise DamagedBackupError for anything else."""
    import numpy as np
    from pcodec import wrapped

    header = _header(stored)
    dtype = np.dtype(header.dtype)
    if header.count * dtype.itemsize != plain_length:
        raise DamagedBackupError(f"the file declares {header.count} numbers, not {plain_length} bytes")
    numbers = np.empty(header.count, dtype)
    with _foreign_errors():
        file, _ = wrapped.FileDecompressor.new(stored[header.wrapped : header.meta])
        name = f"{dtype.kind}{8 * dtype.itemsize}"
        chunk, size = file.chunk_decompressor(stored[header.meta :], name)
        page = stored[header.meta + size :]
        progress, size = chunk.read_page_into(page, header.count, numbers)
    if not progress.finished or progress.n_processed != header.count or page[size:] != _TERMINATION:
        raise DamagedBackupError("the file is not whole")
    return numbers


def _config(count: int, level: int, spec: Spec) -> "ChunkConfig":
    from pcodec import ChunkConfig, ModeSpec, PagingSpec

    modes = {
        Mode.CLASSIC: lambda _: ModeSpec.classic(),
        Mode.INT_MULT: ModeSpec.try_int_mult,
        Mode.FLOAT_MULT: ModeSpec.try_float_mult,
        Mode.FLOAT_QUANT: ModeSpec.try_float_quant,
    }
    return ChunkConfig(
        compression_level=level,
        mode_spec=modes[spec.mode](spec.base),
        delta_spec=_delta(spec.delta),
        paging_spec=PagingSpec.exact_page_sizes([count]),
        enable_8_bit=True,
    )


def _delta(order: int) -> Any:
    from pcodec import DeltaSpec

    return DeltaSpec.try_consecutive(order) if order else DeltaSpec.no_op()


def _header(stored: bytes) -> _Header:
    """Read as far as the delta's kind. Raise DamagedBackupError for what is not written here."""
    try:
        if stored[:4] != _MAGIC or stored[4] != _STANDALONE_VERSION:
            raise DamagedBackupError("it is no pco file")
        # 6 bits: how many bits the count's hint has, less 1; then the hint, which nothing needs.
        wrapped = 6 + (6 + (stored[6] & 63) + 1 + 7) // 8
        if stored[wrapped] != _FORMAT_VERSION:
            raise DamagedBackupError(f"pco's format {stored[wrapped]} is not read")
        kind, less_one = stored[wrapped + 2], int.from_bytes(stored[wrapped + 3 : wrapped + 6], "little")
        meta = wrapped + 6
        if kind not in _DTYPES or stored[5] not in (0, kind):
            raise DamagedBackupError(f"number type {kind} is unknown")
        spec = _spec(stored[meta : meta + 10], _DTYPES[kind])
    except IndexError as error:
        raise DamagedBackupError("the pco file is truncated") from error
    return _Header(_DTYPES[kind], less_one + 1, spec, wrapped, meta)


def _spec(meta: bytes, dtype: str) -> Spec:
    """Mode (4 bits), its base, delta (4 bits), its order (3 bits), packed from the lowest bit on."""
    code, width = meta[0] & 15, 8 * int(dtype[1:])
    bits = {
        Mode.CLASSIC: 0,
        **({Mode.FLOAT_MULT: width, Mode.FLOAT_QUANT: 8} if dtype[0] == "f" else {Mode.INT_MULT: width}),
    }
    if code not in bits:
        raise DamagedBackupError(f"pco's mode {code} of {dtype} is not read")
    mode = Mode(code)
    number = int.from_bytes(meta, "little") >> 4
    base, number = number & ((1 << bits[mode]) - 1), number >> bits[mode]
    delta, order = number & 15, (number >> 4) & 7
    if delta > 1:
        raise DamagedBackupError(f"pco's delta {delta} is not read")
    if mode is Mode.FLOAT_MULT:
        return Spec(Mode.FLOAT_MULT, _float(base, dtype), order * delta)
    return Spec(mode, base, order * delta)


def _float(latent: int, dtype: str) -> float:
    """A positive float: its sign bit is inverted to keep the order of the numbers."""
    width = int(dtype[1])
    bits = latent ^ 1 << 8 * width - 1
    return float(struct.unpack("<d" if width == 8 else "<f", bits.to_bytes(width, "little"))[0])


@contextmanager
def _foreign_errors() -> Iterator[None]:
    """Wrap what pcodec raises: RuntimeError, TypeError; a panic of its Rust code is no Exception."""
    try:
        yield
    except BaseException as error:
        if (
            isinstance(error, (RuntimeError, TypeError, ValueError))
            or type(error).__name__ == "PanicException"
        ):
            raise DamagedBackupError(f"pco refuses it: {str(error)[:200]}") from error
        raise
