"""What a user of an enforcer adds to its files: functions for matchers, and how relations match and hold.

Owns the collecting of these, each addition as a new value, so that an enforcer can swap it in or keep what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gatebook.expression.functions import ARITIES
from gatebook.expression.moments import AtTime
from gatebook.expression.parse import OPERATORS
from gatebook.expression.tree import Call
from gatebook.policy.brought import Brought, Condition, LinkConditions, Match, RolePatterns
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.model import walk
from gatebook.policy.model_file import parse_model

Link = tuple[str, ...]
"""A child, its parent, and the domains."""


class Additions(msgspec.Struct, frozen=True):
    """Functions by name, patterns by relation, and conditions and parameters by relation and link.

    `called` has, for each matcher, the functions that it calls and that neither Gatebook nor the model has;
    `conditional` are the relations whose links have parameters.
    """

    called: Mapping[str, frozenset[str]] = {}
    conditional: tuple[str, ...] = ()
    functions: Mapping[str, Callable[..., object]] = {}
    patterns: Mapping[str, RolePatterns] = {}
    conditions: Mapping[tuple[str, Link], Condition] = {}
    parameters: Mapping[tuple[str, Link], tuple[Any, ...]] = {}

    def missing(self, matcher: str) -> tuple[str, ...]:
        """Returns the functions that a matcher calls and that nobody has added yet."""
        return tuple(sorted(self.called.get(matcher, frozenset()) - self.functions.keys()))

    def with_function(self, name: str, function: Callable[..., object]) -> Additions:
        """Adds a function."""
        return msgspec.structs.replace(self, functions={**self.functions, name: function})

    def with_match(self, gtype: str, match: Match) -> Additions:
        """Lets the names of a relation match as patterns."""
        own = msgspec.structs.replace(self.patterns.get(gtype, RolePatterns()), match=match)
        return msgspec.structs.replace(self, patterns={**self.patterns, gtype: own})

    def with_domain_match(self, gtype: str, match: Match) -> Additions:
        """Lets the domains of a relation match as patterns."""
        own = msgspec.structs.replace(self.patterns.get(gtype, RolePatterns()), domain_match=match)
        return msgspec.structs.replace(self, patterns={**self.patterns, gtype: own})

    def with_condition(self, gtype: str, link: Link, condition: Condition) -> Additions:
        """Lets a link hold only while a condition does."""
        return msgspec.structs.replace(self, conditions={**self.conditions, (gtype, link): condition})

    def with_parameters(self, gtype: str, link: Link, parameters: tuple[Any, ...]) -> Additions:
        """Gives the condition of a link these parameters, instead of those in the policy."""
        return msgspec.structs.replace(self, parameters={**self.parameters, (gtype, link): parameters})

    def brought(self) -> Brought:
        """Returns all of it as the compiler takes it; a function that is missing has no answer."""
        return Brought(
            functions={**dict.fromkeys(frozenset().union(*self.called.values()), _no_answer), **self.functions},
            patterns=self.patterns,
            conditions={gtype: LinkConditions(self._conditions_of(gtype)) for gtype in self.conditional},
        )

    def _conditions_of(self, gtype: str) -> Mapping[Link, Condition]:
        return {
            link: _with(condition, self.parameters.get((of, link)))
            for (of, link), condition in self.conditions.items()
            if of == gtype
        }


def called_by(model: bytes) -> Additions:
    """Returns the additions of a model to which nothing was added yet."""
    read, _ = parse_model(MODEL_FILE, model)
    known = OPERATORS | ARITIES.keys() | read.roles.keys() | {"eval"}
    return Additions(
        {
            key: frozenset(node.op for node in walk(it.expression) if isinstance(node, Call)) - known
            for key, it in read.matchers.items()
        },
        tuple(key for key, role in read.roles.items() if role.parameters),
    )


def _no_answer(*_values: object) -> None:
    """Is what a function answers that nobody has added."""


def _with(condition: Condition, parameters: tuple[Any, ...] | None) -> Condition:
    if parameters is None:
        return condition
    return AtTime(parameters) if isinstance(condition, AtTime) else lambda *_written: condition(*parameters)
