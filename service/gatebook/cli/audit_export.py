"""`gatebook audit export` and `verify-export`: the book for other programs."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import msgspec
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gatebook.audit.copied import CopiedBook
from gatebook.audit.export import Export
from gatebook.audit.exported import Shape
from gatebook.audit.people import People
from gatebook.audit.verify_copy import Copy
from gatebook.audit.verify_export import ExportReport
from gatebook.audit.verify_export import verify_export as verified_export
from gatebook.cli.audit_filter import filter_options, origin_option
from gatebook.cli.audit_pages import OLDEST_FIRST, json_line, pages, pruned_edge
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
    stderr,
    stdout,
    target_option,
)
from gatebook.errors import BookRefusedError, GatebookError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

JSON_LINES, PARQUET = "jsonl", "parquet"


class Asked(msgspec.Struct, frozen=True):
    """What is to be exported as Parquet, and from where."""

    folder: Path
    shape: Shape
    copy: Path | None
    vkey: str
    origin: str
    target: str


@click.command(short_help="Write entries as JSON lines, or the whole book as Parquet.")
@filter_options
@click.option("--format", "form", type=click.Choice([JSON_LINES, PARQUET]), default=JSON_LINES, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file; of Parquet to this folder.")
@click.option("--raw", is_flag=True, help="With the exact bytes of each entry (base64), which are what is proved.")
@click.option("--without-personal-data", "bare", is_flag=True, help="JSON lines: without names, and what links people.")
@click.option("--with-pseudonyms", is_flag=True, help="Parquet: with the pseudonyms of people.")
@click.option("--with-personal-data", is_flag=True, help="Parquet: with names and what else is sealed, where it opens.")
@click.option(
    "--from-copy",
    "copy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Parquet: of this copied book, or data directory, instead of a server's.",
)
@click.option("--vkey", default="", metavar="KEY|FILE", help="The verifier key of the book; --from-copy needs it.")
@origin_option
@target_option
def export(  # noqa: PLR0913  # each is an option
    *,
    wanted: pb.EntryFilter,
    form: str,
    out: Path | None,
    raw: bool,
    bare: bool,
    with_pseudonyms: bool,
    with_personal_data: bool,
    copy: Path | None,
    vkey: str,
    origin: str,
    target: str,
) -> None:
    """Write all entries that match as JSON lines, the oldest first, or the whole book as Parquet.

    Parquet files lie in a folder for each day (UTC), without personal data. The same command again adds what has come
    since; `verify-export` shows that no entry is missing.

    \b
    gatebook audit export --kind decision --out decisions.jsonl
    gatebook audit export --format parquet --out lake/gatebook
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    if bare and (raw or form == PARQUET):
        raise click.UsageError(
            "--without-personal-data goes with JSON lines, without --raw; Parquet has none of itself"
        )
    if form == PARQUET:
        if out is None or wanted != pb.EntryFilter():
            raise click.UsageError("a Parquet export is of the whole book: name a folder with --out, and no filter")
        shape = Shape(pseudonyms=with_pseudonyms, personal=with_personal_data, exact=raw)
        export_parquet(Asked(out, shape, copy, vkey, origin, target))
    elif with_pseudonyms or with_personal_data or copy is not None or vkey:
        raise click.UsageError(
            "--with-pseudonyms, --with-personal-data, --from-copy and --vkey go with --format parquet"
        )
    else:
        export_lines(wanted, out, origin, target, raw=raw, bare=bare)


def export_lines(wanted: pb.EntryFilter, out: Path | None, origin: str, target: str, *, raw: bool, bare: bool) -> None:
    """Writes JSON lines."""
    columns = (SpinnerColumn(), TextColumn("{task.completed} entries"), TimeElapsedColumn())
    with (
        whole_file(out) as file,
        Progress(*columns, console=stderr(), disable=out is None or not sys.stderr.isatty()) as progress,
        channel(target) as opened,
    ):
        task = progress.add_task("", total=None)
        for page in pages(AuditServiceStub(opened), wanted, OLDEST_FIRST, origin, bare=bare):
            write_lines(file, page, raw=raw)
            progress.advance(task, len(page.entries))


def export_parquet(asked: Asked) -> None:
    """Writes Parquet files, of a server's book or of a copy."""
    try:
        with told_progress(quiet=False) as stage:
            export = (from_server if asked.copy is None else from_copy)(asked, stage("entries"))
    except VerificationError as error:
        fail(f"NOT EXPORTED: {error.message}", NO)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    manifest = export.manifest
    parts = counted(len(manifest.parts), "file")
    click.echo(f"{manifest.size - manifest.first_index} entries of {manifest.origin} in {parts}: {asked.folder}")
    if manifest.first_index:
        click.echo(f"  it begins with entry {manifest.first_index}: the book was pruned before")


