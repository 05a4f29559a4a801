"""What decides beside the files of a policy set: functions that whoever runs it brings along.

Owns the frozen form of it, for the compiler and for the definition. The files of a set name everything that the
service decides by; a user of the library may bring more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gatebook.expression.functions import BUILTINS
from gatebook.expression.given import Given
from gatebook.expression.moments import TIME_MATCH, AtTime
from gatebook.expression.truth import Functions
from gatebook.policy.settings import Settings

Match = Callable[[str, str], object]
"""Tells whether a text matches a pattern: True or False; anything else is UNKNOWN."""

Condition = Callable[..., object]
"""Tells from the parameters of a link whether it holds: only True makes it one."""

CONDITIONS: Mapping[str, Condition] = {TIME_MATCH: AtTime()}
"""The conditions of links that a set can name."""


class RolePatterns(msgspec.Struct, frozen=True):
    """How the names, and the domains, of one relation match as patterns; None: they do not."""

    match: Match | None = None
    domain_match: Match | None = None


class LinkConditions(msgspec.Struct, frozen=True):
    """Under which conditions the links of one relation hold.

    `of_links` has the condition of a link by `(child, parent, *domains)`; `otherwise` is that of all others, and
    None says that they do not hold.
    """

    of_links: Mapping[tuple[str, ...], Condition] = {}
    otherwise: Condition | None = None


class Brought(msgspec.Struct, frozen=True):
    """Functions for matchers and conditions by name; patterns and conditions of relations by key.

    `awaits` tells whoever loads a set that more may come before it is compiled: what is missing is refused only then.
    """

    functions: Mapping[str, Callable[..., object]] = {}
    patterns: Mapping[str, RolePatterns] = {}
    conditions: Mapping[str, LinkConditions] = {}
    awaits: bool = False

    def is_timed(self, key: str) -> bool:
        """Tells whether the links of a relation depend on the time of the decision."""
        conditions = self.conditions.get(key, LinkConditions())
        return any(isinstance(it, AtTime) for it in (*conditions.of_links.values(), conditions.otherwise))

    def given(self) -> Functions:
        """Returns the functions, each made total."""
        return {name: Given(function) for name, function in self.functions.items()}


NOTHING_BROUGHT = Brought()


def named_by(settings: Settings, brought: Brought) -> Brought:
    """Adds the patterns and conditions that `gatebook.yaml` names."""
    patterns = {
        key: RolePatterns(*(BUILTINS[it].call if it else None for it in (named.names, named.domains)))
        for key, named in settings.role_patterns.items()
    }
    conditions = {key: LinkConditions(otherwise=CONDITIONS[name]) for key, name in settings.role_conditions.items()}
    return msgspec.structs.replace(
        brought, patterns={**patterns, **brought.patterns}, conditions={**conditions, **brought.conditions}
    )
