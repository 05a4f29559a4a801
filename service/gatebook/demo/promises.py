"""What the demo promises, and what came of it.

Owns the list of promises. A promise is checked where the story comes to it, and the story goes on when one is
broken, so that all of them are told at the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

CASES_TOLD = 3
"""How many cases a broken promise names."""


class Promise(msgspec.Struct, frozen=True):
    """One promise. `told` says what it was checked on, or what broke it."""

    promise: str
    kept: bool
    told: str


class Promises:
    """The promises checked so far, in the order of the story."""

    def __init__(self) -> None:
        """Starts with none."""
        self._checked: list[Promise] = []

    def check(self, promise: str, *, kept: bool, told: str = "") -> Promise:
        """Notes whether a promise was kept."""
        found = Promise(promise, kept, told)
        self._checked.append(found)
        return found

    def check_all(self, promise: str, broken: Iterable[str], *, told: str) -> Promise:
        """Notes a promise that is kept when no case breaks it; `told` says what it was checked on."""
        cases = list(broken)
        more = f", and {len(cases) - CASES_TOLD} more" if len(cases) > CASES_TOLD else ""
        named = "; ".join(cases[:CASES_TOLD]) + more
        return self.check(promise, kept=not cases, told=named or told)

    @property
    def checked(self) -> tuple[Promise, ...]:
        """Returns the promises, as they were checked."""
        return tuple(self._checked)

    @property
    def kept(self) -> bool:
        """Tells whether there are promises and all were kept."""
        return bool(self._checked) and all(promise.kept for promise in self._checked)
