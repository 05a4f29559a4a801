"""Finds the rules of a plain set that come into question for one request, without a memo.

Owns what `engine.evaluate` asks first: where requests come from many subjects, no memo of plans holds them, and to go
down the trees (`compiler.steps`) costs less than to make a plan. Promises: what is found are the rules that
`compiler.plan` finds; of a request with a value that is UNKNOWN to a key or guard, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain as joined
from operator import attrgetter

from gatebook.compiler.closure import Tokens
from gatebook.compiler.index import Entry, Index
from gatebook.compiler.lookups import Graph
from gatebook.compiler.steps import Chain, Values
from gatebook.pace import Pause, no_pause

Find = Callable[[Values, Tokens], Sequence[Entry] | None]
"""Returns the rules in order, those of several alternatives as often; None: it cannot say."""

_ORDER = attrgetter("order")


def compile_find(
    names: Sequence[str],
    groups: Mapping[str, Sequence[Index]],
    roles: Mapping[str, Graph],
    pause: Pause = no_pause,
) -> dict[str, Find]:
    """Returns, for each group of rules, what finds those that concern a request whose values have these names."""
    return {group: find_in(Chain(names, {group: indexes}, roles, pause), group) for group, indexes in groups.items()}


def find_in(chain: Chain, group: str) -> Find:
    """Returns what finds the rules of one group."""
    collect = chain.collects(group)
    are_texts = chain.are_texts()

    def found(values: Values, tokens: Tokens) -> Sequence[Entry] | None:
        leaves: list[tuple[Entry, ...]] = []
        try:
            if not are_texts(values):
                return None
            collect((*values, leaves), tokens)
        except TypeError:  # a value that cannot be looked up, or is unknown
            return None
        if len(leaves) == 1:
            return leaves[0]
        return sorted(joined.from_iterable(leaves), key=_ORDER)

    return found
