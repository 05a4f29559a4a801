"""Translates the path patterns of `keyMatch2` to `keyMatch5` into regular expressions, as pycasbin does.

Owns what stands for a name: `:name`, or `{name}`. Names hold no slash, so each segment is read by
itself, and once; the expressions with which pycasbin finds them take cubic time. Everything else of
a path stays as it is, and is a regular expression.
"""

from __future__ import annotations

from collections.abc import Callable

Find = Callable[[str, int], tuple[int, int] | None]
"""Finds the next name of a segment, from a position: where it starts and ends, with its marks."""


def replace_names(pattern: str, find: Find, replacement: str) -> tuple[str, list[str]]:
    """Replaces each name, and makes a `*` after a slash stand for anything; returns the names with their marks."""
    written: list[str] = []
    names: list[str] = []
    for segment in pattern.replace("/*", "/.*").split("/"):
        parts: list[str] = []
        position = 0
        while found := find(segment, position):
            start, end = found
            parts += (segment[position:start], replacement)
            names.append(segment[start:end])
            position = end
        written.append("".join((*parts, segment[position:])))
    return "/".join(written), names


def colon(segment: str, position: int) -> tuple[int, int] | None:
    """Finds `:name`, which goes on to the end of the segment."""
    start = segment.find(":", position)
    return (start, len(segment)) if 0 <= start < len(segment) - 1 else None


def nearest_braces(segment: str, position: int) -> tuple[int, int] | None:
    """Finds `{name}` with the next `}` that leaves a name."""
    start = segment.find("{", position)
    end = segment.find("}", start + 2) if start >= 0 else -1
    return (start, end + 1) if end >= 0 else None


def farthest_braces(segment: str, position: int) -> tuple[int, int] | None:
    """Finds `{name}` with the last `}` of the segment."""
    start = segment.find("{", position)
    end = segment.rfind("}", start + 2) if start >= 0 else -1
    return (start, end + 1) if end >= 0 else None
