"""Names near to a misspelt one, for findings that say what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

COMPARED_MAX = 2_000
WORD_CHARACTERS_MAX = 128


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean `x`?` with the nearest known name, or nothing when none is near."""
    if len(word) > WORD_CHARACTERS_MAX:
        return ""
    candidates = sorted(known)[:COMPARED_MAX]
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.7)
    return f"; did you mean `{near[0]}`?" if near else ""
