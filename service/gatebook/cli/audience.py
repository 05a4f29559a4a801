"""`gatebook policy audience`: who could be allowed something, and by which way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from gatebook.cli.output import USAGE, counted, errors_told, fail, json_option, print_json, stdout
from gatebook.cli.uploading import size_of, working
from gatebook.errors import InvalidRequestError
from gatebook.expression.moments import Moment
from gatebook.governance.audience import Audiences
from gatebook.governance.listing import list_audience
from gatebook.policy import bundle
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.rpc import encode
from gatebook.v1 import policy_service_pb2 as pb

SHOWN = 50
_SURE = {
    pb.CERTAINTY_POSSIBLE: "possible",
    pb.CERTAINTY_OWN_ROWS: "own rows",
}


@click.command(short_help="List who could be allowed something, and by which rule.")
@click.argument("node", metavar="DATASET|COLUMN|TAG")
@click.option(
    "--policy-set",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the policy set.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the subjects; else the `directory/` of the set.",
)
@click.option("--action", default="", help="Only this action.")
@click.option("--purpose", default="", help="Only this purpose.")
@click.option("--limit", default=SHOWN, show_default=True, help="Subjects to list; 0 means all.")
@json_option
def audience(
    node: str,
    folder: Path,
    directory: Path | None,
    action: str,
    purpose: str,
    limit: int,
    as_json: bool,  # noqa: FBT001  # click passes flags by name
) -> None:
    """List who could be allowed DATASET|COLUMN|TAG (or a namespace), for what, and by which links and rule.

    Whoever is not listed cannot be allowed. `possible` are those of whom it is not decided, `own rows` those who
    could read rows about themselves alone.
    """
    with errors_told():
        files = bundle.read_folder(folder)
        people = directory or bundle.directory_beside(folder)
        if people is None:
            fail(f"`{folder}` has no `directory/`: name the subjects with --directory", USAGE)
        subjects = bundle.read_directory_folder(people)
        with working("reading and analysing", size_of(files) + size_of(subjects)):
            policy_set = load(files, folder.resolve().name)
            if policy_set.catalogue is None:
                fail(f"policy set `{policy_set.name}` has no catalogue, and so no audiences", USAGE)
            known = load_directory(subjects)
            audiences = Audiences(policy_set, known, Moment(datetime.now(UTC)))
            try:
                listed = list_audience(audiences, node, action=action, purpose=purpose, limit=max(0, limit))
            except InvalidRequestError as err:
                fail(str(err), USAGE)
    message = encode.audience(listed, node)
    message.policy_digest, message.directory_digest = policy_set.digest, known.digest
    if as_json:
        print_json(message)
    else:
        show_audience(message)


def show_audience(message: pb.Audience) -> None:
    """Prints an audience for people."""
    console = stdout()
    for member in message.members:
        for line in _lines(member):
            console.print(line, markup=False, soft_wrap=True)
    if message.subjects_left_out:
        console.print(f"... and {message.subjects_left_out} more: ask with a larger --limit", markup=False)
    people = message.people_certain + message.people_possible
    told = f"{message.node}: {people} {'person' if people == 1 else 'people'} could be allowed"
    if message.people_possible:
        told += f" ({message.people_possible} of them possibly)"
    told += f", {counted(message.services, 'service')}"
    if message.people_own_rows:
        told += f"; {message.people_own_rows} more their own rows alone"
    console.print(told, markup=False, soft_wrap=True)


def _lines(member: pb.AudienceMember) -> Iterator[str]:
    """Yields what one subject could do, and the way below it."""
    widest = [it for it in member.purposes if not any(it.startswith(f"{other}.") for other in member.purposes)]
    purposes = f" for {', '.join(widest)}" if widest else ""
    sure = "" if member.certainty == pb.CERTAINTY_CERTAIN else f" ({_SURE.get(member.certainty, '?')})"
    yield f"{member.subject}  {member.action} {member.dataset}{purposes}{sure}"
    for step in member.path:
        yield f"  by  {step.file}:{step.line}  {step.text}"
