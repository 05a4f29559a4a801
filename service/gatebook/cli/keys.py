"""`gatebook keys`: hands mask keys to the enforcers that apply keyed hashes."""

from __future__ import annotations

from pathlib import Path

import click

from gatebook.audit.keyfile import read_key
from gatebook.cli.output import errors_told
from gatebook.engine.mask_keys import derive_mask_key, mask_key_id


@click.group()
def keys() -> None:
    """Look after keys, on the machine that holds them."""


@keys.command("export")
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--policy-set", required=True, help="The policy set.")
@click.option("--purpose", required=True, help="The purpose that the enforcer serves.")
def export(data: Path, policy_set: str, purpose: str) -> None:
    """Print the id and the key (hexadecimal) that `hash` uses for one purpose.

    Whoever holds it can recompute the hashes of that purpose: give it only to its enforcers.
    """
    with errors_told():
        key = derive_mask_key(read_key(data / "keys" / "mask.key"), policy_set, purpose)
    click.echo(f"{mask_key_id(key, policy_set, purpose)} {key.hex()}")
