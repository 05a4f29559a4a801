"""Says of one group of rules which apply to a request, in the order of the policy.

Owns how the alternatives of a matcher combine: a rule that several find has the `||` of their
outcomes. An outcome is True, None (UNKNOWN) or, where the row is not known, an expression over it;
rules whose matcher is False are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from gatebook.compiler.closure import Tokens
from gatebook.compiler.index import Entry, Index, Outcome, Walk
from gatebook.expression.tree import Call, Literal

Memo = dict[int, Outcome]
"""The outcomes of one request to a governed set, by the identity of an entry of the program."""

_UNKNOWN = Literal(None)
_order = attrgetter("order")


class Candidates:
    """One group of rules of one type, found by the alternatives of their matcher."""

    def __init__(self, indexes: Sequence[Index]) -> None:
        """Takes one index per alternative."""
        self._indexes = tuple(indexes)

    def walk(self, tokens: Tokens) -> list[Walk]:
        """Does what is common to all values of the late token."""
        return [index.walk(tokens) for index in self._indexes]

    def outcomes(self, walks: list[Walk], tokens: Tokens, memo: Memo | None = None) -> Iterator[tuple[Entry, Outcome]]:
        """Yields the rules that apply or may apply, each evaluated when it is asked for.

        With a `memo`, the row is not known to the rules unless `tokens` has one, and what does not
        depend on the late token is evaluated once for all its values.
        """
        pending: tuple[Entry, Outcome] | None = None
        for entry in self._found(walks, tokens):
            outcome = self._outcome(entry, tokens) if memo is None else self._memoised(entry, tokens, memo)
            if outcome is False:
                continue
            if pending is not None:
                if pending[0].order == entry.order:
                    pending = (entry, _either(pending[1], outcome))
                    continue
                yield pending
            pending = (entry, outcome)
        if pending is not None:
            yield pending

    def _found(self, walks: list[Walk], tokens: Tokens) -> Sequence[Entry]:
        if len(walks) == 1:
            return self._indexes[0].find(walks[0], tokens)
        found = [entry for index, walk in zip(self._indexes, walks, strict=True) for entry in index.find(walk, tokens)]
        return sorted(found, key=_order)

    def _memoised(self, entry: Entry, tokens: Tokens, memo: Memo) -> Outcome:
        if entry.late or not entry.certain:
            return self._outcome(entry, tokens, row_known=tokens["row"] is not None)
        if id(entry) not in memo:
            memo[id(entry)] = self._outcome(entry, tokens, row_known=tokens["row"] is not None)
        return memo[id(entry)]

    def _outcome(self, entry: Entry, tokens: Tokens, *, row_known: bool = True) -> Outcome:
        outcome: Outcome
        if entry.rest is None:
            outcome = True
        elif entry.blind is not None and not row_known:
            outcome = entry.blind(tokens, entry.rule.fields)
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
