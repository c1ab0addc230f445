"""Runs the stand-in by hand: ``python -m standin.ebs --volume vol-0a=db.img:/dev/sdf``.

It prints, as shell lines, the environment that brings AWS clients to it, then serves until it is stopped.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from standin.ebs.images import shares_extents
from standin.ebs.model import Delays
from standin.ebs.quotas import UNLIMITED, Quotas
from standin.ebs.standin import EbsStandin

_STOP = {signal.SIGINT, signal.SIGTERM}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    # Blocked in every thread and waited for: a handler could run while its event's own lock is held.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    with tempfile.TemporaryDirectory(prefix="ebs-standin-") as scratch:
        folder = options.folder or Path(scratch)
        quotas = UNLIMITED if options.no_quotas else Quotas()
        delays = Delays(snapshot=options.snapshot_delay)
        standin = EbsStandin(folder, region=options.region, delays=delays, quotas=quotas, port=options.port)
        with standin as cloud:
            _furnish(cloud, options)
            _announce(cloud, folder)
            signal.sigwait(_STOP)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m standin.ebs", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--folder", type=Path, help="where snapshots are kept; by default a temporary one")
    parser.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="[VOL-ID=]PATH:DEVICE",
        help="an image file as a volume of the instance; repeat it for more",
    )
    parser.add_argument(
        "--root-volume", metavar="[VOL-ID=]PATH:DEVICE", help="the same for the volume that it boots from"
    )
    parser.add_argument("--instance-id", help="default: made up")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="of the instance")
    parser.add_argument(
        "--snapshot-delay", type=float, default=5.0, metavar="SECONDS", help="how long snapshots are pending"
    )
    parser.add_argument("--no-quotas", action="store_true", help="no throttling and no limits")
    return parser


def _furnish(cloud: EbsStandin, options: argparse.Namespace) -> None:
    tags = dict(tag.split("=", 1) for tag in options.tag)
    instance = cloud.add_instance(tags=tags, instance_id=options.instance_id)
    for text in options.volume:
        _add(cloud, instance, text, root=False)
    if options.root_volume:
        _add(cloud, instance, options.root_volume, root=True)


def _add(cloud: EbsStandin, instance: str, text: str, *, root: bool) -> None:
    volume_id, _, place = text.rpartition("=")
    path, _, device = place.rpartition(":")
    if not path or not device.startswith("/"):
        sys.exit(f"'{text}' is not of the form [VOL-ID=]PATH:DEVICE, as vol-0a=db.img:/dev/sdf")
    made = cloud.add_volume(
        instance, image=Path(path).resolve(), device=device, root=root, volume_id=volume_id or None
    )
    print(f"# {made} {device} on {instance}")


def _announce(cloud: EbsStandin, folder: Path) -> None:
    kind = "atomic (reflink)" if shares_extents(folder) else "copies: stop the writers while one is made"
    print(f"# snapshots in {folder} are {kind}")
    for name, value in cloud.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
