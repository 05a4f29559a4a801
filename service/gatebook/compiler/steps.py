"""Composes the ways down the trees of the indexes, for `compiler.decide`.

Owns the steps: one for each key of an index, which takes a node and goes on below it, and one for the leaf. A step
takes the values of a request as they came; its tokens by name are there only where something reads them.
What is UNKNOWN to a key that is asked whether a rule may apply is a TypeError: the way does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatebook.compiler.closure import Closure, Tokens
from gatebook.compiler.index import Entry, Index
from gatebook.compiler.keys import Domain, Form, Key
from gatebook.compiler.lookups import EVERY, Graph, Lookup, lookup
from gatebook.compiler.plan import identity, used_values
from gatebook.compiler.roles import Inherited, Names, Roles
from gatebook.expression.tree import Path
from gatebook.pace import Pause, no_pause

Values = tuple[Any, ...]
"""The values of a request, in the order of its definition."""

Way = Callable[[Values, Tokens], bool]
"""Tells whether a rule of one alternative of the matcher applies to a request, given as values and as tokens."""

Node = Mapping[str, Any]
Step = Callable[[Any, Values, Tokens], bool]
"""Tells the same of the rules below one node of an index."""

_TOKEN_PARTS = 2


class Chain:
    """Composes the steps of one program; lives while it is compiled."""

    def __init__(
        self,
        names: Sequence[str],
        groups: Mapping[str, Sequence[Index]],
        roles: Mapping[str, Graph],
        pause: Pause = no_pause,
    ) -> None:
        """Takes the names of the values, the indexes of each group of rules, and the relations."""
        self._pause = pause
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

    def applies(self, group: str) -> Way:
        """Returns what tells whether some rule of a group is True of a request."""
        return _any_way([self._way(it, _exists if it.bare else _applies, _is_true) for it in self._groups[group]])

    def may_apply(self, group: str) -> Way:
        """Returns what tells whether some rule of a group is not False."""
        return _any_way(
            [
                self._way(it, _exists if it.bare else _may_apply, _is_not_false, may_apply=True)
                for it in self._groups[group]
            ]
        )

    def collects(self, group: str) -> Way:
        """Returns what adds the leaves that it comes to to a list, which is the last of the values."""
        return _any_way([self._way(it, _collect, _is_known, may_apply=True) for it in self._groups[group]])

    def _way(
        self, index: Index, leaf: Step, heeds: Callable[[Closure], Callable[[Tokens], bool]], *, may_apply: bool = False
    ) -> Way:
        """Composes one alternative: its guard, a step for each key, then what is left of the matcher."""
        self.reads_tokens = self.reads_tokens or index.guard is not None or not index.bare
        step = leaf
        for key in reversed(index.keys):
            step = self._step(key, step, may_apply=may_apply)
        root = index.root
        if index.guard is None:
            return lambda values, tokens: step(root, values, tokens)
        passes = heeds(index.guard)
        return lambda values, tokens: passes(tokens) and step(root, values, tokens)

    def _step(self, key: Key, below: Step, *, may_apply: bool) -> Step:
        position, domains = self._position(key.request), [self._position(domain) for domain in key.domains]
        used, graph = self._used[identity(key)], self._roles.get(key.role)
        match key.form, position, domains:
            case Form.EQUAL, int(), []:
                return _equal(position, below)
            case Form.ROLE, int(), [] if isinstance(graph, Roles):
                return _heir(position, graph.within(used, self._pause), below)
            case Form.ROLE, int(), [int(at)] if key.exact and isinstance(graph, Roles):
                return _heir_in(position, at, graph.within(used, self._pause), below)
        self.reads_tokens = True
        return _found(lookup(key, self._roles, used, self._pause), below, may_apply=may_apply)

    def _position(self, path: Domain) -> int | None:
        """Returns where a token stands among the values; None of anything but a token."""
        if not isinstance(path, Path) or len(path.names) != _TOKEN_PARTS:
            return None
        position = self._names.index(path.names[1])
        self._looked_up.add(position)
        return position


def _any_way(ways: Sequence[Way]) -> Way:
    """Returns what tells whether any alternative applies."""
    if len(ways) == 1:
        return ways[0]

    def any_way(values: Values, tokens: Tokens) -> bool:
        for way in ways:  # noqa: SIM110  # as above
            if way(values, tokens):
                return True
        return False

    return any_way


def _is_true(guard: Closure) -> Callable[[Tokens], bool]:
    return lambda tokens: guard(tokens, ()) is True


def _is_not_false(guard: Closure) -> Callable[[Tokens], bool]:
    return lambda tokens: guard(tokens, ()) is not False


def _is_known(guard: Closure) -> Callable[[Tokens], bool]:
    def is_true(tokens: Tokens) -> bool:
        truth = guard(tokens, ())
        if not isinstance(truth, bool):
            raise TypeError  # unknown: the way does not say
        return truth

    return is_true


def _collect(entries: tuple[Entry, ...], values: Values, _tokens: Tokens) -> bool:
    values[-1].append(entries)
    return False


def _exists(entries: tuple[Entry, ...], _values: Values, _tokens: Tokens) -> bool:
    return bool(entries)


def _applies(entries: tuple[Entry, ...], _values: Values, tokens: Tokens) -> bool:
    for entry in entries:  # noqa: SIM110  # as above
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
            raise TypeError  # as above
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
