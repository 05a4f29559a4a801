"""Compiles the patterns of the functions that match by one, and matches texts against them.

Owns what a pattern costs: it is of limited length, checked before anything is done with it, takes
linear time and limited memory, and a limited number of them is kept. Outside these limits, and
outside the dialect, there is no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
import re2

from gatebook.expression.dialect import PatternError, Reading, read
from gatebook.expression.globs import read_glob
from gatebook.expression.paths import Find, colon, farthest_braces, nearest_braces, replace_names

PATTERN_LENGTH_MAX = 1_000
TEXT_LENGTH_MAX = 65_536
STEPS_MAX = 50_000_000
"""The length of a text times the size of a compiled pattern, which is what RE2 may need."""

_CACHED_PATTERNS = 4_096
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 256 * 1024


class Pattern(msgspec.Struct, frozen=True):
    """A compiled pattern; `names` are what its groups stand for, in a path pattern with groups."""

    compiled: Any
    reading: Reading
    names: tuple[str, ...] = ()

    def match(self, text: str) -> Any:  # noqa: ANN401 - re2 has no types
        """Matches from the start of the text: returns the match, False where there is none, None where unknown."""
        reading = self.reading
        if len(text) > TEXT_LENGTH_MAX or len(text) * self.compiled.programsize > STEPS_MAX:
            return None
        if (reading.ascii_only and not text.isascii()) or (reading.ends and text.endswith("\n")):
            return None
        try:
            return self.compiled.match(text) or False
        except UnicodeEncodeError:
            return None


def pattern_of(function: str, text: str) -> Pattern | None:
    """Returns the pattern that a function makes of a text; None where it is refused."""
    if len(text) > PATTERN_LENGTH_MAX:
        return None
    found = _prepare(function, text)
    return found if isinstance(found, Pattern) else None


def refusal(function: str, text: str) -> str:
    """Returns why a text is no pattern of a function, and what to write instead; nothing where it is one."""
    if len(text) > PATTERN_LENGTH_MAX:
        return f"a pattern has at most {PATTERN_LENGTH_MAX:,} characters: make several rules of it"
    found = _prepare(function, text)
    return found if isinstance(found, str) else ""


@lru_cache(maxsize=_CACHED_PATTERNS)
def _prepare(function: str, text: str) -> Pattern | str:
    try:
        reading, names = _READERS[function](text)
        return Pattern(re2.compile(reading.written, _OPTIONS), reading, names)
    except PatternError as err:
        return str(err)
    except re2.error:
        return "the pattern is too large once its repetitions are written out: write smaller ones"


def _path(find: Find) -> Callable[[str], tuple[Reading, tuple[str, ...]]]:
    def reader(text: str) -> tuple[Reading, tuple[str, ...]]:
        translated, _ = replace_names(text, find, "[^/]+")
        return read(f"^{translated}$"), ()

    return reader


def _colon_path(text: str) -> tuple[Reading, tuple[str, ...]]:
    translated, _ = replace_names(text, colon, "[^/]+")
    return read("^(.*)$" if translated == "*" else f"^{translated}$"), ()


def _captured(find: Find, group: str) -> Callable[[str], tuple[Reading, tuple[str, ...]]]:
    """Reads a path whose names are captured; repetitions of groups capture differently in Python."""

    def reader(text: str) -> tuple[Reading, tuple[str, ...]]:
        plain, _ = replace_names(text, find, "^")  # an anchor cannot be repeated
        if not read(plain).plain:
            message = "beside its names the path has groups or alternatives: make several rules of it"
            raise PatternError(message)
        translated, names = replace_names(text, find, group)
        return read(f"^{translated}$"), tuple(names)

    return reader


_Reader = Callable[[str], tuple[Reading, tuple[str, ...]]]
_READERS: Mapping[str, _Reader] = {
    "regexMatch": lambda text: (read(text), ()),
    "keyMatch2": _colon_path,
    "keyMatch3": _path(nearest_braces),
    "keyMatch4": _captured(farthest_braces, "([^/]+)"),
    "keyMatch5": _path(farthest_braces),
    "keyGet2": _captured(colon, "([^/]+)"),
    "keyGet3": _captured(nearest_braces, "([^/]+?)"),
    "globMatch": lambda text: (read_glob(text), ()),
}
