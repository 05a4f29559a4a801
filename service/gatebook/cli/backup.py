"""`gatebook backup`: copies a data directory while it is served."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import click

from gatebook.backup.take import Taken, take_backups
from gatebook.cli.audit_verify import told_failure, told_progress
from gatebook.cli.output import COULD_NOT_ASK, NO, USAGE, fail, json_option, stdout
from gatebook.errors import (
    BookCorruptError,
    BookUnavailableError,
    GatebookError,
    InvalidRequestError,
    VerificationError,
)


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The data directory of the service, which may be running.",
)
@click.option("--without-keys", is_flag=True, help="Copy the book alone: enough to verify, not enough to serve.")
@json_option
def backup(*, target: Path, data: Path, without_keys: bool, as_json: bool) -> None:
    """Back up a data directory, in use or not, to TARGET.

    TARGET is a folder, or one file where the name ends in `.tar`. The service may be running. Every entry that was
    acknowledged before the command began is in the backup, which is verified before it gets its name. It CONTAINS THE
    KEYS: keep it like them. The book of each further worker gets a backup of its own beside it.

    \b
    gatebook backup /backup/gatebook-monday.tar --data var
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    try:
        with told_progress(quiet=as_json) as stage:
            taken = take_backups(data, target, keys=not without_keys, progress=stage)
    except (VerificationError, BookCorruptError) as error:
        told_failure(error, as_json=as_json)
    except InvalidRequestError as error:
        fail(error.message, USAGE)
    except BookUnavailableError as error:
        fail(error.message, COULD_NOT_ASK)
    except GatebookError as error:
        fail(error.message, NO)
    except OSError as error:
        fail(f"cannot back up to `{target}`: {error.strerror}: {error.filename or ''}".rstrip(": "), COULD_NOT_ASK)
    else:
        told(taken, as_json=as_json)


def told(backups: Sequence[Taken], *, as_json: bool) -> None:
    """Says what is in the backups, the first worker's first, and what they must be kept like."""
    if as_json:
        first, *others = map(fields, backups)
        click.echo(json.dumps({**first, "workers": others}, indent=2))
    else:
        for taken in backups:
            show(taken)
    for taken in backups:
        for name in taken.left_out:
            told_name = f"`{name}` in the data directory is unknown to this version and was not copied"
            click.echo(f"gatebook: {told_name}", err=True)
    if backups[0].keys:
        warning = "the backup CONTAINS THE SECRET KEYS of the book, of people and of masks: keep it like the keys"
        click.echo(f"gatebook: {warning}", err=True)


def fields(taken: Taken) -> dict[str, object]:
    """Returns what is in one backup, by name."""
    return {
        "backup": str(taken.path),
        "origin": taken.origin,
        "size": taken.size,
        "published_size": taken.published_size,
        "root": base64.b64encode(taken.root).decode(),
        "files": taken.files,
        "bytes": taken.size_bytes,
        "keys": taken.keys,
        "left_out": list(taken.left_out),
    }


def show(taken: Taken) -> None:
    """Prints what is in one backup."""
    root = base64.b64encode(taken.root).decode()
    console = stdout()
    console.print("[bold green]BACKED UP[/]", end=" ")
    console.print(f"{taken.size} entries of {taken.origin}", markup=False, soft_wrap=True)
    for name, fact in (
        ("to", str(taken.path)),
        ("root", f"{root} of {taken.size} entries, {taken.published_size} of them signed"),
        ("holds", f"{taken.files} files, {taken.size_bytes} bytes"),
    ):
        console.print(f"  {name:12} {fact}", markup=False, soft_wrap=True)
