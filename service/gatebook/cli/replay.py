"""`gatebook policy replay` and `gatebook policy shadow`: what a draft would change of past, and of live, decisions."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click
import grpc
from rich.console import Console
from rich.status import Status

from gatebook.cli.audit_filter import filter_options
from gatebook.cli.output import (
    NO,
    YES,
    channel,
    counted,
    errors_told,
    json_option,
    print_json,
    stderr,
    stdout,
    table,
    target_option,
)
from gatebook.cli.uploading import whole_files
from gatebook.policy import bundle
from gatebook.revisions.validate import declared_name
from gatebook.v1 import audit_service_pb2, replay_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

REPLAY_SECONDS = 3_600.0
MARGIN_SECONDS = 120.0
"""What the server may take beside the time of a shadow, to compile the draft."""
NAMES_SHOWN, EXAMPLES_SHOWN = 3, 3
folder = click.argument("folder", metavar="DRAFT", type=click.Path(exists=True, file_okay=False, path_type=Path))
name_option = click.option("--name", default="", help="The name of the set; else that in its gatebook.yaml.")


@click.command(short_help="Say which past decisions a draft would decide otherwise.")
@folder
@name_option
@filter_options
@click.option("--limit", default=10_000, show_default=True, help="At most so many entries, the newest first.")
@click.option(
    "--active-directory",
    is_flag=True,
    help="Decide under the directory that is active now; else under the one of each decision.",
)
@target_option
@json_option
def replay(
    *,
    folder: Path,
    name: str,
    wanted: audit_service_pb2.EntryFilter,
    limit: int,
    active_directory: bool,
    target: str,
    as_json: bool,
) -> None:
    """Decide past decisions of the book again under the policy set in the folder DRAFT, and say what would change.

    Exits 0 where nothing would, and 1 where something would. Nothing of it is a decision; nothing is published.

    \b
    gatebook policy replay draft --since 2026-06-01 --resource mci.prompts
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    set_name, files = draft_of(folder, name)
    under = replay_pb2.REPLAY_DIRECTORY_ACTIVE if active_directory else replay_pb2.REPLAY_DIRECTORY_OF_THEN
    request = pb.ReplayDecisionsRequest(
        policy_set=set_name, files=files, filter=wanted, entries_max=limit, directory=under
    )
    last = pb.ReplayDecisionsResponse()
    with channel(target) as opened, stderr().status("decides again") as status:
        for last in PolicyServiceStub(opened).ReplayDecisions(request, timeout=REPLAY_SECONDS):
            show_progress(status, last.progress)
    if as_json:
        print_json(last)
    else:
        show_tallies(stdout(), last.progress, last.tallies)
    sys.exit(NO if last.progress.differing else YES)


@click.command(short_help="Say which live decisions a draft would decide otherwise.")
@folder
@name_option
@click.option("--for", "duration", default="60s", show_default=True, metavar="TIME", help="How long, as 90s, 5m or 1h.")
@target_option
@json_option
def shadow(*, folder: Path, name: str, duration: str, target: str, as_json: bool) -> None:
    """Decide live decisions also under the policy set in the folder DRAFT, after they were answered.

    Prints each that differs, then what differs in all; Ctrl-C ends it sooner. Exits 0 where nothing differed, and 1
    where something did. Nothing of it is ever answered to whoever asked. With --json it prints one difference per line.
    """
    set_name, files = draft_of(folder, name)
    request = pb.ShadowPolicySetRequest(policy_set=set_name, files=files, seconds=seconds_of(duration))
    last = pb.ShadowPolicySetResponse()
    with channel(target) as opened:
        answers = PolicyServiceStub(opened).ShadowPolicySet(request, timeout=request.seconds + MARGIN_SECONDS)
        last = follow(answers, as_json=as_json)
    if not as_json:
        show_tallies(stdout(), last.progress, last.tallies)
    sys.exit(NO if last.progress.differing else YES)


def follow(answers: Iterable[pb.ShadowPolicySetResponse], *, as_json: bool) -> pb.ShadowPolicySetResponse:
    """Prints differences as they come; returns the last message, where the user stops it that of then."""
    last, began = pb.ShadowPolicySetResponse(), False
    console = stdout()
    try:
        for last in answers:
            if not began:
                click.echo("watching", err=True)
                began = True
            for one in last.differences:
                if as_json:
                    print_json(one)
                else:
                    show_difference(console, one)
    except KeyboardInterrupt:
        if isinstance(answers, grpc.Call):
            answers.cancel()
    return last


def draft_of(folder: Path, name: str) -> tuple[str, list[pb.PolicyFile]]:
    """Returns the name and the files of a draft."""
    with errors_told():
        files = bundle.read_folder(folder)
    return declared_name(files, name or folder.resolve().name), whole_files(files)


def seconds_of(text: str) -> int:
    """Returns a time such as `90s`, `5m` or `1h` in seconds.

    Raises:
        click.UsageError: it is none.
    """
    factor = {"s": 1, "m": 60, "h": 3_600}.get(text[-1:], 0)
    if not factor or not text[:-1].isascii() or not text[:-1].isdecimal() or not int(text[:-1]):
        raise click.UsageError(f"--for: `{text}` is no time such as `90s`, `5m` or `1h`")
    return int(text[:-1]) * factor


def show_progress(status: Status, progress: replay_pb2.ReplayProgress) -> None:
    """Shows on a terminal how far it has come."""
    status.update(f"{progress.seen} entries read, {progress.decided} decided again, {progress.differing} differ")


def show_tallies(
    console: Console, progress: replay_pb2.ReplayProgress, tallies: Iterable[replay_pb2.DifferenceTally]
) -> None:
    """Prints what differs in all."""
    rows = [
        (kind_of(tally.kind), str(tally.count), most(tally.subjects), most(tally.resources), most(tally.callers))
        for tally in tallies
    ]
    if rows:
        console.print(table("what would change", "decisions", "of", "on", "asked by", rows=rows))
    for tally in tallies:
        for one in tally.examples[:EXAMPLES_SHOWN]:
            show_difference(console, one)
    left_out = "".join(f"; {count} left out: {why}" for why, count in sorted(progress.left_out.items()))
    told = f"{counted(progress.decided, 'decision')} decided again ({progress.distinct} different), "
    console.print(f"{told}{progress.differing} would change{left_out}", markup=False, soft_wrap=True)


def show_difference(console: Console, one: replay_pb2.DecisionDifference) -> None:
    """Prints one decision that differs."""
    kinds = ", ".join(map(kind_of, one.kinds))
    purpose = f" for {one.purpose}" if one.purpose else ""
    asked = f"{one.subject.id} {one.action} {one.resource_id}{purpose}"
    console.print(f"{kinds}: {asked}: {one.before} -> {one.after}", markup=False, soft_wrap=True)
    console.print(f"    entry {one.index}, decision {one.decision_id}, by {one.caller}", markup=False, soft_wrap=True)


def kind_of(kind: int) -> str:
    """Returns a kind of difference in words."""
    name = replay_pb2.DifferenceKind.Name(kind) if kind in replay_pb2.DifferenceKind.values() else str(kind)  # type: ignore[arg-type]  # it is a value
    return name.removeprefix("DIFFERENCE_KIND_").lower().replace("_", " ")


def most(names: Iterable[replay_pb2.NamedCount]) -> str:
    """Returns the names that stand most often."""
    found = [f"{one.name} {one.count}" for one in names]
    more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
    return ", ".join(found[:NAMES_SHOWN]) + more
