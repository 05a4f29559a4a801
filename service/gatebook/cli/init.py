"""`gatebook policy init`: a policy set to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from gatebook.cli.output import stdout
from gatebook.cli.schema import write_schemas
from gatebook.policy.scaffold import KINDS, SCHEMAS_FOLDER, scaffold, schemas_of
from gatebook.policy.settings import is_set_name

TOLD = {
    "plain": "who may do what",
    "rbac": "roles",
    "abac": "conditions over attributes",
    "governed": "a catalogue, purposes, masks and ceilings",
}


@click.command(short_help="Make a policy set to begin with, which passes its tests.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="governed",
    show_default=True,
    help=f"What it has: {'; '.join(f'{kind}: {told}' for kind, told in TOLD.items())}.",
)
@click.option("--name", default="", help="The name of the set; else that of the folder.")
def init(folder: Path, kind: str, name: str) -> None:
    """Make a policy set in FOLDER, which must be empty or new: commented files, a test, schemas for editors."""
    if folder.is_dir() and any(folder.iterdir()):
        raise click.UsageError(f"`{folder}` is not empty: name a new folder")
    named = name or folder.resolve().name
    if not is_set_name(named):
        raise click.UsageError(f"`{named}` is no name of a set: give one of small letters, digits, - and _ with --name")
    files = scaffold(kind, named)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    write_schemas(folder / SCHEMAS_FOLDER, schemas_of(files))
    console = stdout()
    for path in files:
        console.print(f"{folder / path}", markup=False, soft_wrap=True)
    console.print(
        f"now run `gatebook policy test {folder}`, and read {folder / 'README.md'}", markup=False, soft_wrap=True
    )
