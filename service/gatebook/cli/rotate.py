"""`gatebook keys rotate`: closes the books of a stopped service, and opens their successors under new keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from gatebook.audit.cosigning import witnesses_of
from gatebook.audit.rotation import Rotated, Rotation
from gatebook.cli.output import COULD_NOT_ASK, errors_told, fail, json_option
from gatebook.errors import InvalidRequestError
from gatebook.service import known_origin, origin_of
from gatebook.tlog.policy import WitnessPolicy

SOCKET = click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True)
_GENERATION = re.compile(r"(?P<origin>.+)/(?P<number>[1-9][0-9]{0,8})")


@click.command(short_help="Close the book and open its successor, under a new key.")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The data directory of the service, which is stopped.",
)
@click.option(
    "--origin", default="", help="The origin of the successor; else that of the old book with the next number."
)
@click.option("--reason", default="", help="Why, for both books; without names of people.")
@click.option(
    "--key-lost", is_flag=True, help="The old key is lost: begin a successor of a book that nobody can close."
)
@click.option("--signer", type=SOCKET, help="The socket of a program that holds the new key, and signs with it.")
@click.option(
    "--witness", multiple=True, metavar="URL=KEY|FILE", help="Have a witness cosign the closure; may be repeated."
)
@json_option
def rotate(
    *,
    data: Path,
    origin: str,
    reason: str,
    key_lost: bool,
    signer: Path | None,
    witness: tuple[str, ...],
    as_json: bool,
) -> None:  # each is an option
    """Close the book in a data directory and open its successor, under a new origin and a new key.

    For a service that is stopped. The old book, with those of further workers, is closed by an entry that names its
    successor, and moved to DATA/closed; the successor begins with an entry that names the old book, and goes on with
    what is active. The old key is removed. Where this is interrupted, run it again: it ends what was begun.
    """
    with errors_told():
        try:
            witnesses = witnesses_of(witness, None, None)
            rotated = rotate_all(data, origin, reason, key_lost=key_lost, signer=signer, witnesses=witnesses)
        except OSError as error:
            fail(f"cannot write in `{data}`: {error.strerror}; run it again", COULD_NOT_ASK)
    if as_json:
        books = [
            {"old": r.old, "new": r.new, "size": r.size, "folder": str(r.folder), "cosigned": r.cosigned}
            for r in rotated
        ]
        click.echo(json.dumps({"rotated": books}, indent=2))
        return
    for each in rotated:
        click.echo(f"closed  {each.old}")
        click.echo(f"        {each.size} entries, in {each.folder}")
        if witness:
            click.echo(f"        cosigned by {', '.join(each.cosigned) or 'nobody: no witness answered in time'}")
        click.echo(f"opened  {each.new}")


def rotate_all(  # each is an option
    data: Path, origin: str, reason: str, *, key_lost: bool, signer: Path | None, witnesses: WitnessPolicy
) -> list[Rotated]:
    """Rotates the books of all workers, that of the first one last; returns them, the first one first.

    The mark of the first one is there from before anything else is begun until all is done.
    """
    homes = [data, *sorted(path.parent.parent for path in data.glob("workers/*/book/vkey"))]
    rotations = {home: Rotation(home, witnesses=witnesses) for home in homes}
    begun = rotations[data].begun()
    origin = begun.new.name if begun else origin or successor_origin(old_origin(data, key_lost=key_lost))
    origins = {home: origin if home == data else origin_of(origin, int(home.name)) for home in homes}
    lost = {home: key_lost and not (home / "keys" / "book.key").exists() for home in homes}
    if key_lost and begun is None and not any(lost.values()):
        raise InvalidRequestError("key-lost", f"`{data / 'keys' / 'book.key'}` is there: close the book with it")
    for home, rotation in rotations.items():
        rotation.require_possible(origins[home], reason, key_lost=lost[home])
    marks = {
        home: rotation.begin(origins[home], reason, key_lost=lost[home], signer=signer)
        for home, rotation in rotations.items()
        if home == data or not is_done(home, origins[home])
    }
    finished = {home: rotations[home].finish(mark) for home, mark in reversed(marks.items())}
    return [finished[home] for home in homes if home in finished]


def is_done(home: Path, origin: str) -> bool:
    """Tells whether the book of a worker was rotated before all was interrupted."""
    return known_origin(home) == origin


def old_origin(data: Path, *, key_lost: bool) -> str:
    """Returns the origin of the book that is to be closed."""
    vkey = data / "book" / "vkey"
    if key_lost and vkey.exists():
        return vkey.read_text("utf-8").partition("+")[0]
    return known_origin(data)


def successor_origin(origin: str) -> str:
    """Returns an origin with the next number: `gate/audit/2` after `gate/audit`, then `gate/audit/3`."""
    match = _GENERATION.fullmatch(origin)
    return f"{match['origin']}/{int(match['number']) + 1}" if match else f"{origin}/2"
