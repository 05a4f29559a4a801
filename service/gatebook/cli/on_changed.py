"""`gatebook policy on-changed`: what a hook runs, which knows files and not policy sets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from gatebook.cli.output import NO, YES, stderr
from gatebook.policy.bundle import MODEL_FILE

LEVELS_MAX = 8


def on_changed(commands: Callable[[], click.Group], steps: tuple[str, ...]) -> click.Command:
    """Returns the command; `commands` has those that it runs."""

    @click.command("on-changed", short_help="Run lint, test or fmt on each set that holds a changed file.")
    @click.argument("step", type=click.Choice(steps))
    @click.argument("files", nargs=-1, type=click.Path(path_type=Path))
    def run(step: str, files: tuple[Path, ...]) -> None:
        """Run STEP on each policy set that holds one of FILES; files of no set are left alone.

        Ends with the worst exit code of all.
        """
        folders = sorted({found for file in files if (found := set_of(file)) is not None})
        codes = [_ended(commands(), [step, str(folder)]) for folder in folders]
        if not folders:
            stderr().print(f"none of the files is in a policy set: no `{MODEL_FILE}` stands above them", markup=False)
        sys.exit(max(codes, default=YES))

    return run


def set_of(file: Path) -> Path | None:
    """Returns the folder of the policy set that a file belongs to."""
    for folder in file.parents[:LEVELS_MAX]:
        if (folder / MODEL_FILE).is_file():
            return folder
    return None


def _ended(group: click.Group, arguments: list[str]) -> int:
    try:
        group.main(arguments, standalone_mode=False)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else NO
    return YES
