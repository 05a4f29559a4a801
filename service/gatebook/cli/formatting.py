"""`gatebook policy fmt`: the files of a policy set in their one form."""

from __future__ import annotations

import difflib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from gatebook.cli.findings import show
from gatebook.cli.output import NO, counted, errors_told, stderr, stdout
from gatebook.cli.uploading import size_of, working
from gatebook.policy import bundle
from gatebook.policy.formatting import formatted
from gatebook.revisions.validate import validate
from gatebook.values import Severity


@click.command(short_help="Write the files of a policy set in their one form.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--check", is_flag=True, help="Write nothing; end with 1 if a file is not in its form.")
@click.option("--diff", is_flag=True, help="Write nothing; print what would change. Ends with 1 if anything would.")
def fmt(folder: Path, check: bool, diff: bool) -> None:  # noqa: FBT001  # click passes flags by name
    """Write the files of the policy set in FOLDER in their one form.

    Comments, order and meaning stay. A set with errors is left as it is: what it means cannot be kept.
    """
    with errors_told():
        files = bundle.read_folder(folder)
        with working("reading", size_of(files)):
            found = validate(files, folder.resolve().name, test=False)
        errors = tuple(it for it in found.findings if it.severity is Severity.ERROR)
        if errors:
            show(stderr(), msgspec.structs.replace(found, findings=errors))
            sys.exit(NO)
        with working("formatting", size_of(files)):
            made = formatted(files)
        changed = {path: content for path, content in made.items() if content != files[path]}
        if not check and not diff:
            for path, content in changed.items():
                replace_file(folder / path, content)
    console = stdout()
    for path, content in changed.items():
        lines = _difference(path, files[path], content) if diff else (path,)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
    word = "would be formatted" if check or diff else "formatted"
    told = f"{counted(len(changed), 'file')} {word}, {len(files) - len(changed)} in form already"
    stderr().print(told, markup=False)
    sys.exit(NO if changed and (check or diff) else 0)


def replace_file(path: Path, content: bytes) -> None:
    """Puts content in place of a file: all of it, or none, with the rights that the file had."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with temporary.open("xb", buffering=0) as file:
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
            bundle.write_durably(file, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _difference(path: str, before: bytes, after: bytes) -> Iterator[str]:
    old, new = before.decode().splitlines(), after.decode().splitlines()
    return difflib.unified_diff(old, new, path, path, lineterm="", n=1)
