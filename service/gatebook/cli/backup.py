"""`gatebook backup`: copies a data directory while it is served."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import click

from gatebook.backup.take import Taken, take_backup
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
    KEYS: keep it like them.

    \b
    gatebook backup /backup/gatebook-monday.tar --data var
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    try:
        with told_progress(quiet=as_json) as stage:
            taken = take_backup(data, target, keys=not without_keys, progress=stage)
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


def told(taken: Taken, *, as_json: bool) -> None:
    """Says what is in the backup, and what it must be kept like."""
    root = base64.b64encode(taken.root).decode()
    if as_json:
        fields = {
            "backup": str(taken.path),
            "origin": taken.origin,
            "size": taken.size,
            "published_size": taken.published_size,
            "root": root,
            "files": taken.files,
            "bytes": taken.size_bytes,
            "keys": taken.keys,
            "left_out": list(taken.left_out),
        }
        click.echo(json.dumps(fields, indent=2))
    else:
        console = stdout()
        console.print("[bold green]BACKED UP[/]", end=" ")
        console.print(f"{taken.size} entries of {taken.origin}", markup=False, soft_wrap=True)
        for name, fact in (
            ("to", str(taken.path)),
            ("root", f"{root} of {taken.size} entries, {taken.published_size} of them signed"),
            ("holds", f"{taken.files} files, {taken.size_bytes} bytes"),
        ):
            console.print(f"  {name:12} {fact}", markup=False, soft_wrap=True)
    for name in taken.left_out:
        click.echo(f"gatebook: `{name}` in the data directory is unknown to this version and was not copied", err=True)
    if taken.keys:
        warning = "the backup CONTAINS THE SECRET KEYS of the book, of people and of masks: keep it like the keys"
        click.echo(f"gatebook: {warning}", err=True)
