"""`gatebook keys`: hands mask keys to the enforcers of keyed hashes, and makes certificates and tokens to try out."""

from __future__ import annotations

import re
from pathlib import Path

import click

from gatebook.audit.keyfile import read_key
from gatebook.cli.certificates import DAYS_MAX, make_certificates
from gatebook.cli.output import NO, errors_told, fail
from gatebook.cli.rotate import rotate
from gatebook.cli.tokens import HOURS_MAX, make_tokens
from gatebook.engine.mask_keys import derive_mask_key, mask_key_id

PERSON = re.compile(r"[A-Za-z0-9][\w.@-]{0,63}", re.ASCII)
"""An id that may name a file, too."""
TYPE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@click.group()
def keys() -> None:
    """Look after keys, on the machine that holds them."""


keys.add_command(rotate)


@keys.command("export")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The data directory of the service.",
)
@click.option("--policy-set", required=True, help="The policy set.")
@click.option("--purpose", required=True, help="The purpose that the enforcer serves.")
def export(data: Path, policy_set: str, purpose: str) -> None:
    """Print the id and the key (hexadecimal) that `hash` uses for one purpose.

    Whoever holds it can recompute the hashes of that purpose: give it only to its enforcers.
    """
    with errors_told():
        key = derive_mask_key(read_key(data / "keys" / "mask.key"), policy_set, purpose)
    click.echo(f"{mask_key_id(key, policy_set, purpose)} {key.hex()}")


@keys.command("certificates")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", "hosts", multiple=True, default=("localhost", "127.0.0.1", "::1"), show_default=True)
@click.option("--client", "clients", multiple=True, metavar="NAME", help="A SPIFFE id or common name; may be repeated.")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, DAYS_MAX), help="How long they count.")
def certificates(folder: Path, hosts: tuple[str, ...], clients: tuple[str, ...], days: int) -> None:
    """Make a throw-away CA in FOLDER, with a server and clients, for trying out TLS.

    The key of the CA is not kept, and what exists is not overwritten.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in make_certificates(folder, hosts, clients, days):
            click.echo(path)
    except FileExistsError as error:
        fail(f"`{error.filename}` exists: name another folder", NO)
    except (OSError, ValueError) as error:
        fail(f"the certificates cannot be made: {error}", NO)


@keys.command("tokens")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--person", "people", multiple=True, required=True, metavar="ID", help="Of the directory; may be repeated."
)
@click.option("--type", "type_", default="user", show_default=True, metavar="TYPE", help="Their type in the directory.")
@click.option("--hours", default=8, show_default=True, type=click.IntRange(1, HOURS_MAX), help="How long they count.")
def tokens(folder: Path, people: tuple[str, ...], type_: str, hours: int) -> None:
    """Make a throw-away issuer in FOLDER, with a token for each person, for trying out who may approve what.

    `gatebook serve --callers FOLDER/callers.yaml` trusts it; commands show a token with --token-file. The key of
    the issuer is not kept, and what exists is not overwritten.
    """
    for value, pattern, what in ((type_, TYPE, "--type"), *((it, PERSON, "--person") for it in people)):
        if not pattern.fullmatch(value):
            raise click.UsageError(f"{what} `{value}` must be letters and digits, with `.`, `_`, `@` or `-` within")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in make_tokens(folder, sorted(set(people)), type_, hours):
            click.echo(path)
    except FileExistsError as error:
        fail(f"`{error.filename}` exists: name another folder", NO)
    except OSError as error:
        fail(f"the tokens cannot be made: {error}", NO)
