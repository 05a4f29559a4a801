"""A Casbin model, as read from `model.conf`.

Owns the typed definitions: what a request, a rule and a role link consist of, how effects
combine, and the matchers as expression trees. Keys are those of Casbin: `r p g e m`, then
`r2 p2 ...`. A model says nothing about policy sets; `casbin_files` reads it, the compiler uses it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping

import msgspec

from gatebook.expression.tree import Call, Expression, Literal, Path

POLICY_KEY = re.compile(r"p[0-9]*")
REQUEST_KEY = re.compile(r"r[0-9]*")


class EffectKind(enum.Enum):
    """How the effects of the rules that match make one answer; the value is Casbin's text of it."""

    ALLOW_OVERRIDE = "some(where (p.eft == allow))"
    DENY_OVERRIDE = "!some(where (p.eft == deny))"
    ALLOW_AND_DENY = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
    PRIORITY = "priority(p.eft) || deny"
    SUBJECT_PRIORITY = "subjectPriority(p.eft) || deny"

    @property
    def allows_by_default(self) -> bool:
        """Tells whether a request that no rule matches is allowed."""
        return self is EffectKind.DENY_OVERRIDE

    @property
    def in_order(self) -> bool:
        """Tells whether the first rule that applies decides, whatever its effect."""
        return self in (EffectKind.PRIORITY, EffectKind.SUBJECT_PRIORITY)


class TokensDefinition(msgspec.Struct, frozen=True):
    """The definition of a request (`r`) or of a rule (`p`): the names of its parts, in order."""

    key: str
    tokens: tuple[str, ...]
    line: int


class RoleDefinition(msgspec.Struct, frozen=True):
    """The definition of a role relation.

    `arity` is 2, and one more for each domain; `parameters` counts the values that the condition of a link has.
    """

    key: str
    arity: int
    line: int
    parameters: int = 0

    @property
    def width(self) -> int:
        """Returns how many fields a line has."""
        return self.arity + self.parameters


class EffectDefinition(msgspec.Struct, frozen=True):
    """The definition of a policy effect."""

    key: str
    kind: EffectKind
    line: int


class Matcher(msgspec.Struct, frozen=True):
    """One matcher: its text as Casbin sees it and its tree, whose spans are offsets of that text."""

    key: str
    text: str
    expression: Expression
    line: int

    @property
    def policy_key(self) -> str:
        """Returns the key of the rules that it speaks of, such as `p2`; `p` when it speaks of none."""
        return next((key for key in self._roots() if POLICY_KEY.fullmatch(key)), "p")

    @property
    def request_key(self) -> str:
        """Returns the key of the request that it speaks of, such as `r2`; `r` when it speaks of none."""
        return next((key for key in self._roots() if REQUEST_KEY.fullmatch(key)), "r")

    @property
    def condition_fields(self) -> frozenset[str]:
        """Returns the rule fields that hold conditions: those within `eval(...)`."""
        calls = (node for node in walk(self.expression) if isinstance(node, Call) and node.op == "eval")
        paths = (operand for call in calls for operand in call.operands if isinstance(operand, Path))
        return frozenset(path.names[1] for path in paths if len(path.names) > 1)

    def _roots(self) -> Iterator[str]:
        return (node.names[0] for node in walk(self.expression) if isinstance(node, Path))


class Sections(msgspec.Struct, frozen=True):
    """Which definitions of a model decide: the request, the rules and the matcher, by key.

    The policy effect is always `e`, as in pycasbin.
    """

    request: str = "r"
    rules: str = "p"
    matcher: str = "m"


class Model(msgspec.Struct, frozen=True):
    """All definitions of a `model.conf`, by key; `as_casbin` tells that its texts are pycasbin's, not ours."""

    requests: Mapping[str, TokensDefinition]
    policies: Mapping[str, TokensDefinition]
    roles: Mapping[str, RoleDefinition]
    effects: Mapping[str, EffectDefinition]
    matchers: Mapping[str, Matcher]
    as_casbin: bool = False

    def sections(self, matcher: str = "m") -> Sections:
        """Returns what a matcher decides by: the request and the rules that it speaks of."""
        defined = self.matchers.get(matcher)
        return Sections() if defined is None else Sections(defined.request_key, defined.policy_key, matcher)

    def condition_fields(self, policy_key: str) -> frozenset[str]:
        """Returns the fields of rules of one type that hold conditions."""
        matchers = (matcher for matcher in self.matchers.values() if matcher.policy_key == policy_key)
        return frozenset(field for matcher in matchers for field in matcher.condition_fields)


def names_of(model: Model) -> Mapping[str, tuple[str, str]]:
    """Returns the root and token of each name, as pycasbin writes it: `r_sub`."""
    definitions = (*model.requests.values(), *model.policies.values())
    return {f"{it.key}_{token}": (it.key, token) for it in definitions for token in it.tokens}


def walk(expression: Expression) -> Iterator[Expression]:
    """Yields every node of a tree, each before its operands, from left to right."""
    pending: list[Expression] = [expression]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, Call):
            pending.extend(reversed(node.operands))


def without_spans(expression: Expression) -> Expression:
    """Returns the tree without its places in the source, so that trees can be compared."""
    match expression:
        case Call(op, operands):
            return Call(op, tuple(without_spans(operand) for operand in operands))
        case Path(names):
            return Path(names)
        case Literal(value):
            return Literal(value)
