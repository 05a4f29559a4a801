"""`gatebook audit erase` and `gatebook audit prune`: what takes something out of the book, and says so in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from gatebook.cli.audit_filter import parse_time
from gatebook.cli.output import NO, USAGE, channel, counted, fail, json_option, print_json, target_option
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

F = TypeVar("F", bound=Callable[..., object])
KEEP_TIMEOUT_SECONDS = 600.0


def two_options(function: F) -> F:
    """Adds the options that name the two people of an entry, and why."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask; needed where nobody sits at a terminal."),
        click.option("--dry-run", is_flag=True, help="Only tell what would go."),
        click.option("--reason", required=True, metavar="TEXT", help="Why: a ticket number. It stays in the book."),
        click.option("--approved-by", required=True, metavar="ID", help="Who approved it: somebody else."),
        click.option("--requested-by", required=True, metavar="ID", help="Who asks for it."),
    ):
        function = option(function)
    return function


@click.command(short_help="Delete the keys of what is personal of PERSON in the book.")
@click.argument("person", metavar="PERSON")
@two_options
@target_option
@json_option
def erase(  # each is an option
    *,
    person: str,
    requested_by: str,
    approved_by: str,
    reason: str,
    dry_run: bool,
    yes: bool,
    target: str,
    as_json: bool,
) -> None:
    """Erase PERSON: delete the keys under which the book holds what is personal of them.

    Entries, counts and proofs stay. Who asked, who approved and why are an entry. It cannot be undone.

    \b
    gatebook audit erase eli --requested-by dana --approved-by kai --reason T-2041
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    request = pb.EraseSubjectRequest(
        subject_id=person, requested_by=requested_by, approved_by=approved_by, reason=reason, validate_only=True
    )
    with channel(target) as opened:
        stub = AuditServiceStub(opened)
        answer = stub.EraseSubject(request, timeout=KEEP_TIMEOUT_SECONDS)
        people = sum(book.people_count for book in answer.books)
        entries = sum(book.entries_count for book in answer.books)
        told = f"{counted(people, 'key')} that {concern(entries)}"
        if not people and not dry_run:
            fail("nobody with this id is in the key store, so there is nothing to erase: check the id", NO)
        if not dry_run:
            confirm(f"Delete {told}? It cannot be undone", yes=yes)
            request.validate_only = False
            answer = stub.EraseSubject(request, timeout=KEEP_TIMEOUT_SECONDS)
    if as_json:
        print_json(answer)
    elif dry_run:
        click.echo(f"would delete {told}")
        if any(book.objects for book in answer.books):
            click.echo("somebody with this id was erased before, and objects to every purpose that one can object to")
    else:
        click.echo(f"deleted {told}")
        for book in answer.books:
            click.echo(f"  {book.origin}: entries {book.begun_index} and {book.completed_index} say so")


def concern(entries: int) -> str:
    """Tells how many entries need some keys."""
    return "1 entry concerns" if entries == 1 else f"{entries} entries concern"


@click.command(short_help="Remove the oldest entries, as a written policy permits.")
@click.option("--before", metavar="TIME", help="Entries that are older go (ISO 8601; UTC unless it says otherwise).")
@click.option("--keep", "keep_days", type=click.IntRange(min=1), metavar="DAYS", help="Entries that are older go.")
@click.option(
    "--policy",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The written policy: a TOML file with `keep_days` and `[[holds]]`.",
)
@two_options
@target_option
@json_option
def prune(  # noqa: PLR0913  # each is an option
    *,
    before: str | None,
    keep_days: int | None,
    policy: Path,
    requested_by: str,
    approved_by: str,
    reason: str,
    dry_run: bool,
    yes: bool,
    target: str,
    as_json: bool,
) -> None:
    """Prune the oldest entries, as far as they fill bundles of 256 and the written policy permits.

    Hash tiles stay, so every proof does. The policy, and what went, are entries. It cannot be undone.

    \b
    gatebook audit prune --keep 400 --policy retention.toml --requested-by dana --approved-by kai --reason T-7
    """  # noqa: D301  # as above
    if (before is None) == (keep_days is None):
        raise click.UsageError("name one of --before and --keep")
    request = pb.PruneEntriesRequest(
        policy=policy.read_bytes(),
        requested_by=requested_by,
        approved_by=approved_by,
        reason=reason,
        validate_only=True,
    )
    if before is not None:
        request.before_time.FromDatetime(parse_time("--before", before))
    else:
        request.keep_days = keep_days or 0
    with channel(target) as opened:
        stub = AuditServiceStub(opened)
        answer = stub.PruneEntries(request, timeout=KEEP_TIMEOUT_SECONDS)
        entries = sum(book.entries_count for book in answer.books)
        if entries and not dry_run:
            confirm(f"Remove {counted(entries, 'entry', 'entries')}? It cannot be undone", yes=yes)
            request.validate_only = False
            answer = stub.PruneEntries(request, timeout=KEEP_TIMEOUT_SECONDS)
    if as_json:
        print_json(answer)
        return
    for book in answer.books:
        told = "would go" if dry_run and book.entries_count else "went" if book.entries_count else "to go"
        held = ", since a hold keeps the rest" if book.held else ""
        count = counted(book.entries_count, "entry", "entries") if book.entries_count else "nothing"
        click.echo(f"{book.origin}: {count} {told}, the book begins with entry {book.first_index}{held}")
        if book.begun_index:
            click.echo(f"  entry {book.begun_index} says so, under the policy of entry {book.policy_index}")


def confirm(question: str, *, yes: bool) -> None:
    """Asks whoever sits at the terminal; ends the command where nobody does, or the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody can be asked here: say --yes, or --dry-run to see what would go", USAGE)
    if not click.confirm(question, err=True):
        fail("nothing was changed", NO)
