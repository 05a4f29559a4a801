"""What the names of an expression stand for.

Owns the reading of paths. An environment maps a root (`r`, `p`, `row`) to its tokens; a value is a
text, number, truth value, date, list, a mapping of attributes, or an object of a library user with attributes.
What is not there is None, which is UNKNOWN: reading never raises.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Self

Environment = Mapping[str, Mapping[str, Any]]
_WITHOUT_ATTRIBUTES = frozenset(
    (type(None), str, int, float, bool, bytes, list, tuple, set, frozenset, dt.date, dt.datetime, dt.time, dt.timedelta)
)
"""Types of values whose attributes, in Python, are no attributes of the value."""


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
    if type(value) in _WITHOUT_ATTRIBUTES or name.startswith("_"):
        return None
    return _of_object(value, name)


def _of_object(value: object, name: str) -> object:
    """Reads an attribute of an object that a user of the library passed; it has no methods here."""
    try:
        found: object = getattr(value, name, None)
    except Exception:  # noqa: BLE001 - whatever another's property raises, there is no value
        return None
    return None if callable(found) else found


def lookup(environment: Environment, names: tuple[str, ...]) -> object:
    """Reads a path from its root on; None where it leads nowhere."""
    value: object = environment
    for name in names:
        value = attribute(value, name)
    return value
