"""The verb check: what the store holds beside what its catalogs say, and how it is mended."""

import argparse
from collections.abc import Iterator

from questdb_backup import keys
from questdb_backup.check.inventory import Tally, printable
from questdb_backup.check.orphans import remove_orphans
from questdb_backup.check.rebuild_store import RebuildReport, rebuild_store
from questdb_backup.check.repair import Wanted, repair
from questdb_backup.check.report import InstanceReport, StoreReport
from questdb_backup.check.store import check_store
from questdb_backup.cli.render import format_bytes
from questdb_backup.cli.verb import Outcome, Verb
from questdb_backup.cli.verbs_store import chosen_instance, look_after, refuse_grace
from questdb_backup.errors import ConfigurationError
from questdb_backup.local.guarding import local_instance
from questdb_backup.local.options import Place
from questdb_backup.verify_shares import parse_read_data

_SHOWN = 10
_HELP = "list the store and compare it with its catalogs; mend what is lost"
_DESCRIPTION = """
Lists every object below _backup/ and compares it with what the catalogs name. Without an option nothing is
changed. Exit code 1: something that a backup needs is missing or damaged. Leftovers of runs that died
(orphans) and objects that are none of ours (foreign) only cost space: exit code 0.
"""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.description = " ".join(_DESCRIPTION.split())
    acts = parser.add_mutually_exclusive_group()
    acts.add_argument(
        "--remove-orphans",
        action="store_true",
        help="note orphans older than the grace for deletion; the prunes after another grace delete them",
    )
    acts.add_argument(
        "--rebuild",
        action="store_true",
        help="make a lost or damaged catalog.json or instances.json anew from the manifests in the store",
    )
    acts.add_argument(
        "--repair",
        action="store_true",
        help="note missing and damaged packs, so that the next backup stores anew what they held",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; change nothing")
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --rebuild: also where the catalog can be read; what it says stays, and manifests of runs"
        " that it does not know are added",
    )
    parser.add_argument(
        "--read-data",
        nargs="?",
        const="",
        metavar="n/t",
        help="with --repair: read packs whole as well; n/t: the n-th of t shares, as with verify",
    )
    parser.add_argument(
        "--pack",
        action="append",
        default=[],
        metavar="RUN/N",
        help="with --repair: read this pack, which `verify` names behind packs/; may be repeated",
    )
    parser.add_argument(
        "--grace-hours",
        type=float,
        metavar="H",
        help="how long leftovers stay (default 48; never less than twice the longest run)",
    )


def _check(arguments: argparse.Namespace, place: Place) -> Outcome:
    _refuse_loose_options(arguments)
    if arguments.remove_orphans:
        return _remove_orphans(arguments, place)
    if arguments.rebuild:
        return _rebuild(arguments, place)
    if arguments.repair:
        return _repair(arguments, place)
    look_after(place)
    report = check_store(place.services, _wanted(place))
    return Outcome(value=report.to_json(), text="\n".join(_lines(report)), code=0 if report.ok else 1)


def _refuse_loose_options(arguments: argparse.Namespace) -> None:
    acts = arguments.remove_orphans or arguments.rebuild or arguments.repair
    for given, name, fits in (
        (arguments.dry_run, "--dry-run", acts),
        (arguments.force, "--force", arguments.rebuild),
        (arguments.read_data is not None, "--read-data", arguments.repair),
        (arguments.pack, "--pack", arguments.repair),
    ):
        if given and not fits:
            raise ConfigurationError(
                f"{name} does not belong to this form of check", "`questdb-backup check --help` has the forms"
            )
    refuse_grace(arguments.grace_hours)


def _wanted(place: Place) -> str | None:
    return place.settings.instance_name or (local_instance(place) if place.root else None)


def _remove_orphans(arguments: argparse.Namespace, place: Place) -> Outcome:
    instance = chosen_instance(place)
    report = remove_orphans(place.services, instance, dry_run=arguments.dry_run)
    would = "would be noted" if arguments.dry_run else "noted"
    lines = [*_instance_lines(report)]
    lines.append(f"{report.orphans.objects} objects {would} for deletion by `prune` after the grace")
    return Outcome(
        value={"dry_run": arguments.dry_run, **report.to_json()},
        text="\n".join(lines),
        code=1 if report.problems else 0,
    )


