"""`gatebook audit verify`: checks a copied book, offline."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from google.protobuf import json_format
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gatebook.audit.verify import Report, verify_book
from gatebook.audit.verify_chain import Chain, Link, verify_chain
from gatebook.audit.verify_copy import Copy
from gatebook.audit.verify_entries import EntryReport
from gatebook.cli.memory import Memory, memory_of, memory_options, policy_of, read_key_text, witness_options
from gatebook.cli.output import COULD_NOT_ASK, NO, counted, fail, json_option, stderr, stdout, told_time
from gatebook.errors import BookCorruptError, GatebookError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.receipt import Receipt
from gatebook.v1 import types_pb2

JOBS_MAX = 256


@click.command(short_help="Check every byte of a copied book, or of a data directory.")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--vkey", required=True, metavar="KEY|FILE", help="The verifier key of the book, or a file with it.")
@memory_options
@witness_options
@click.option(
    "--receipts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Receipts that the book must keep: JSON lines, each a Receipt.",
)
@click.option(
    "--since",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read only what is new since the last run with this file, which keeps up to where that verified; the first "
    "run reads all.",
)
@click.option(
    "--predecessor",
    "predecessors",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copy of a book that this one succeeds; may be repeated. Those in `closed` beside the book are found.",
)
@click.option(
    "--jobs", type=click.IntRange(1, JOBS_MAX), help="How many processes verify at once; else one for each core."
)
@json_option
def verify(  # noqa: PLR0913  # each is an option
    *,
    path: Path,
    vkey: str,
    remember: Path | None,
    forget: bool,
    witness_keys: tuple[str, ...],
    witnesses_needed: int | None,
    witness_policy: Path | None,
    receipts: Path | None,
    since: Path | None,
    predecessors: tuple[Path, ...],
    jobs: int | None,
    as_json: bool,
) -> None:
    """Check every byte of the book at PATH: a copied `book` directory, or a whole data directory.

    Needs no server. Get the verifier key from somewhere else than the copy, and those of witnesses too. Remembers the
    newest checkpoint of each book. Exits 1 and names the first bad entry when the book is not what was written, or does
    not continue what is remembered; then it prints both signed checkpoints.

    \b
    gatebook audit verify copy/book --vkey gatebook.vkey --witness w1.vkey
    gatebook audit verify copy/book --vkey gatebook.vkey --since verified
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    copy = Copy.at(path)
    try:
        key = VerifierKey.parse(read_key_text(vkey))
        memory = memory_of(key, remember, forget=forget)
        witnesses = policy_of(key, witness_keys, witnesses_needed, witness_policy)
        promised = read_receipts(receipts) if receipts is not None else []
        verified = Memory(since, asked=True)
        processes = jobs or len(os.sched_getaffinity(0))
        remembered, before = memory.notes(), verified.notes()
        with told_progress(quiet=as_json) as stage:
            report = verify_book(
                copy.book,
                key,
                remembered=remembered,
                receipts=promised,
                witnesses=witnesses,
                wal=copy.wal,
                since=before[0] if before else None,
                meaning=copy.meaning(key.name),
                jobs=processes,
                progress=stage("entries"),
            )
            chain = verify_chain(copy, key, report, predecessors, processes)
        warning = memory.put(report.note, remembered) or verified.put(report.note, before)
    except VerificationError as error:
        told_failure(error, as_json=as_json)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    except OSError as error:
        fail(f"cannot read `{error.filename}`: {error.strerror}", COULD_NOT_ASK)
    else:
        others = sorted(str(book.parent) for book in path.glob("workers/*/book"))
        if warning:
            report = dataclasses.replace(report, warnings=(*report.warnings, warning))
        told_success(report, chain, others, as_json=as_json)


