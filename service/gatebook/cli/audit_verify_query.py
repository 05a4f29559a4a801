"""`gatebook audit verify-query`: asks again without the index, and compares."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import click
import msgspec
from google.protobuf import json_format

from gatebook.audit.conditions import require_valid
from gatebook.audit.copied import CopiedBook, Rooted
from gatebook.audit.index import person_word, stranger_word
from gatebook.audit.matching import About, about_person, about_pseudonyms
from gatebook.audit.people import PSEUDONYM_BYTES, People
from gatebook.audit.postgres import PostgresIndex, differs
from gatebook.audit.verify_copy import Copy
from gatebook.audit.verify_query import QueryReport, Row, rows_of
from gatebook.audit.verify_query import verify_query as verified
from gatebook.cli.audit_filter import filter_options, origin_option
from gatebook.cli.audit_pages import OLDEST_FIRST, pages, pruned_edge
from gatebook.cli.audit_verify import told_failure, told_progress
from gatebook.cli.memory import memory_of, memory_options, read_key_text
from gatebook.cli.output import (
    ASK_TIMEOUT_SECONDS,
    COULD_NOT_ASK,
    NO,
    channel,
    counted,
    fail,
    json_option,
    stdout,
    target_option,
)
from gatebook.errors import GatebookError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

LINE_CHARACTERS_MAX = 1 << 20
INDEXES_SHOWN = 20


class Source(msgspec.Struct, frozen=True):
    """Where the entries come from: a checkpoint, whose signature is checked, and all before it that are not pruned."""

    note: bytes
    batches: Callable[[], Iterator[Sequence[pb.EntryRecord]]]
    pruned: Iterable[Sequence[bytes]] = ()
    """The leaves of what is pruned."""
    edge: tuple[int, Sequence[bytes]] = (0, ())
    """Or where the book begins, and the maximal subtrees over what is before."""


@click.command(short_help="Check that the answer to a filter is all that the book has.")
@filter_options
@click.option("--vkey", required=True, metavar="KEY|FILE", help="The verifier key of the book, or a file with it.")
@click.option(
    "--copy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Look at the entries of this copied book, or data directory, instead of fetching all.",
)
@click.option(
    "--answer",
    "saved",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare this answer: lines of `audit export` with the same filter, instead of asking.",
)
@click.option("--index", "address", default="", metavar="URL", help="Compare the answer of an index in PostgreSQL.")
@click.option("--pseudonym", "pseudonyms", multiple=True, metavar="HEX", help="Whom --subject means, without keys.")
@memory_options
@origin_option
@target_option
@json_option
def verify_query(  # noqa: PLR0913  # each is an option
    *,
    wanted: pb.EntryFilter,
    vkey: str,
    copy: Path | None,
    saved: Path | None,
    address: str,
    pseudonyms: tuple[str, ...],
    remember: Path | None,
    forget: bool,
    origin: str,
    target: str,
    as_json: bool,
) -> None:
    """Check that the answer to a filter is all that the book has: looks at every entry, and at no index.

    Entries must lead to the signed checkpoint, and continue the one that is remembered. Names the rows that are
    missing, were added or are altered, and exits 1. With --subject it needs a data directory with its keys, or
    pseudonyms; without, it cannot tell what is missing, and exits 3.

    \b
    gatebook audit verify-query --resource mci.prompts --effect deny --copy copy --vkey gatebook.vkey
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    try:
        key = VerifierKey.parse(read_key_text(vkey))
        known = [parsed_pseudonym(text) for text in pseudonyms]
        require_valid(wanted)
        memory = memory_of(key, remember, forget=forget)
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(told_progress(quiet=as_json))("entries")
            stub = None
            if copy is None or (saved is None and not address):
                stub = AuditServiceStub(stack.enter_context(channel(target)))
            people = stack.enter_context(people_of(copy))
            source = served(stub, key, origin) if copy is None else copied(copy, key, people)
            remembered = memory.notes()
            rooted = Rooted(source.note, key, remembered)
            if source.edge[0]:
                rooted.begin(*source.edge)
            if address:
                index = stack.enter_context(PostgresIndex(address))
                answer = indexed(index, wanted, key.name, rooted.size, words_of(wanted, people, known), people)
            else:
                answer = rows_of(saved_answer(saved) if saved else asked(stub, wanted, key.name, rooted.size))
            about = about_of(wanted, people, known, key.name)
            entries = watched(source.batches(), rooted.size, progress)
            report = verified(wanted, answer, entries, rooted, about, source.pruned)
        memory.put(source.note, remembered)
    except VerificationError as error:
        told_failure(error, as_json=as_json)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    except OSError as error:
        fail(f"cannot read `{error.filename}`: {error.strerror}", COULD_NOT_ASK)
    else:
        told(report, as_json=as_json)


@contextlib.contextmanager
def people_of(copy: Path | None) -> Iterator[People | None]:
    """Opens the store of people of a copied data directory, where it has one."""
    data = None if copy is None else Copy.at(copy).data
    people = None if data is None else People.open(data, read_only=True)
    try:
        yield people
    finally:
        if people is not None:
            people.close()


def parsed_pseudonym(text: str) -> bytes:
    """Returns a pseudonym.

    Raises:
        click.UsageError: it is none.
    """
    try:
        pseudonym = bytes.fromhex(text.removeprefix("~"))
    except ValueError:
        pseudonym = b""
    if len(pseudonym) != PSEUDONYM_BYTES:
        raise click.UsageError(f"--pseudonym: `{text}` is not {PSEUDONYM_BYTES} bytes in hexadecimal")
    return pseudonym


