"""Says of the rules that a plan names which apply to a request, in the order of the policy.

Owns how the alternatives of a matcher combine: a rule that several find has the `||` of their
outcomes. Rules whose matcher is False are left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from gatebook.compiler.closure import Tokens
from gatebook.compiler.index import Entry, Outcome
from gatebook.compiler.plan import Found
from gatebook.expression.tree import Call, Literal

Memo = dict[int, Outcome]
"""The outcomes of one request to a governed set, by the identity of an entry of the program."""

_UNKNOWN = Literal(None)
_ORDER = attrgetter("order")


def outcomes(found: tuple[Found, ...], tokens: Tokens) -> Iterator[tuple[Entry, Outcome]]:
    """Yields the rules that apply or may apply, each evaluated when it is asked for."""
    return _merged((entry, outcome_of(entry, tokens, row_known=True)) for entry in _entries(found, tokens))


def column_outcomes(found: tuple[Found, ...], tokens: Tokens, memo: Memo) -> list[tuple[Entry, Outcome]]:
    """Returns the rules that apply or may apply to one column, and evaluates for all columns what can be."""
    if not found:
        return []
    row_known = tokens["row"] is not None
    judged: list[tuple[Entry, Outcome]] = []
    for entry in _entries(found, tokens):
        if entry.rest is None and entry.certain:
            judged.append((entry, True))
            continue
        if entry.late or not entry.certain:
            outcome = outcome_of(entry, tokens, row_known=row_known)
        elif id(entry) in memo:
            outcome = memo[id(entry)]
        else:
            outcome = memo[id(entry)] = outcome_of(entry, tokens, row_known=row_known)
        if outcome is not False:
            judged.append((entry, outcome))
    return judged if len(found) == 1 else list(_merged(iter(judged)))


def _entries(found: tuple[Found, ...], tokens: Tokens) -> Iterable[Entry]:
    """Returns the entries whose guards do not fail, in order; none is looked at before it is asked for."""
    if len(found) == 1 and found[0].guard is None:
        return found[0].entries
    guarded = (_guarded(it, tokens) for it in found)
    return heapq.merge(*guarded, key=_ORDER)


def _guarded(found: Found, tokens: Tokens) -> Iterable[Entry]:
    truth = True if found.guard is None else found.guard(tokens, ())
    if truth is True:
        return found.entries
    return () if truth is False else (msgspec.structs.replace(entry, certain=False) for entry in found.entries)


def outcome_of(entry: Entry, tokens: Tokens, *, row_known: bool) -> Outcome:
    """Returns what the rest of a rule comes to."""
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


def _merged(judged: Iterator[tuple[Entry, Outcome]]) -> Iterator[tuple[Entry, Outcome]]:
    """Makes one outcome of those that alternatives have of the same rule."""
    pending: tuple[Entry, Outcome] | None = None
    for entry, outcome in judged:
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


def _either(left: Outcome, right: Outcome) -> Outcome:
    if left is True or right is True:
        return True
    operands = [outcome for outcome in (left, right) if outcome is not None and not isinstance(outcome, bool)]
    if not operands:
        return None
    return Call("or", (*([_UNKNOWN] if len(operands) == 1 else []), *operands))
