"""The graph of a role definition whose names or domains are patterns, or whose links hold under conditions.

Owns what is inherited where that is not a matter of equal names; `engine.reference` says it in one line. A link of
`child` to `parent` leads from every name that matches `child` to `parent`, and whoever has a pattern for a role
has every name that matches it. A link counts in every domain that matches its own, and while its condition is True.

Each of these is True, False or UNKNOWN (a function that raises, a condition that nobody gave), and so is what
follows: a way is True if all its steps are. A name from a request is never a pattern itself. Promises: immutable
but for bounded memos, which hold nothing where conditions decide, since those may change with time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial

import msgspec

from gatebook.expression.functions import BUILTINS, complaint
from gatebook.expression.given import Given
from gatebook.expression.moments import AtTime
from gatebook.expression.prefixes import PREFIXED, is_plain, prefix_of
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.brought import LinkConditions, Match, RolePatterns
from gatebook.values import Edge

WAYS_MAX = 16_384
"""How many names of one definition what they inherit is remembered of."""

Names = tuple[str, ...]
Test = Callable[[str, str], bool | None]
_Links = Mapping[str, list[Edge]]


class Ways(msgspec.Struct, frozen=True):
    """What a name inherits: what it surely does, and what it does where all that is UNKNOWN is true."""

    surely: frozenset[str]
    perhaps: frozenset[str]


class LooseRoles:
    """Answers whether one name inherits another: True, False, or None where that is UNKNOWN."""

    def __init__(
        self, edges: Iterable[Edge], patterns: RolePatterns, conditions: LinkConditions | None, pause: Pause = no_pause
    ) -> None:
        """Takes the edges of one role definition, and how they match."""
        links: dict[Names, dict[str, list[Edge]]] = {}
        for edge in paced(edges, pause):
            links.setdefault(edge.domains, {}).setdefault(edge.child, []).append(edge)
        graph = _Graph(links, _test(patterns.match), _test(patterns.domain_match), conditions)
        self._graph = graph
        self._ways = graph.ways if conditions else lru_cache(maxsize=WAYS_MAX)(graph.ways)
        unconditional = _Graph(links, graph.match, graph.domain_match, None)
        self._at_most = lru_cache(maxsize=WAYS_MAX)(unconditional.ways)

    def linked(self, name: str, parent: str, *domains: str) -> bool | None:
        """Tells whether `name` inherits `parent`."""
        return self._linked(name, parent, self._ways, domains)

    def linked_at(self, name: str, parent: str, *domains_and_now: str) -> bool | None:
        """Tells whether `name` inherits `parent` at a `Moment`, which stands after the domains."""
        *domains, now = domains_and_now
        return self._linked(name, parent, partial(self._graph.ways, now=now), tuple(domains))

    def _linked(self, name: str, parent: str, ways_of: Callable[[str, Names], Ways], domains: Names) -> bool | None:
        if name == parent:
            return True
        ways, covers = ways_of(str.__str__(name), domains), self._graph.covers
        if any(covers(held, parent) is True for held in ways.surely):
            return True
        return None if any(covers(held, parent) is not False for held in ways.perhaps) else False

    def within(self, used: frozenset[str], pause: Pause = no_pause) -> Callable[..., Names]:
        """Returns what says which names of `used` a name may inherit, whatever conditions say."""
        del pause
        at_most, covers = self._at_most, self._graph.covers

        def candidates(name: str, *domains: str) -> Names:
            held = at_most(name, domains).perhaps
            found = {it for it in used if it == name or any(covers(role, it) is not False for role in held)}
            return tuple(sorted(found))

        memoised = lru_cache(maxsize=WAYS_MAX)(candidates)
        return lambda name, *domains: memoised(str.__str__(name), *domains)


class _Graph(msgspec.Struct, frozen=True):
    """The links, and how they match."""

    links: Mapping[Names, _Links]
    match: Test | None
    domain_match: Test | None
    conditions: LinkConditions | None

    def ways(self, name: str, domains: Names, now: str | None = None) -> Ways:
        """Walks the graph from a name, over every way and over those that are surely there."""
        own = [(links, self._counts(domains, own)) for own, links in self.links.items()]
        counted = [it for it in own if it[1] is not False]
        return Ways(*(frozenset(self._walk(name, counted, wanted, now)) for wanted in ((True,), (True, None))))

    def _walk(
        self,
        name: str,
        counted: Sequence[tuple[_Links, bool | None]],
        wanted: tuple[bool | None, ...],
        now: str | None,
    ) -> set[str]:
        reached: set[str] = set()
        pending = [name]
        for held in pending:
            for links, counts in counted:
                for edge in self._above(held, links, wanted, is_role=held in reached) if counts in wanted else ():
                    if edge.parent not in reached and self._holds(edge, now) in wanted:
                        reached.add(edge.parent)
                        pending.append(edge.parent)
        return reached

    def _above(self, held: str, links: _Links, wanted: tuple[bool | None, ...], *, is_role: bool) -> Iterable[Edge]:
        """Yields the links of a name, and of the patterns that it matches; of a role also what it is a pattern of."""
        yield from links.get(held, ())
        if self.match is None:
            return
        for child, edges in links.items():
            matches = self.match(held, child) in wanted or (is_role and self.match(child, held) in wanted)
            if matches and child != held:
                yield from edges

    def _counts(self, domains: Names, own: Names) -> bool | None:
        """Tells whether links of some domains count in others."""
        if domains == own:
            return True
        if self.domain_match is None or len(domains) != len(own):
            return False
        outcomes = [asked == held or self.domain_match(asked, held) for asked, held in zip(domains, own, strict=True)]
        return False if False in outcomes else None if None in outcomes else True

    def _holds(self, edge: Edge, now: str | None) -> bool | None:
        if self.conditions is None:
            return True
        condition = self.conditions.of_links.get((edge.child, edge.parent, *edge.domains), self.conditions.otherwise)
        if isinstance(condition, AtTime):
            return condition.at(now, edge.parameters)
        outcome = None if condition is None else Given(condition)(*edge.parameters)
        return outcome if isinstance(outcome, bool) else None

    def covers(self, held: str, name: str) -> bool | None:
        """Tells whether a role is a name, or a pattern that the name matches."""
        if held == name:
            return True
        return False if self.match is None else self.match(name, held)


def _test(match: Match | None) -> Test | None:
    """Makes a matching function total; of Casbin's own it need not be asked where the beginnings differ."""
    if match is None:
        return None
    given = Given(match)

    def test(text: str, pattern: str) -> bool | None:
        outcome = given(text, pattern)
        return outcome if isinstance(outcome, bool) else None

    name = next((name for name in PREFIXED if BUILTINS[name].call is match), "")
    if not name:
        return test

    def test_alike(text: str, pattern: str) -> bool | None:
        if is_plain(name, text) and not text.startswith(_beginning(name, pattern)):
            return False
        return test(text, pattern)

    return test_alike


@lru_cache(maxsize=WAYS_MAX)
def _beginning(function: str, pattern: str) -> str:
    """Returns how all plain texts begin for which a function may not be False."""
    return "" if complaint(function, pattern) else prefix_of(function, pattern)