def _repair(arguments: argparse.Namespace, place: Place) -> Outcome:
    part = arguments.read_data
    wanted = Wanted(
        share=None if part is None else parse_read_data(part),
        packs=tuple(str(name).rpartition("packs/")[2] for name in arguments.pack),
    )
    report, added, struck = repair(place.services, chosen_instance(place), wanted, dry_run=arguments.dry_run)
    lines = [*_instance_lines(report)]
    lines += [f"noted    pack {name}: the next backup stores anew what it held" for name in added]
    lines += [f"struck   pack {name}: it is whole, or no backup needs it any more" for name in struck]
    if arguments.dry_run:
        lines.append("nothing was changed")
    value = {"dry_run": arguments.dry_run, "noted": added, "struck_off": struck, **report.to_json()}
    return Outcome(value=value, text="\n".join(lines), code=1 if report.problems else 0)


def _rebuild(arguments: argparse.Namespace, place: Place) -> Outcome:
    look_after(place)
    report = rebuild_store(place.services, _wanted(place), force=arguments.force, dry_run=arguments.dry_run)
    rejected = any(made.rejected for made in report.instances)
    return Outcome(value=report.to_json(), text="\n".join(_rebuild_lines(report)), code=1 if rejected else 0)


def _rebuild_lines(report: RebuildReport) -> Iterator[str]:
    for made in report.instances:
        verb = "written" if made.written else "would be written"
        yield f"{keys.catalog(made.instance)} {verb}: {len(made.found)} backups"
        yield from (f"backup   {found}" for found in made.found)
        yield from (f"left out {one.key}: {one.reason}" for one in made.rejected)
        unfinished = [run.run for run in made.catalog.runs if not run.published]
        yield from (
            f"left by  {run}: the next prunes remove what this unfinished run stored" for run in unfinished
        )
    if report.named:
        verb = "would name" if report.dry_run else "names"
        yield f"{keys.INSTANCES} now {verb} {', '.join(report.named)}"
    if not report.dry_run:
        yield "next: `questdb-backup verify --read-data`"


def _lines(report: StoreReport) -> Iterator[str]:
    yield from (f"problem  {problem}" for problem in report.problems)
    for instance in report.instances:
        yield from _instance_lines(instance)
    yield from _tally("foreign", report.foreign, "none of ours; never touched")
    yield f"{report.objects} objects, {format_bytes(report.bytes)} listed"


def _instance_lines(report: InstanceReport) -> Iterator[str]:
    yield f"instance {report.instance}"
    yield from (f"problem  {problem}" for problem in report.problems[:_SHOWN])
    if report.damaged > _SHOWN:
        yield f"problem  {report.damaged} objects in all are missing or damaged (--json names more)"
    yield from (f"note     {note}" for note in report.notes[:_SHOWN])
    for backup in report.backups:
        if backup.restorable:
            yield f"whole    {backup.backup_timestamp}"
            continue
        what = backup.error or f"{backup.damaged_files} files have bytes in what is damaged"
        yield f"damaged  {backup.backup_timestamp}  {what}"
        yield from (f"         {printable(path)}" for path in backup.files[:_SHOWN])
    yield from (
        f"noted    pack {name} is damaged: no new backup refers to it" for name in report.damaged_packs
    )
    yield from _tally("orphans", report.orphans, "`check --remove-orphans` notes them for deletion")
    yield from _tally("young", report.young, "orphans within the grace; they stay")
    yield from _tally("waiting", report.waiting, "the next prunes delete them")
    yield from _tally("live", report.live, "of the run under way")
    yield from _tally("unjudged", report.unjudged, "cannot be told apart now; never removed")


def _tally(word: str, tally: Tally, what: str) -> Iterator[str]:
    if not tally.objects:
        return
    yield f"{word:<8} {tally.objects} objects, {format_bytes(tally.bytes)}: {what}"
    if word in ("orphans", "foreign"):
        yield from (f"         {printable(key)}" for key in tally.keys[:_SHOWN])


VERBS = (Verb(name="check", help=_HELP, configure=_configure, run=_check),)
