"""What the names of an expression stand for.

Owns the reading of paths. An environment maps a root (`r`, `p`, `row`) to its tokens; a value is a
text, number, truth value, date, list, or a mapping of attributes. What is not there is None, which
is UNKNOWN: reading never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

Environment = Mapping[str, Mapping[str, Any]]


class Named(str):
    """A text with attributes: compares and hashes as the text (an id), also where its attributes are read."""

    __slots__ = ("attributes",)

    attributes: Mapping[str, Any]

    def __new__(cls, text: str, attributes: Mapping[str, Any]) -> Self:
        """Takes the id and its attributes."""
        named = super().__new__(cls, text)
        named.attributes = attributes
        return named


def attribute(value: object, name: str) -> object:
    """Reads one attribute; None where there is none."""
    if isinstance(value, Named):
        return value.attributes.get(name)
    if isinstance(value, Mapping):
        return value.get(name)
    return None


def lookup(environment: Environment, names: tuple[str, ...]) -> object:
    """Reads a path from its root on; None where it leads nowhere."""
    value: object = environment
    for name in names:
        value = attribute(value, name)
    return value
