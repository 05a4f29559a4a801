"""Says of one group of rules which apply to a request, in the order of the policy.

Owns how the alternatives of a matcher combine: a rule that several find has the `||` of their
outcomes. An outcome is True, None (UNKNOWN) or, where the row is not known, an expression over it;
rules whose matcher is False are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from gatebook.compiler.closure import Tokens
from gatebook.compiler.index import Entry, Index, Walk
from gatebook.expression.residual import residual
from gatebook.expression.tree import Call, Expression, Literal
from gatebook.expression.truth import Functions

Outcome = bool | Expression | None
_UNKNOWN = Literal(None)
_order = attrgetter("order")


class Candidates:
    """One group of rules of one type, found by the alternatives of their matcher. Immutable."""

    def __init__(self, indexes: Sequence[Index], key: str, names: Sequence[str], functions: Functions) -> None:
        """Takes one index per alternative, and the type of the rules with the names of their fields."""
        self._indexes = tuple(indexes)
        self._key = key
        self._names = tuple(names)
        self._functions = functions

    def walk(self, tokens: Tokens) -> list[Walk]:
        """Does what is common to all values of the late token."""
        return [index.walk(tokens) for index in self._indexes]

    def outcomes(self, walks: list[Walk], tokens: Tokens, *, row_known: bool = True) -> Iterator[tuple[Entry, Outcome]]:
        """Yields the rules that apply or may apply, each evaluated when it is asked for."""
        if len(walks) == 1:
            found = self._indexes[0].find(walks[0], tokens)
        else:
            found = [
                entry for index, walk in zip(self._indexes, walks, strict=True) for entry in index.find(walk, tokens)
            ]
        if len(found) > 1:
            found.sort(key=_order)
        pending: tuple[Entry, Outcome] | None = None
        for entry in found:
            outcome = self._outcome(entry, tokens, row_known=row_known)
            if outcome is False:
                continue
            if pending is not None and pending[0].order == entry.order:
                pending = (entry, _either(pending[1], outcome))
                continue
            if pending is not None:
                yield pending
            pending = (entry, outcome)
        if pending is not None:
            yield pending

    def _outcome(self, entry: Entry, tokens: Tokens, *, row_known: bool) -> Outcome:
        outcome: Outcome
        if entry.row_dependent is not None and not row_known:
            fields = dict(zip(self._names, entry.rule.fields, strict=True))
            outcome = residual(entry.row_dependent, {"r": tokens, self._key: fields}, self._functions)
        elif entry.rest is None:
            outcome = True
        else:
            value = entry.rest(tokens, entry.rule.fields)
            outcome = value if isinstance(value, bool) else None
        if entry.certain or outcome is False:
            return outcome
        return None if isinstance(outcome, bool) or outcome is None else Call("and", (_UNKNOWN, outcome))


def _either(left: Outcome, right: Outcome) -> Outcome:
    if left is True or right is True:
        return True
    operands = [outcome for outcome in (left, right) if outcome is not None and not isinstance(outcome, bool)]
    if not operands:
        return None
    return Call("or", (*operands, *([_UNKNOWN] if len(operands) == 1 else [])))
