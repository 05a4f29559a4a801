"""`gatebook demo`: the whole story once, from a generated company to a verified book."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from gatebook.cli.output import COULD_NOT_ASK, NO, USAGE, YES, fail
from gatebook.errors import GatebookError
from gatebook_client import GatebookClientError

EMPLOYEES_MIN = 100
EMPLOYEES_MAX = 100_000
SIGNALLED = 128
"""Added to the number of a signal, gives the exit code of what it ended."""


@click.command()
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave everything in this new folder.")
@click.option(
    "--employees", type=click.IntRange(EMPLOYEES_MIN, EMPLOYEES_MAX), default=12_000, show_default=True, metavar="N"
)
@click.option("--scale", type=click.Choice(["small", "full"]), default="full", show_default=True, help="How many rows.")
@click.option("--seed", type=int, default=2026, show_default=True, help="The same seed makes the same company.")
@click.option("--json", "as_json", is_flag=True, help="Tell nothing, and print a summary as JSON at the end.")
def demo(*, keep: Path | None, employees: int, scale: str, seed: int, as_json: bool) -> None:
    """Show what Gatebook does, on a made-up company, in about a minute.

    Generates people and telemetry, starts a real server, lets a dozen programs read through it, kills it under
    load, and verifies its book. Exits 1 when a promise is broken.
    """
    if find_spec("duckdb") is None:
        fail("the demo needs the package duckdb: run `make demo`, or `pip install 'gatebook[demo]'`", USAGE)
    from gatebook.demo.ending import tell_where_next  # noqa: PLC0415  # after the check for duckdb
    from gatebook.demo.processes import BrokenOffError  # noqa: PLC0415  # as above
    from gatebook.demo.stage import Stage  # noqa: PLC0415  # as above
    from gatebook.demo.story import SCALES, tell_story  # noqa: PLC0415  # as above

    stage = Stage.open(quiet=as_json)
    try:
        with signals_unwind(), folder_for(keep) as folder:
            told = tell_story(stage, folder, employees=employees, scale=SCALES[scale], seed=seed)
    except (BrokenOffError, GatebookError, GatebookClientError) as error:
        fail(f"the demo broke off: {error}", COULD_NOT_ASK)
    if as_json:
        import msgspec  # noqa: PLC0415  # as above

        click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        tell_where_next(stage, keep)
    if not told.kept:
        fail("a promise was broken: see the list above", NO)
    sys.exit(YES)


@contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """Makes the folder of the story: the one to keep, or one that is gone afterwards.

    Raises:
        click.UsageError: the folder to keep is there already.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="gatebook-demo-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError as err:
        raise click.UsageError(f"`{keep}` exists already: name a new folder") from err
    yield keep


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Makes the signals that end a process end it in order, so that nothing it started is left."""
    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unwind(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the process from wherever it is."""
    sys.exit(SIGNALLED + number)
