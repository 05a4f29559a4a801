"""`gatebook audit`: lists, shows, exports and proves what is in the book."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from gatebook.cli.audit_checkpoint import checkpoint
from gatebook.cli.audit_export import export, verify_export
from gatebook.cli.audit_filter import filter_options, origin_option
from gatebook.cli.audit_index import index, rebuild_index
from gatebook.cli.audit_keep import erase, prune
from gatebook.cli.audit_pages import NEWEST_FIRST, OLDEST_FIRST, json_line, pages
from gatebook.cli.audit_text import COLUMNS, facts, row
from gatebook.cli.audit_verify import verify
from gatebook.cli.audit_verify_query import verify_query
from gatebook.cli.output import (
    ASK_TIMEOUT_SECONDS,
    NO,
    channel,
    counted,
    fail,
    json_option,
    print_json,
    stdout,
    table,
    target_option,
)
from gatebook.errors import VerificationError
from gatebook.tlog.checkpoint import parse_checkpoint
from gatebook.tlog.merkle import verify_inclusion
from gatebook.tlog.proof import Proof
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

INDEX_DIGITS_MAX = 19
"""A longer number is the id of a decision."""
NARROW_COLUMNS = 4
"""The first columns of a list, which are not wrapped."""
PIPE_WIDTH = 10_000


@click.group()
def audit() -> None:
    """Read the book and check it. Every read is itself an entry."""


@audit.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many entries.")
@click.option("--oldest-first", is_flag=True, help="From the lowest index up.")
@origin_option
@target_option
@json_option
def list_entries(
    *, wanted: pb.EntryFilter, limit: int, oldest_first: bool, origin: str, target: str, as_json: bool
) -> None:
    """List the entries that match every option, the newest first.

    \b
    gatebook audit list --resource mci.prompts --effect deny --since 2026-06-01
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    answer = pb.ListEntriesResponse()
    with channel(target) as opened:
        order = OLDEST_FIRST if oldest_first else NEWEST_FIRST
        for page in pages(AuditServiceStub(opened), wanted, order, origin, limit):
            answer.MergeFrom(page)
    if as_json:
        print_json(answer)
        return
    console = wide_stdout()
    if answer.books:
        listed = table("book", *COLUMNS, rows=((record.origin, *row(record)) for record in answer.entries))
    else:
        listed = table(*COLUMNS, rows=map(row, answer.entries))
    for column in listed.columns[:NARROW_COLUMNS]:
        column.no_wrap = True
    console.print(listed)
    more = ", more match: raise --limit" if answer.next_page_token else ""
    console.print(f"{counted(len(answer.entries), 'entry', 'entries')}, of {covered(answer)}{more}", markup=False)


def covered(answer: pb.ListEntriesResponse) -> str:
    """Tells how much a list covers."""
    if not answer.books:
        return f"{answer.checkpoint_size} in the book"
    sizes = {book.origin: book.size for book in answer.books}
    return f"{sum(sizes.values())} in {len(sizes)} books"


@audit.command()
@filter_options
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="So many entries first.")
@click.option("-f", "--follow", is_flag=True, help="Then go on as entries are published, until Ctrl-C.")
@origin_option
@target_option
@json_option
def tail(*, wanted: pb.EntryFilter, lines: int, follow: bool, origin: str, target: str, as_json: bool) -> None:
    """Show the last entries that match, and with --follow those that come.

    With --json it prints one entry per line.
    """
    with channel(target) as opened:
        stub = AuditServiceStub(opened)
        newest = list(pages(stub, wanted, NEWEST_FIRST, origin, lines))
        for record in reversed([record for page in newest for record in page.entries]):
            print_entry(record, as_json=as_json)
        if follow:
            # The first page covers the book up to its checkpoint size, so that nothing comes twice or is missed.
            # Of several books each is followed from its end.
            start = newest[0].checkpoint_size if newest and not newest[0].books else None
            follow_from(stub, pb.TailEntriesRequest(start_index=start, filter=wanted, origin=origin), as_json=as_json)


def follow_from(stub: AuditServiceStub, request: pb.TailEntriesRequest, *, as_json: bool) -> None:
    """Prints entries as they are published, until the user has seen enough."""
    try:
        for response in stub.TailEntries(request):
            for record in response.entries:
                print_entry(record, as_json=as_json)
    except KeyboardInterrupt:
        return


def print_entry(record: pb.EntryRecord, *, as_json: bool) -> None:
    """Prints one entry on a line of its own."""
    click.echo(json_line(record) if as_json else "  ".join(filter(None, row(record))))