def read_receipts(path: Path) -> list[Receipt]:
    """Returns the receipts in a file.

    Raises:
        VerificationError: a line is no receipt.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            message = json_format.Parse(line, types_pb2.Receipt())
        except json_format.ParseError as err:
            raise VerificationError(f"line {number} of `{path}` is no receipt: {err}") from err
        time_ns = message.entry_time.ToNanoseconds()
        found.append(
            Receipt(message.origin, message.index, message.leaf_hash, time_ns, message.entry_bytes, message.signature)
        )
    return found


@contextmanager
def told_progress(*, quiet: bool) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Shows a bar for each stage on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), disable=quiet or not sys.stderr.isatty(), transient=True) as bars:

        def stage(name: str) -> Callable[[int, int], None]:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def told_failure(error: VerificationError | BookCorruptError, *, as_json: bool) -> None:
    """Says what is wrong and where, and ends the command."""
    evidence = [note.decode("utf-8", "replace") for note in getattr(error, "checkpoints", ())]
    if as_json:
        told = {"verified": False, "error": error.message, "first_bad_index": error.index}
        click.echo(json.dumps(told | ({"evidence": evidence} if evidence else {}), ensure_ascii=False))
        sys.exit(NO)
    for name, note in zip(("kept", "shown"), evidence, strict=False):
        click.echo(f"the checkpoint that was {name}:\n{note}", err=True)
    where = "" if error.index is None else f" (first bad index: {error.index})"
    fail(f"NOT VERIFIED: {error.message}{where}", NO)


def told_success(report: Report, chain: Chain, others: Sequence[str], *, as_json: bool) -> None:
    """Says what was verified, and what was not; `others` are the books of further workers."""
    entries = report.entries or EntryReport({}, 0)
    if as_json:
        fields = {
            "verified": True,
            "origin": report.origin,
            "size": report.size,
            "root": base64.b64encode(report.root).decode(),
            "first_index": report.first_index,
            "entry_bytes": report.entry_bytes,
            "files": report.files,
            "kinds": entries.kinds,
            "people": entries.people,
            "erased": entries.erased,
            "unfinished_erasures": entries.unfinished,
            "begins": report.begins,
            "pruned_by": entries.pruned_by,
            "policy_hash": entries.policy_hash.hex(),
            "remembered_size": report.remembered_size,
            "witnessed_size": report.witnessed_size,
            "cosigned": {each.name: told_time(each.seconds) for each in report.cosigned},
            "receipts": report.receipts,
            "unsigned_entries": report.unsigned_entries,
            "warnings": report.warnings,
            "other_books": others,
            "predecessors": [link_fields(link) for link in chain.predecessors],
            "successor": None if chain.successor is None else chain.successor.verifier_key,
        }
        click.echo(json.dumps(fields, indent=2))
        return
    console = stdout()
    console.print("[bold green]VERIFIED[/]", end=" ")
    console.print(f"{report.size} entries of {report.origin}", markup=False, soft_wrap=True)
    for name, told in (*facts(report, entries), *chain_facts(chain)):
        console.print(f"  {name:12} {told}", markup=False, soft_wrap=True)
    for other in others:
        console.print(
            f"  not checked  {other}: the book of another worker, with a key of its own", markup=False, soft_wrap=True
        )
    for warning in report.warnings:
        console.print(f"  note         {warning}", markup=False, soft_wrap=True)


def link_fields(link: Link) -> dict[str, object]:
    """Returns what JSON says of a predecessor."""
    return {
        "origin": link.origin,
        "verifier_key": link.verifier_key,
        "size": link.size,
        "key_lost": link.key_lost,
        "verified": link.book is not None,
    }


def chain_facts(chain: Chain) -> Iterator[tuple[str, str]]:
    """Yields what the book succeeds, and what succeeds it."""
    for link in chain.predecessors:
        lost = ", whose key was lost: what no checkpoint covered is not vouched for" if link.key_lost else ""
        if link.book is None:
            yield (
                "not checked",
                f"{link.origin}, {link.size} entries, which this book succeeds: name it with --predecessor",
            )
        else:
            yield "succeeds", f"{link.origin}, verified to its last of {link.size} entries{lost}"
    if chain.successor is not None:
        yield "closed", f"and goes on as {chain.successor.verifier_key}"


def facts(report: Report, entries: EntryReport) -> Sequence[tuple[str, str]]:
    """Returns what was verified, name by name."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(entries.kinds.items()))
    found = [
        ("root", base64.b64encode(report.root).decode()),
        ("entries", kinds or "none"),
        ("read", f"{report.entry_bytes} bytes of entries in {report.files} files"),
    ]
    if report.first_index:
        found.append(("since", f"entry {report.first_index}: what is before it was verified by an earlier run"))
    if entries.pruned_by:
        policy = f"under the policy of entry {entries.policy_index}, SHA-256 {entries.policy_hash.hex()}"
        told = f"the entries before {report.begins} are pruned, says entry {entries.pruned_by}, {policy}"
        found.append(("begins", told))
    if entries.erased:
        found.append(("erased", f"{counted(entries.erased, 'pseudonym')}, as entries say"))
    found += [
        ("note", f"the erasure that entry {index} began is not completed: start the server, which completes it")
        for index in entries.unfinished
    ]
    if report.remembered_size:
        found.append(("continues", f"the remembered checkpoint of size {report.remembered_size}"))
    if report.cosigned:
        names = ", ".join(f"{each.name} at {told_time(each.seconds)}" for each in report.cosigned)
        found.append(("witnessed", f"up to {report.witnessed_size} by {names}"))
    if report.receipts:
        found.append(("receipts", f"all {report.receipts} are kept"))
    return found
