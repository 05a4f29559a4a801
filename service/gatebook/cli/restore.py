"""`gatebook restore`: makes a data directory of a backup, and lets it be served."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import click

from gatebook.backup.restore import Restored, release, restore_backup, verify_held
from gatebook.cli.audit_verify import told_failure, told_progress
from gatebook.cli.memory import read_key_text
from gatebook.cli.output import COULD_NOT_ASK, NO, USAGE, fail, json_option, stdout
from gatebook.errors import (
    BookCorruptError,
    BookUnavailableError,
    GatebookError,
    InvalidRequestError,
    VerificationError,
)
from gatebook.tlog.keys import VerifierKey


@click.command()
@click.argument("backup", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An empty directory, or one that is made.")
@click.option("--vkey", metavar="KEY|FILE", help="The verifier key of the book, from somewhere else than the backup.")
@click.option(
    "--checkpoint",
    "remembered",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint that was remembered; a backup that ends before it is refused. May be repeated.",
)
@click.option("--continue", "go_on", is_flag=True, help="The original is gone for good: let this book be served.")
@click.option(
    "--erasures-of",
    "others",
    multiple=True,
    metavar="COPY",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A copy of the book that went on, or of another worker's: whom it erased is erased here. May be repeated.",
)
@click.option("--no-erasures", is_flag=True, help="Nobody was erased since the backup, or you erase them again.")
@json_option
def restore(
    *,
    backup: Path | None,
    data: Path,
    vkey: str | None,
    remembered: tuple[Path, ...],
    go_on: bool,
    others: tuple[Path, ...],
    no_erasures: bool,
    as_json: bool,
) -> None:
    """Restore BACKUP into the directory `--data`, and verify all of it.

    The book is then held: it can be verified and is not served. If the original went on after the backup, going on
    with both signs two histories, and who kept a checkpoint or a receipt will see it. Once the original is
    gone for good, `--continue` (with or without BACKUP) writes that into the book and lets it be served. A backup has
    the keys of people who were erased since: say with `--erasures-of` who they are, or `--no-erasures`.

    \b
    gatebook restore /backup/gatebook-monday.tar --data var --checkpoint seen.checkpoint
    gatebook restore --continue --data var --erasures-of what-is-left-of-the-original
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    if backup is None and not go_on:
        fail("name the backup to restore, or a restored directory with --continue and --data", USAGE)
    require_answer(others, go_on=go_on, no_erasures=no_erasures)
    try:
        key = None if vkey is None else VerifierKey.parse(read_key_text(vkey))
        seen = [path.read_bytes() for path in remembered]
        with told_progress(quiet=as_json) as stage:
            if backup is None:
                restored = verify_held(data, vkey=key, remembered=seen, progress=stage)
            else:
                restored = restore_backup(backup, data, vkey=key, remembered=seen, progress=stage)
        if go_on:
            restored = release(restored, others)
    except (VerificationError, BookCorruptError) as error:
        told_failure(error, as_json=as_json)
    except InvalidRequestError as error:
        fail(error.message, USAGE)
    except BookUnavailableError as error:
        fail(error.message, COULD_NOT_ASK)
    except GatebookError as error:
        fail(error.message, NO)
    except OSError as error:
        fail(f"cannot restore: {error.strerror}: {error.filename or ''}".rstrip(": "), COULD_NOT_ASK)
    else:
        told(restored, as_json=as_json)


def require_answer(others: tuple[Path, ...], *, go_on: bool, no_erasures: bool) -> None:
    """Requires that whoever lets a book go on says who was erased since its backup was made."""
    if bool(others) and no_erasures:
        fail("--erasures-of and --no-erasures contradict each other", USAGE)
    if (others or no_erasures) and not go_on:
        fail("--erasures-of and --no-erasures go with --continue, when the book is released", USAGE)
    if go_on and not (others or no_erasures):
        told_why = "whoever was erased after the backup was made is in it"
        fail(f"{told_why}: name a copy of the newer book with --erasures-of, or say --no-erasures", USAGE)


def told(restored: Restored, *, as_json: bool) -> None:
    """Says what was restored, and what remains to be done."""
    root = base64.b64encode(restored.root).decode()
    if as_json:
        fields = {
            "restored": True,
            "data": str(restored.data),
            "origin": restored.origin,
            "size": restored.size,
            "published_size": restored.published_size,
            "root": root,
            "backup_time": restored.backup_time,
            "remembered_size": restored.remembered_size,
            "key_from_elsewhere": restored.key_from_elsewhere,
            "released": restored.released,
            "erased": restored.erased,
            "lost_size": restored.lost_size,
        }
        click.echo(json.dumps(fields, indent=2))
        return
    console = stdout()
    console.print("[bold green]RESTORED AND VERIFIED[/]", end=" ")
    console.print(f"{restored.size} entries of {restored.origin}", markup=False, soft_wrap=True)
    for name, fact in facts(restored, root):
        console.print(f"  {name:12} {fact}", markup=False, soft_wrap=True)


def facts(restored: Restored, root: str) -> list[tuple[str, str]]:
    """Returns what was restored, name by name."""
    found = [
        ("in", str(restored.data)),
        ("root", f"{root} of {restored.size} entries, {restored.published_size} of them signed"),
        ("backed up", restored.backup_time),
    ]
    if restored.remembered_size:
        found.append(("continues", f"the remembered checkpoint of size {restored.remembered_size}"))
    if not restored.key_from_elsewhere:
        found.append(("note", "the key came with the backup: this shows damage, and with --vkey also forgery"))
    if restored.erased is not None:
        people = "person" if restored.erased == 1 else "people"
        found.append(("erased", f"{restored.erased} {people}, as the other book says"))
    if restored.lost_size:
        lost = f"entries {restored.size} to {restored.lost_size - 1} of the original, which its key signed"
        found.append(("lost", f"{lost}: whoever keeps a checkpoint of them sees two histories"))
    if restored.released:
        found.append(("released", "the book goes on here: never serve the original again"))
    else:
        held = f"once the original is gone for good run `gatebook restore --continue --data {restored.data}`"
        found.append(("held", f"it is not served: {held}"))
    return found
