"""`gatebook witness`: a witness of books, to run on another machine than they."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from gatebook.cli.output import USAGE, errors_told, fail, json_option, stdout, table, told_time
from gatebook.config import setting
from gatebook.errors import GatebookError, InvalidRequestError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.witness.state import State, create_witness, read_witness_key

A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFAULT_LISTEN = "127.0.0.1:7480"
ORIGINS_MAX = 1_000

data_option = click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the key of the witness lies, and what it remembers.",
)


@click.group()
def witness() -> None:
    """Cosign the checkpoints of books, on another machine than they."""


@witness.command("create")
@data_option
@click.option("--name", required=True, help="The name it signs under, such as `witness.example.org/w1`.")
def create(*, data: Path, name: str) -> None:
    """Make a new witness and print its key, which whoever verifies needs.

    \b
    gatebook witness create --data w1 --name witness.example.org/w1
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    with errors_told():
        create_witness(data, name)
        click.echo(read_witness_key(data).public)


@witness.command("key")
@data_option
def key(*, data: Path) -> None:
    """Print the key of a witness: what is public of it."""
    with errors_told():
        click.echo(read_witness_key(data).public)


@witness.command("status", short_help="Show what was cosigned last, and contradictions that were shown.")
@data_option
@json_option
def status(*, data: Path, as_json: bool) -> None:
    """Show which checkpoint of each book was cosigned last, and the contradictions that were shown.

    Exits 1 where a book signed two histories; --json has both of its signed checkpoints.
    """
    with errors_told():
        state = State(data, read_witness_key(data), read_only=True)
        last, contradictions = state.all(), state.evidence()
        state.close()
    if as_json:
        found = [
            {
                "origin": each.checkpoint.origin,
                "size": each.checkpoint.size,
                "root": base64.b64encode(each.checkpoint.root).decode(),
                "cosigned_time": told_time(each.seconds),
                "checkpoint": each.note.decode(),
            }
            for each in last
        ]
        evidence = [
            {
                "origin": each.origin,
                "size": each.size,
                "shown_time": told_time(each.seconds),
                "checkpoints": [each.cosigned.decode(), each.shown.decode()],
            }
            for each in contradictions
        ]
        click.echo(json.dumps({"cosigned": found, "contradictions": evidence}, indent=2, ensure_ascii=False))
    else:
        rows = ((each.checkpoint.origin, str(each.checkpoint.size), told_time(each.seconds)) for each in last)
        stdout().print(table("origin", "size", "cosigned (UTC)", rows=rows))
        for each in contradictions:
            click.echo(f"TWO HISTORIES: {each.origin} signed two roots for size {each.size}: see --json", err=True)
    sys.exit(1 if contradictions else 0)


@witness.command("serve")
@data_option
@click.option(
    "--origin",
    "origins",
    multiple=True,
    required=True,
    metavar="[ORIGIN=]KEY|FILE",
    help="The verifier key of a book, or a file with it; may be repeated, for one book too.",
)
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Without TLS, on this machine only; port 0 picks one.",
)
@click.option(
    "--url", default="", metavar="URL", help="How books reach it, where a proxy that ends TLS stands before it."
)
@click.option("--tls-cert", type=A_FILE, help="The certificate of the witness, with its chain (PEM).")
@click.option("--tls-key", type=A_FILE, help="The key of that certificate.")
@click.option("--client-ca", type=A_FILE, help="Require client certificates, signed by this CA.")
@click.option("--log", type=click.Choice(["auto", "json", "text"]), default="auto", show_default=True)
def serve(*, log: str, origins: tuple[str, ...], **settings: Any) -> None:  # noqa: ANN401  # click knows the types
    """Answer books that ask for cosignatures: C2SP tlog-witness over HTTP.

    \b
    gatebook witness serve --data w1 --origin gatebook.vkey
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    from gatebook.witness.listening import WitnessConfig, run  # noqa: PLC0415  # the other commands start faster without it

    as_json = log == "json" or (log == "auto" and not sys.stderr.isatty() and setting("log") != "text")
    try:
        sys.exit(run(WitnessConfig(origins=keys_by_origin(origins), log_json=as_json, **settings)))
    except (InvalidRequestError, VerificationError) as error:
        fail(error.message, USAGE)
    except GatebookError as error:
        fail(error.message, 1)


def keys_by_origin(stated: Iterable[str]) -> dict[str, list[VerifierKey]]:
    """Returns the keys that count for each origin: that of the key's name, if no other is stated.

    Raises:
        VerificationError: a key is malformed, or there are too many.
    """
    found: dict[str, list[VerifierKey]] = {}
    for number, text in enumerate(stated):
        if number == ORIGINS_MAX:
            raise VerificationError(f"a witness takes at most {ORIGINS_MAX} keys of books")
        origin, equals, rest = text.partition("=")
        if not equals or "+" in origin or Path(text).is_file():  # the equals sign is one of base64, or of a path
            origin, rest = "", text
        key = VerifierKey.parse(_key_text(rest))
        found.setdefault(origin or key.name, []).append(key)
    return found


def _key_text(stated: str) -> str:
    path = Path(stated)
    if path.is_file():
        return path.read_text("utf-8")
    if "+" not in stated:
        raise VerificationError(f"`{stated}` is no file, and a verifier key has the form `<name>+<key id>+<key>`")
    return stated