def from_server(asked: Asked, progress: Callable[[int, int], None]) -> Export:
    """Exports what a server tells of its book."""
    with channel(asked.target) as opened:
        stub = AuditServiceStub(opened)
        request = pb.GetCheckpointRequest(refresh=True, origin=asked.origin)
        answer = stub.GetCheckpoint(request, timeout=ASK_TIMEOUT_SECONDS)
        note = answer.checkpoint.encode()
        key = VerifierKey.parse(read_key_text(asked.vkey) if asked.vkey else answer.verifier_key)
        checkpoint = open_checkpoint(note, key)
        export = Export(asked.folder, checkpoint.origin, asked.shape)
        first = export.manifest.size
        wanted = pb.EntryFilter(start_index=first, end_index=checkpoint.size)
        listed: Iterator[pb.ListEntriesResponse] = iter(())
        if first < checkpoint.size:
            begins, edge = pruned_edge(stub, checkpoint.origin, checkpoint.size)
            export.begin_at(begins, edge)
            wanted.start_index = max(first, begins)
            listed = pages(stub, wanted, OLDEST_FIRST, checkpoint.origin)
        export.run((page.entries for page in listed), checkpoint, note, progress)
        return export


def from_copy(asked: Asked, progress: Callable[[int, int], None]) -> Export:
    """Exports a copied book."""
    assert asked.copy is not None  # noqa: S101  # the caller looked
    if not asked.vkey:
        raise click.UsageError("--from-copy needs --vkey, from somewhere else than the copy")
    copy = Copy.at(asked.copy)
    if asked.shape.personal and copy.data is None:
        raise BookRefusedError(f"`{asked.copy}` has no keys of people: copy the whole data directory")
    people = People.open(copy.data, read_only=True) if asked.shape.personal and copy.data else None
    try:
        book = CopiedBook(copy.book, VerifierKey.parse(read_key_text(asked.vkey)), people)
        export = Export(asked.folder, book.checkpoint.origin, asked.shape)
        export.begin_at(book.first_index, book.edge())
        export.run(book.batches(export.manifest.size), book.checkpoint, book.note, progress)
    finally:
        if people is not None:
            people.close()
    return export


@contextmanager
def whole_file(path: Path | None) -> Iterator[IO[str]]:
    """Opens a file that appears under its name when it is complete, and not at all otherwise; None is stdout."""
    if path is None:
        yield sys.stdout
        return
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_lines(file: IO[str], page: pb.ListEntriesResponse, *, raw: bool) -> None:
    """Writes one line for each entry."""
    for record in page.entries:
        if not raw:
            record.ClearField("entry_bytes")
        file.write(json_line(record) + "\n")


@click.command(short_help="Check that a Parquet export has every entry of the book.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--vkey", required=True, metavar="KEY|FILE", help="The verifier key of the book, or a file with it.")
@click.option(
    "--book",
    "copy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copied book: compares every row with its entry.",
)
@memory_options
@json_option
def verify_export(
    *, folder: Path, vkey: str, copy: Path | None, remember: Path | None, forget: bool, as_json: bool
) -> None:
    """Check that the Parquet export in FOLDER has every entry of the book, and nothing else.

    Needs no server. Exits 1 and names the first bad entry where it is not what the checkpoint says. What the columns
    say is compared with the exact bytes where the export has them (--raw), or with a copied book.

    \b
    gatebook audit verify-export lake/gatebook --vkey gatebook.vkey
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    try:
        key = VerifierKey.parse(read_key_text(vkey))
        remembered: Sequence[bytes] = memory_of(key, remember, forget=forget).notes()
        book = None if copy is None else CopiedBook(Copy.at(copy).book, key)
        with told_progress(quiet=as_json) as stage:
            report = verified_export(folder, key, remembered=remembered, book=book, progress=stage("rows"))
    except VerificationError as error:
        told_failure(error, as_json=as_json)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    except OSError as error:
        fail(f"cannot read `{error.filename}`: {error.strerror}", COULD_NOT_ASK)
    else:
        told(report, as_json=as_json)


def told(report: ExportReport, *, as_json: bool) -> None:
    """Says what was verified."""
    root = base64.b64encode(report.root).decode()
    if as_json:
        fields = {"verified": True, **msgspec.structs.asdict(report), "root": root}
        click.echo(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode())
        return
    console = stdout()
    console.print("[bold green]VERIFIED[/]", end=" ")
    begins = f"from {report.first_index} on, where the export begins, " if report.first_index else ""
    said = f"every entry of {report.origin} {begins}before {report.size} is there"
    console.print(said, markup=False, soft_wrap=True)
    compared = f"of {report.rows_compared} rows" if report.rows_compared else "no: neither exact bytes nor --book"
    for name, said in (("root", root), ("files", str(report.files)), ("compared", compared)):
        console.print(f"  {name:12} {said}", markup=False, soft_wrap=True)
    if report.beyond:
        beyond = f"{report.beyond} rows are beyond the checkpoint: the export was broken off, run it again"
        console.print(f"  note         {beyond}", markup=False, soft_wrap=True)
