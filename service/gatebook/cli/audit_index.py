"""`gatebook audit index`: keeps an index of a book in PostgreSQL, and asks it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import click

from gatebook.audit.copied import CopiedBook
from gatebook.audit.people import People
from gatebook.audit.postgres import COMMIT_ENTRIES_MAX, PostgresIndex
from gatebook.audit.verify_copy import Copy
from gatebook.cli.audit_verify import told_progress
from gatebook.cli.audit_verify_query import people_of
from gatebook.cli.memory import read_key_text
from gatebook.cli.output import COULD_NOT_ASK, NO, fail
from gatebook.errors import BookCorruptError, GatebookError, VerificationError
from gatebook.tlog.keys import VerifierKey

LOOK_SECONDS = 1.0


@click.command()
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