def about_of(wanted: pb.EntryFilter, people: People | None, known: Sequence[bytes], origin: str) -> About | None:
    """Returns who knows which entries are about the subject of a filter, if anybody does."""
    if known:
        return about_pseudonyms(frozenset(known))
    return None if people is None else about_person(wanted.subject_id, people, origin)


def copied(copy: Path, key: VerifierKey, people: People | None) -> Source:
    """Returns the entries of a copied book."""
    book = CopiedBook(Copy.at(copy).book, key, people)
    return Source(book.note, book.batches, book.leaves(0, book.first_index))


def served(stub: AuditServiceStub | None, key: VerifierKey, origin: str) -> Source:
    """Returns the entries of a server's book: each is fetched, and none is believed."""
    assert stub is not None  # noqa: S101  # the caller opened it
    answer = stub.GetCheckpoint(pb.GetCheckpointRequest(refresh=True, origin=origin), timeout=ASK_TIMEOUT_SECONDS)
    note = answer.checkpoint.encode()
    size = open_checkpoint(note, key).size
    edge = pruned_edge(stub, key.name, size) if size else (0, [])

    def batches() -> Iterator[Sequence[pb.EntryRecord]]:
        if size:
            for page in pages(stub, pb.EntryFilter(start_index=edge[0], end_index=size), OLDEST_FIRST, key.name):
                # What the server opened is not proved: without keys of one's own, only the bytes count.
                yield [pb.EntryRecord(index=each.index, entry_bytes=each.entry_bytes) for each in page.entries]

    return Source(note, batches, edge=edge)


def asked(stub: AuditServiceStub | None, wanted: pb.EntryFilter, origin: str, size: int) -> Iterator[pb.EntryRecord]:
    """Yields what a server answers, of the entries before a size."""
    assert stub is not None  # noqa: S101  # the caller opened it
    narrowed = pb.EntryFilter()
    narrowed.CopyFrom(wanted)
    narrowed.end_index = min(size, wanted.end_index or size)
    if size and narrowed.end_index > wanted.start_index:
        for page in pages(stub, narrowed, OLDEST_FIRST, origin):
            yield from page.entries


def words_of(wanted: pb.EntryFilter, people: People | None, known: Sequence[bytes]) -> list[bytes]:
    """Returns the words of everyone whom a filter means, as an index has them."""
    words = [person_word(pseudonym) for pseudonym in known]
    if people is not None and not known:
        words = [person_word(person.pseudonym) for person in people.find(wanted.subject_id)]
        words.append(stranger_word(people.blind(wanted.subject_id)))
    return words


def indexed(  # an answer depends on all of these
    index: PostgresIndex, wanted: pb.EntryFilter, origin: str, size: int, words: Sequence[bytes], people: People | None
) -> Iterator[Row]:
    """Yields what an index in PostgreSQL answers, of the entries before a size."""
    for row in index.find(wanted, origin, words, size=size):
        yield Row(int(row[1]), functools.partial(_is_altered, row, origin, people))


def _is_altered(row: Sequence[object], origin: str, people: People | None, entry: pb.EntryRecord, leaf: bytes) -> bool:
    """Tells whether a row of an index in PostgreSQL says anything that its entry does not."""
    return row[2] != leaf or differs(row, entry, origin, people)


def saved_answer(path: Path) -> Iterator[pb.EntryRecord]:
    """Yields the rows of an answer that was written to a file, each a line of JSON.

    Raises:
        VerificationError: a line is none.
    """
    with path.open(encoding="utf-8") as file:
        number = 0
        while line := file.readline(LINE_CHARACTERS_MAX):
            number += 1
            try:
                yield json_format.Parse(line, pb.EntryRecord())
            except json_format.ParseError as err:
                raise VerificationError(f"line {number} of `{path}` is no entry: {err}") from err


def watched(
    batches: Iterator[Sequence[pb.EntryRecord]], size: int, progress: Callable[[int, int], None]
) -> Iterator[Sequence[pb.EntryRecord]]:
    """Yields batches, and says how far they have come."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(done, size)


def told(report: QueryReport, *, as_json: bool) -> None:
    """Says what was found, and ends the command."""
    code = COULD_NOT_ASK if report.holds and not report.whole else 0 if report.holds else NO
    if as_json:
        fields = {"verified": report.holds and report.whole, **msgspec.to_builtins(report)}
        click.echo(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode())
        raise SystemExit(code)
    console = stdout()
    console.print("[bold green]THE ANSWER HOLDS[/]" if code == 0 else "[bold red]NOT VERIFIED[/]", end=" ")
    looked = report.size - report.first_index
    console.print(
        f"{counted(report.rows, 'row')}, of {looked} entries that were looked at", markup=False, soft_wrap=True
    )
    for name, difference in (("missing", report.missing), ("added", report.added), ("altered", report.altered)):
        if difference.count:
            listed = ", ".join(map(str, difference.indexes[:INDEXES_SHOWN]))
            more = ", ..." if difference.count > INDEXES_SHOWN else ""
            console.print(f"  {name:9} {difference.count}: {listed}{more}", markup=False, soft_wrap=True)
    if report.first_index:
        gone = f", and {report.gone} rows that name them are not verified" if report.gone else ""
        console.print(f"  note      the entries before {report.first_index} are pruned{gone}", soft_wrap=True)
    if report.beyond:
        console.print(
            f"  note      {report.beyond} rows come after the checkpoint, and are not verified", soft_wrap=True
        )
    if not report.whole:
        console.print(
            "  note      whom --subject means is sealed: the rows match all else, and whether some are missing only"
            " those can tell who have the keys (--copy of the data directory) or the --pseudonym",
            soft_wrap=True,
        )
    raise SystemExit(code)