def wide_stdout() -> Console:
    """Returns the console for tables, which wrap on a terminal only, so that a line of a pipe is an entry."""
    console = stdout()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


@audit.command()
@click.argument("entry", metavar="INDEX|DECISION_ID")
@origin_option
@target_option
@json_option
def show(*, entry: str, origin: str, target: str, as_json: bool) -> None:
    """Show all that one entry says."""
    request = pb.GetEntryRequest(decision_id=entry, origin=origin)
    if entry.isascii() and entry.isdecimal() and len(entry) <= INDEX_DIGITS_MAX:
        request = pb.GetEntryRequest(index=int(entry), origin=origin)
    with channel(target) as opened:
        record = AuditServiceStub(opened).GetEntry(request, timeout=ASK_TIMEOUT_SECONDS).record
    if as_json:
        print_json(record)
    else:
        told = table("name", "content", rows=facts(record))
        told.show_header = False
        wide_stdout().print(told)


@audit.command()
@click.argument("index", type=click.IntRange(min=0))
@click.option("--size", type=click.IntRange(min=1), default=None, help="Prove it in the tree of this size.")
@click.option("--witnessed", is_flag=True, help="Prove it in the newest tree that enough witnesses cosigned.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the proof to this file.")
@origin_option
@target_option
@json_option
def proof(
    *, index: int, size: int | None, witnessed: bool, out: Path | None, origin: str, target: str, as_json: bool
) -> None:
    """Prove that entry INDEX is in the book: prints a C2SP tlog-proof@v1.

    The hashes are checked against the checkpoint first. Who receives the proof checks the signature of the
    checkpoint as well, with the verifier key of the book.
    """
    with channel(target) as opened:
        stub = AuditServiceStub(opened)
        note = newest_witnessed(stub, index, origin) if witnessed else ""
        if note:
            size = parse_checkpoint(checkpoint_text(note)).size
        request = pb.GetInclusionProofRequest(index=index, size=size or 0, origin=origin)
        answer = stub.GetInclusionProof(request, timeout=ASK_TIMEOUT_SECONDS)
    if note:
        answer.checkpoint = note  # the server may keep a newer one by now
    if not answer.checkpoint:
        fail(f"only the newest checkpoints are kept, and none is of size {answer.size}: leave out --size", NO)
    try:
        covering = parse_checkpoint(checkpoint_text(answer.checkpoint))
        verify_inclusion(index, covering.size, answer.leaf_hash, answer.hashes, covering.root)
    except VerificationError as error:
        fail(f"the server sent a proof that does not hold: {error.message}", NO)
    text = Proof(index, tuple(answer.hashes), answer.checkpoint.encode()).format()
    if out is not None:
        out.write_bytes(text)
    if as_json:
        print_json(answer)
    elif out is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"entry {index} is in the book of {answer.size} entries: {out}")


def checkpoint_text(note: str) -> str:
    """Returns what is signed of a checkpoint."""
    return note.partition("\n\n")[0] + "\n"


def newest_witnessed(stub: AuditServiceStub, index: int, origin: str) -> str:
    """Returns the newest checkpoint that is witnessed; ends the command where it does not cover the entry."""
    asked = pb.GetCheckpointRequest(refresh=True, origin=origin)
    note = stub.GetCheckpoint(asked, timeout=ASK_TIMEOUT_SECONDS).witnessed_checkpoint
    if not note:
        fail("no checkpoint of this book is witnessed: start the server with --witness, or leave out --witnessed", NO)
    size = parse_checkpoint(checkpoint_text(note)).size
    if size <= index:
        fail(f"the newest witnessed checkpoint has size {size}: ask again in a second", NO)
    return note


@audit.command(short_help="Name the books of a service, with their verifier keys.")
@target_option
@json_option
def books(*, target: str, as_json: bool) -> None:
    """Name the books of a service, which are as many as its workers, with their verifier keys."""
    with channel(target) as opened:
        answer = AuditServiceStub(opened).ListBooks(pb.ListBooksRequest(), timeout=ASK_TIMEOUT_SECONDS)
    if as_json:
        print_json(answer)
    else:
        rows = ((book.origin, str(book.size), book.verifier_key) for book in answer.books)
        wide_stdout().print(table("origin", "published", "verifier key", rows=rows))


audit.add_command(export)
audit.add_command(index)
audit.add_command(rebuild_index)
audit.add_command(verify)
audit.add_command(verify_export)
audit.add_command(verify_query)
audit.add_command(checkpoint)
audit.add_command(erase)
audit.add_command(prune)
