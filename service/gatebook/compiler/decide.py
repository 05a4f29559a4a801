"""Compiles the rules of a plain set to a closure that says allow or deny, and nothing else.

Owns the fastest way to an answer: the values of a request go down the trees of the indexes, one step for
each key, and nothing is made for the request that it does not need. Promises: where there is a closure, it
gives the effect that `engine.evaluate` gives; which rule decided, only that says. Rules:

1. an allow group answers whether a rule is True of the request, a deny group whether one is not False;
2. a value that is no text is UNKNOWN as a key: no rule is True under it, so it allows nothing; where a
   deny could be not False, the closure does not say;
3. what has no such closure, such as an effect by priority, and a request for which it cannot say, are left
   to `engine.evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatebook.compiler.closure import Tokens
from gatebook.compiler.index import Entry, Index
from gatebook.compiler.keys import Domain, Form, Key
from gatebook.compiler.lookups import EVERY, Graph, Lookup, lookup
from gatebook.compiler.plan import identity, used_values
from gatebook.compiler.roles import Inherited, Names, Roles
from gatebook.expression.tree import Path
from gatebook.policy.model import EffectKind

Values = tuple[Any, ...]
"""The values of a request, in the order of its definition."""

Decide = Callable[[Values], bool | None]
"""Tells whether a request is allowed; None: it cannot say."""

Way = Callable[[Values, Tokens], bool]
"""Tells whether a rule of one alternative of the matcher applies to a request, given as values and as tokens."""

Node = Mapping[str, Any]
Step = Callable[[Any, Values, Tokens], bool]
"""Tells the same of the rules below one node of an index."""

_NO_TOKENS: Tokens = {}
_TOKEN_PARTS = 2


def compile_decide(
    effect: EffectKind, names: Sequence[str], groups: Mapping[str, Sequence[Index]], roles: Mapping[str, Graph]
) -> Decide | None:
    """Returns what decides a request whose values have these names, or None where only `engine.evaluate` can."""
    decides = _DECIDES.get(effect)
    if decides is None:
        return None
    chain = _Chain(names, groups, roles)
    decided = decides(chain.ways("allows"), chain.ways("denies"), chain.are_texts())
    if not chain.reads_tokens:
        return lambda values: decided(values, _NO_TOKENS)
    return lambda values: decided(values, dict(zip(names, values, strict=True)))


def _allow_override(allows: Way, _denies: Way, are_texts: Callable[[Values], bool]) -> Callable[..., bool | None]:
    def decided(values: Values, tokens: Tokens) -> bool | None:
        try:
            # What is no text equals no text, unless somebody wrote a class that says so: hence the second look.
            return allows(values, tokens) and (are_texts(values) or None)
        except TypeError:  # a value that cannot be looked up
            return None

    return decided


def _deny_override(_allows: Way, denies: Way, are_texts: Callable[[Values], bool]) -> Callable[..., bool | None]:
    def decided(values: Values, tokens: Tokens) -> bool | None:
        try:
            return not denies(values, tokens) if are_texts(values) else None
        except TypeError:
            return None

    return decided


def _allow_and_deny(allows: Way, denies: Way, are_texts: Callable[[Values], bool]) -> Callable[..., bool | None]:
    def decided(values: Values, tokens: Tokens) -> bool | None:
        try:
            if not allows(values, tokens):
                return False
            return not denies(values, tokens) if are_texts(values) else None
        except TypeError:
            return None

    return decided


_DECIDES: Mapping[EffectKind, Callable[[Way, Way, Callable[[Values], bool]], Callable[..., bool | None]]] = {
    EffectKind.ALLOW_OVERRIDE: _allow_override,
    EffectKind.DENY_OVERRIDE: _deny_override,
    EffectKind.ALLOW_AND_DENY: _allow_and_deny,
}


class _Chain:
    """Composes the steps of one program; lives while it is compiled."""

    def __init__(self, names: Sequence[str], groups: Mapping[str, Sequence[Index]], roles: Mapping[str, Graph]) -> None:
        self._names, self._groups, self._roles = tuple(names), groups, roles
        self._used = used_values(groups)
        self._looked_up: set[int] = set()
        self.reads_tokens = False

    def are_texts(self) -> Callable[[Values], bool]:
        """Returns what tells whether all values that are looked up are texts; for when all ways are composed."""
        positions = tuple(sorted(self._looked_up))

        def are_texts(values: Values) -> bool:
            for position in positions:  # noqa: SIM110  # a generator would cost as much as the rest
                if not isinstance(values[position], str):
                    return False
            return True

        return are_texts

    def ways(self, group: str) -> Way:
        """Returns what tells whether any alternative of a group applies."""
        ways = tuple(self._way(index, may_apply=group == "denies") for index in self._groups[group])
        if len(ways) == 1:
            return ways[0]

        def any_applies(values: Values, tokens: Tokens) -> bool:
            for way in ways:  # noqa: SIM110  # as above
                if way(values, tokens):
                    return True
            return False

        return any_applies

    def _way(self, index: Index, *, may_apply: bool) -> Way:
        """Composes one alternative: its guard, a step for each key, then what is left of the matcher."""
        self.reads_tokens = self.reads_tokens or index.guard is not None or not index.bare
        step: Step = _exists if index.bare else _may_apply if may_apply else _applies
        for key in reversed(index.keys):
            step = self._step(key, step, may_apply=may_apply)
        root, guard = index.root, index.guard
        if guard is None:
            return lambda values, tokens: step(root, values, tokens)
        if may_apply:
            return lambda values, tokens: guard(tokens, ()) is not False and step(root, values, tokens)
        return lambda values, tokens: guard(tokens, ()) is True and step(root, values, tokens)

    def _step(self, key: Key, below: Step, *, may_apply: bool) -> Step:
        position, domains = self._position(key.request), [self._position(domain) for domain in key.domains]
        used, graph = self._used[identity(key)], self._roles.get(key.role)
        match key.form, position, domains:
            case Form.EQUAL, int(), []:
                return _equal(position, below)
            case Form.ROLE, int(), [] if isinstance(graph, Roles):
                return _heir(position, graph.within(used), below)
            case Form.ROLE, int(), [int(at)] if key.exact and isinstance(graph, Roles):
                return _heir_in(position, at, graph.within(used), below)
        self.reads_tokens = True
        return _found(lookup(key, self._roles, used), below, may_apply=may_apply)

    def _position(self, path: Domain) -> int | None:
        """Returns where a token stands among the values; None of anything but a token."""
        if not isinstance(path, Path) or len(path.names) != _TOKEN_PARTS:
            return None
        position = self._names.index(path.names[1])
        self._looked_up.add(position)
        return position


def _exists(entries: tuple[Entry, ...], _values: Values, _tokens: Tokens) -> bool:
    return bool(entries)


def _applies(entries: tuple[Entry, ...], _values: Values, tokens: Tokens) -> bool:
    for entry in entries:  # noqa: SIM110  # a generator would cost as much as the rest
        if entry.rest is None or entry.rest(tokens, entry.rule.fields) is True:
            return True
    return False


def _may_apply(entries: tuple[Entry, ...], _values: Values, tokens: Tokens) -> bool:
    for entry in entries:  # noqa: SIM110  # as above
        if entry.rest is None or entry.rest(tokens, entry.rule.fields) is not False:
            return True
    return False


def _equal(position: int, below: Step) -> Step:
    """Goes down where the field of the rule equals a token."""
    if below is _exists:
        return lambda node, values, _tokens: values[position] in node

    def equal(node: Node, values: Values, tokens: Tokens) -> bool:
        child = node.get(values[position])
        return child is not None and below(child, values, tokens)

    return equal


def _heir(position: int, inherited: Inherited, below: Step) -> Step:
    """Goes down where a token inherits the field of the rule."""
    prepared = inherited.prepared.get((), {}).get
    any_of = _any_of(below)

    def heir(node: Node, values: Values, tokens: Tokens) -> bool:
        value = values[position]
        names = prepared(value)
        return any_of(inherited(value) if names is None else names, node, values, tokens)

    if below is not _exists:
        return heir

    def heir_of_last(node: Node, values: Values, _tokens: Tokens) -> bool:
        value = values[position]
        names = prepared(value)
        if names is None:
            names = inherited(value)
        if len(names) > len(node):
            return not node.keys().isdisjoint(names)
        for name in names:  # noqa: SIM110  # as above
            if name in node:
                return True
        return False

    return heir_of_last


def _heir_in(position: int, at: int, inherited: Inherited, below: Step) -> Step:
    """Goes down where a token inherits the field of the rule, in the domain that another token names."""
    prepared = {domains[0]: names.get for domains, names in inherited.prepared.items()}
    any_of = _any_of(below)

    def heir(node: Node, values: Values, tokens: Tokens) -> bool:
        value, domain = values[position], values[at]
        in_domain = prepared.get(domain)
        names = None if in_domain is None else in_domain(value)
        return any_of(inherited(value, domain) if names is None else names, node, values, tokens)

    return heir


def _found(look_up: Lookup, below: Step, *, may_apply: bool) -> Step:
    """Goes down where the field of the rule is among what any other key finds."""
    any_of = _any_of(below)

    def found(node: Node, values: Values, tokens: Tokens) -> bool:
        names = look_up(tokens)
        if names is EVERY:
            names = tuple(node)
        if names is not None:
            return any_of(names, node, values, tokens)
        if may_apply:
            raise TypeError  # unknown: the closure does not say
        return False

    return found


def _any_of(below: Step) -> Callable[[Names, Node, Values, Tokens], bool]:
    """Returns what goes down by any of several names, over the smaller of the names and the node."""

    def any_of(names: Names, node: Node, values: Values, tokens: Tokens) -> bool:
        if len(names) > len(node):
            names = tuple([name for name in node if name in names])
        for name in names:
            child = node.get(name)
            if child is not None and below(child, values, tokens):
                return True
        return False

    return any_of
