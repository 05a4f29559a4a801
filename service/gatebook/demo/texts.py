"""Words and texts for a generated company, one to a line of `words/<name>.txt`; all made up for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("words")


@cache
def texts(name: str) -> tuple[str, ...]:
    """Returns the lines of one collection, in the order of its file."""
    return tuple((FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines())
