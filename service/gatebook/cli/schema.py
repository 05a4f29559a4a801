"""`gatebook policy schema`: the JSON Schemas of the files that people write, for their editors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import click
import msgspec

from gatebook.audit.retention_policy import RetentionPolicy
from gatebook.cli.output import stdout, table
from gatebook.policy.schema import DIALECT, SCHEMAS, SUFFIX, Schema, as_text

WRITTEN: Final[Mapping[str, str]] = {
    "gatebook": "gatebook.yaml",
    "gatebook_governed": "gatebook.yaml of a set with a catalogue",
    "catalogue": "catalogue.yaml",
    "purposes": "purposes.yaml",
    "guardrails": "guardrails.yaml",
    "policy_test": "tests/*.yaml",
    "callers": "callers.yaml of a server",
    "retention": "the retention policy of a server, in TOML",
}
"""Which file each schema is for."""


@click.command(short_help="Print the JSON Schema of a file, so that editors complete it.")
@click.argument("name", required=False, type=click.Choice([*WRITTEN]), metavar="[NAME]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write all of them into this folder.")
def schema(name: str | None, out: Path | None) -> None:
    """Print the JSON Schema called NAME; without NAME list them, or write all into a folder.

    An editor with a YAML language server completes and checks a file that begins with
    `# yaml-language-server: $schema=` and the path of its schema.
    """
    if name is not None and out is not None:
        raise click.UsageError("--out writes all schemas: leave out NAME")
    if out is not None:
        write_schemas(out)
        stdout().print(f"{len(WRITTEN)} schemas are in {out}", markup=False)
    elif name is None:
        stdout().print(table("name", "file", rows=WRITTEN.items()))
    else:
        click.echo(as_text(schema_of(name)), nl=False)


def write_schemas(folder: Path, names: tuple[str, ...] = tuple(WRITTEN)) -> None:
    """Writes schemas into a folder, in place of older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{SUFFIX}").write_text(as_text(schema_of(name)))


def schema_of(name: str) -> Schema:
    """Returns the schema of a name."""
    others: Mapping[str, Callable[[], Schema]] = {"callers": _callers, "retention": _retention}
    return {**SCHEMAS, **others}[name]()


def _callers() -> Schema:
    read: Schema = json.loads((resources.files("gatebook.door") / f"schemas/callers{SUFFIX}").read_text())
    return read


def _retention() -> Schema:
    made = msgspec.json.schema(RetentionPolicy)
    return {"$schema": DIALECT, "title": "The retention policy of Gatebook", **made}
