"""`gatebook audit index` and `rebuild-index`: keep indexes of a book, in PostgreSQL and in its data directory."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from gatebook.audit.catching_up import SAY_SECONDS
from gatebook.audit.chain import control_links
from gatebook.audit.checkpoints import Checkpoints
from gatebook.audit.clerk import Published
from gatebook.audit.control_state import control_state
from gatebook.audit.copied import CopiedBook
from gatebook.audit.index import COMMIT_ENTRIES_MAX, Index
from gatebook.audit.lock import DirectoryLock
from gatebook.audit.opening import Layout
from gatebook.audit.people import People
from gatebook.audit.postgres import PostgresIndex
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify_copy import Copy
from gatebook.cli.audit_verify import told_progress
from gatebook.cli.audit_verify_query import people_of
from gatebook.cli.memory import read_key_text
from gatebook.cli.output import COULD_NOT_ASK, NO, fail
from gatebook.errors import BookCorruptError, BookUnavailableError, GatebookError, VerificationError
from gatebook.tlog.keys import VerifierKey

LOOK_SECONDS = 1.0


@click.command(short_help="Keep an index of the book in PostgreSQL.")
@click.option("--to", "address", required=True, metavar="URL", help="The database, such as postgresql://host/audit.")
@click.option(
    "--copy",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The book, or the data directory, which may be one that is served.",
)
@click.option("--vkey", required=True, metavar="KEY|FILE", help="The verifier key of the book, or a file with it.")
@click.option("--follow", is_flag=True, help="Then go on as entries are published, until Ctrl-C.")
def index(*, address: str, copy: Path, vkey: str, follow: bool) -> None:
    """Keep an index of the book in PostgreSQL, for several auditors at once.

    Makes the schema `gatebook`, or goes on with it. It names nobody: people stand by pseudonym. The entries must lead
    to the signed checkpoint. Ask it with SQL, and check what it says with `verify-query --index`.

    \b
    gatebook audit index --to postgresql://localhost/audit --copy var/gatebook --vkey gatebook.vkey --follow
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    try:
        key = VerifierKey.parse(read_key_text(vkey))
        with people_of(copy) as people, PostgresIndex(address) as index, told_progress(quiet=follow) as stage:
            progress = stage("entries")
            size = covered(index, copy, key, people, progress)
            while follow:
                time.sleep(LOOK_SECONDS)
                size = covered(index, copy, key, people, progress)
    except KeyboardInterrupt:
        return
    except (VerificationError, BookCorruptError) as error:
        fail(f"NOT INDEXED: {error.message}", NO)
    except GatebookError as error:
        fail(error.message, COULD_NOT_ASK)
    click.echo(f"{size} entries of {key.name} are indexed")


@click.command(short_help="Build the index of a stopped data directory.")
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--anew", is_flag=True, help="Begin anew, also where there is an index that fits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: how far it is, every few seconds.")
def rebuild_index(*, data: Path, anew: bool, as_json: bool) -> None:
    """Build the index of the data directory DATA, whose server is stopped, or go on with it.

    A server does the same by itself at its start, beside the checks; until it is done, lists say how far it is.
    """
    layout = Layout(data)
    if not layout.key.exists():
        fail(f"there is no book in `{data}`", COULD_NOT_ASK)
    try:
        lock = DirectoryLock(layout.lock)
        try:
            size = rebuilt(layout, anew=anew, as_json=as_json)
        finally:
            lock.release()
    except BookUnavailableError as error:
        fail(error.message, COULD_NOT_ASK)
    except GatebookError as error:
        fail(error.message, NO)
    if as_json:
        click.echo(json.dumps({"indexed": size, "of": size, "done": True}))
    else:
        click.echo(f"{size} entries are indexed")


def rebuilt(layout: Layout, *, anew: bool, as_json: bool) -> int:
    """Builds the index of a data directory, as far as the book is published; returns how many entries it covers."""
    if anew:
        for file in layout.data.glob("index.db*"):
            file.unlink()
    checkpoint = Checkpoints(layout.checkpoints).newest()
    people = People.open(layout.data, read_only=True)
    try:
        book = Published(TileFolder(layout.book), checkpoint.size)
        begins = control_state(control_links(book)).first_index
        origin = VerifierKey.parse(layout.vkey.read_text("utf-8")).name
        index = Index.open(layout.data / "index.db", book, people, origin, begins)
        try:
            with told_progress(quiet=as_json) as stage:
                progress = stage("entries")
                said = time.monotonic()
                while index.size < checkpoint.size:
                    index.catch_up(book, min(checkpoint.size, index.size + COMMIT_ENTRIES_MAX))
                    progress(index.size, checkpoint.size)
                    if time.monotonic() >= said + SAY_SECONDS and (as_json or not sys.stderr.isatty()):
                        said = time.monotonic()
                        say(index.size, checkpoint.size, as_json=as_json)
            return index.size
        finally:
            index.close()
    finally:
        people.close()


def say(indexed: int, of: int, *, as_json: bool) -> None:
    """Says how far it is where there is no terminal."""
    if as_json:
        click.echo(json.dumps({"indexed": indexed, "of": of, "done": False}))
    else:
        click.echo(f"{indexed} of {of} entries are indexed", err=True)


def covered(
    index: PostgresIndex, copy: Path, key: VerifierKey, people: People | None, progress: Callable[[int, int], None]
) -> int:
    """Covers what is published by now; returns how many entries are covered.

    Raises:
        GatebookError: it cannot be, or the entries do not lead to the checkpoint.
    """
    book = CopiedBook(Copy.at(copy).book, key)
    checkpoint = book.checkpoint
    _, frontier = index.begin(key.name)
    if book.first_index:
        index.prune(key.name, book.first_index, book.edge())
        _, frontier = index.begin(key.name)
    if frontier.size > checkpoint.size:
        message = f"the index covers {frontier.size} entries and the checkpoint {checkpoint.size}"
        raise VerificationError(f"{message}: the book was put back, or this is an older copy of it")
    records = itertools.chain.from_iterable(book.batches(frontier.size))
    size = frontier.size
    while batch := list(itertools.islice(records, COMMIT_ENTRIES_MAX)):
        size = index.add(batch, key.name, people)
        progress(size, checkpoint.size)
    index.confirm(key.name, book.note, checkpoint.size, checkpoint.root)
    return size
