"""Functions that a user of the library gives to matchers and conditions.

Owns what is believed of code that is not ours: a function that raises has no answer, and neither has one of which
an argument is UNKNOWN. What is no truth value where one must stand is UNKNOWN too, as everywhere; so no given
function can allow by failing.
"""

from __future__ import annotations

from collections.abc import Callable


class Given:
    """A function of any values, made total."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., object]) -> None:
        """Takes the function."""
        self.function = function

    def __call__(self, *values: object) -> object:
        """Returns what the function returns, or None (UNKNOWN) where it has no answer."""
        if any(value is None for value in values):
            return None
        try:
            return self.function(*values)
        except Exception:  # noqa: BLE001 - whatever another's code raises, it is no answer
            return None
