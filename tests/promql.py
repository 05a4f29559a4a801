"""What an expression of PromQL reads: names of series and the labels that it selects or groups by."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"\b((?:gatebook|process|python)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Matcher:
    """One condition on a label, such as `code!="OK"`."""

    label: str
    values: tuple[str, ...]
    """What it compares with; of a pattern the alternatives, and nothing for a variable of a dashboard."""


@dataclass(frozen=True)
class Reads:
    """What one expression reads."""

    series: dict[str, tuple[Matcher, ...]]
    grouped: frozenset[str]


def reads(expression: str) -> Reads:
    """Returns what an expression reads."""
    series: dict[str, tuple[Matcher, ...]] = {}
    for name, inside in _SELECTOR.findall(expression):
        matchers = tuple(Matcher(label, _values(value)) for label, _, value in _MATCHER.findall(inside))
        series[name] = series.get(name, ()) + matchers
    groupings = _GROUPING.findall(_STRING.sub('""', expression))
    return Reads(
        series, frozenset(label.strip() for inside in groupings for label in inside.split(",") if label.strip())
    )


def _values(quoted: str) -> tuple[str, ...]:
    text = quoted[1:-1]
    if text.startswith("$"):
        return ()
    return tuple(value for value in text.split("|") if not value.endswith(".*"))
