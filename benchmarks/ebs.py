"""How fast a worker reads a snapshot: python -m benchmarks.ebs [MIB].

The stand-in server runs as a process of its own and serves a snapshot of so many MiB of random bytes (512 by
default), without quotas. 16 threads with nothing but a boto3 client fetch all its blocks: that is the raw
rate. Then a `BlockReader` fetches, checks and gives out the same bytes in windows, as a worker reads them.
Both are done three times, in turn; the medians are printed, and that of the three ratios, as the machine
may be slower in one round than in another.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from questdb_backup.chunker import WINDOW_BYTES
from questdb_backup.ebs.aws import open_client
from questdb_backup.ebs.base import BLOCK_BYTES
from questdb_backup.ebs.blocks import BlockReader
from questdb_backup.ebs.direct import BotoDirectApi
from standin.ebs import EbsStandin, Quotas
from tests.support.direct_standin import take_snapshot

THREADS = 16
ROUNDS = 3
DEFAULT_MIB = 512
MIB = 1 << 20


def serve(folder: Path, image: Path, pipe: Connection, processors: set[int], latency: float) -> None:
    """Tell the variables that lead to the server, and the snapshot's id; serve until there is an answer."""
    os.sched_setaffinity(0, processors)
    quotas = Quotas(get_per_snapshot=None, get_per_account=None, list_per_account=None)
    with EbsStandin(folder / "cloud", quotas=quotas) as server:
        if latency:
            server.faults.delay("GetSnapshotBlock", latency, times=None)
        pipe.send((server.environment, take_snapshot(server, server.add_volume(None, image=image))))
        pipe.recv()


@contextmanager
def served_image(
    folder: Path, image: Path, processors: set[int] | None = None, *, latency: float = 0.0
) -> Iterator[str]:
    """The id of a snapshot with the image's bytes; the environment leads to the server.

    The server keeps to the ``processors``; None: all that this process has. It waits for ``latency``
    seconds before it sends a block.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    own = processors or os.sched_getaffinity(0)
    process = context.Process(target=serve, args=(folder, image, there, own, latency), daemon=True)
    process.start()
    try:
        environment, snapshot_id = here.recv()
        os.environ.update(environment)
        yield snapshot_id
        here.send("stop")
    finally:
        process.join(10)
        process.terminate()


def random_image(folder: Path, blocks: int) -> Path:
    """A new volume of random blocks."""
    image = folder / "volume.img"
    with image.open("xb") as file:
        for _ in range(blocks):
            file.write(os.urandom(BLOCK_BYTES))
        file.truncate(-(-blocks * BLOCK_BYTES >> 30) << 30)
    return image


def read_bare(snapshot_id: str, blocks: int) -> None:
    """All blocks by nothing but boto3; the listing, too."""
    read_bare_blocks(snapshot_id, range(blocks))


def read_bare_blocks(snapshot_id: str, indexes: Collection[int]) -> None:
    """These blocks, as far as they were ever written."""
    with (
        closing(open_client("ebs", max_connections=THREADS, attempts=1)) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        wanted, tokens = frozenset(indexes), []
        place: dict[str, Any] = {}
        while True:
            page = client.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=10_000, **place)
            tokens += [block for block in page["Blocks"] if block["BlockIndex"] in wanted]
            if not page.get("NextToken"):
                break
            place = {"NextToken": page["NextToken"]}

        def get(block: dict[str, object]) -> int:
            answer = client.get_snapshot_block(SnapshotId=snapshot_id, **block)
            return len(answer["BlockData"].read())

        assert sum(pool.map(get, tokens)) == len(tokens) * BLOCK_BYTES


def read_as_a_worker(snapshot_id: str, blocks: int) -> None:
    """All bytes through a `BlockReader`."""
    buffer = memoryview(bytearray(WINDOW_BYTES))
    wanted = [(snapshot_id, index) for index in range(blocks)]
    size = blocks * BLOCK_BYTES
    with closing(BotoDirectApi(threads=THREADS)) as api, BlockReader(api, wanted, threads=THREADS) as reader:
        for offset in range(0, size, WINDOW_BYTES):
            reader.read(snapshot_id, offset, buffer[: min(WINDOW_BYTES, size - offset)])
        counters = api.counters
    assert (counters.blocks, counters.get_requests) == (blocks, blocks), "each block once"


def rate(read: Callable[[str, int], None], snapshot_id: str, blocks: int) -> float:
    """MiB a second."""
    began = time.perf_counter()
    read(snapshot_id, blocks)
    return blocks * BLOCK_BYTES / MIB / (time.perf_counter() - began)


def main() -> None:
    """Print a line for each round, then the medians."""
    blocks = (int(sys.argv[1]) if sys.argv[1:] else DEFAULT_MIB) * MIB // BLOCK_BYTES
    bare: list[float] = []
    worker: list[float] = []
    print(f"{'round':>6} {'boto3 alone MiB/s':>18} {'BlockReader MiB/s':>18} {'ratio':>6}")
    with (
        tempfile.TemporaryDirectory(prefix="questdb-backup-ebs-") as name,
        served_image(Path(name), random_image(Path(name), blocks)) as snapshot,
    ):
        for number in range(ROUNDS):
            bare.append(rate(read_bare, snapshot, blocks))
            worker.append(rate(read_as_a_worker, snapshot, blocks))
            _print(str(number + 1), bare[-1], worker[-1], worker[-1] / bare[-1])
    ratios = [ours / alone for ours, alone in zip(worker, bare, strict=True)]
    _print("median", statistics.median(bare), statistics.median(worker), statistics.median(ratios))


def _print(name: str, bare: float, worker: float, ratio: float) -> None:
    print(f"{name:>6} {bare:>18.0f} {worker:>18.0f} {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
