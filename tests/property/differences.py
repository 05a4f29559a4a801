"""Where Gatebook answers otherwise than pycasbin 2.8, on purpose.

Owns the only exceptions that the comparison makes. Each is a claim of its own: it says when it applies, and what must
still hold there, so that nothing hides behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gatebook.engine.verdict import Verdict
from gatebook.policy.model import EffectKind, Model
from gatebook.values import Effect

HIERARCHY_LEVELS = 64
"""More links than any drawn chain of roles has."""


class Answered(msgspec.Struct, frozen=True):
    """Both answers to one request; Casbin's are asked for again with a function of the same name."""

    verdict: Verdict
    allowed: bool
    rule: tuple[str, ...]
    effect: EffectKind
    by_levels: Callable[[int], tuple[bool, tuple[str, ...]]]
    applies_alone: Callable[[tuple[str, ...]], bool]
    """Tells whether one rule, taken alone, matches by our definition, or is unknown."""
    position: Callable[[tuple[str, ...]], int]

    @property
    def ours(self) -> bool:
        """Tells whether we allow."""
        return self.verdict.effect is Effect.ALLOW

    @property
    def our_rule(self) -> tuple[str, ...]:
        """Returns the fields of the rule that decided for us, or nothing."""
        return self.verdict.rules[0].fields if self.verdict.rules else ()


class Difference(msgspec.Struct, frozen=True):
    """A difference: what it is, why we differ, and the test that a pair of answers shows no more than that."""

    name: str
    reason: str
    explains: Callable[[Answered], bool]


def _deep(answered: Answered) -> bool:
    allowed, rule = answered.by_levels(HIERARCHY_LEVELS)
    if (allowed, rule) == (answered.allowed, answered.rule):
        return False
    again = msgspec.structs.replace(answered, allowed=allowed, rule=rule)
    return not disagreement(again) or any(it.explains(again) for it in DIFFERENCES if it.explains is not _deep)


def _unknown(answered: Answered) -> bool:
    return bool(answered.verdict.unknown) and (answered.allowed or not answered.ours)


def _last_allow(answered: Answered) -> bool:
    return (
        answered.effect is EffectKind.ALLOW_AND_DENY
        and answered.ours
        and answered.allowed
        and answered.position(answered.our_rule) < answered.position(answered.rule)
        and answered.applies_alone(answered.rule)
    )


def _nothing_decided(answered: Answered) -> bool:
    return (
        answered.our_rule == ()
        and answered.allowed == answered.ours == answered.effect.allows_by_default
        and answered.applies_alone(answered.rule)
    )


DIFFERENCES = (
    Difference(
        "hierarchy-cut-at-ten",
        "Casbin follows at most nine links of a role hierarchy; Gatebook follows all. Asked again without that limit, "
        "Casbin answers the same.",
        _deep,
    ),
    Difference(
        "unknown-fails-closed",
        "Values of different kinds do not compare: Python takes `1 == 'a'` for false, and its negation for true; for "
        "Gatebook both are unknown, which never allows and does deny. So Gatebook allows only what Casbin allows.",
        _unknown,
    ),
    Difference(
        "first-allow-is-named",
        "Where denies override allows, Casbin walks on after an allow and names the last rule that matches; Gatebook "
        "names the first allow. Both rules match (or Casbin's is unknown).",
        _last_allow,
    ),
    Difference(
        "only-the-decider-is-named",
        "Where no rule decides, Gatebook names none, and Casbin the last one that matched whatever its effect.",
        _nothing_decided,
    ),
)


class Unasked(msgspec.Struct, frozen=True):
    """A kind of model about which Casbin is not asked, and why; engine and reference are compared all the same."""

    name: str
    reason: str
    concerns: Callable[[Model, frozenset[str]], bool]
    """Takes the model, and the relations whose names match as patterns."""


DOMAIN_ARITY = 3
UNASKED = (
    Unasked(
        "several-domains",
        "Casbin refuses links in more than one domain: its role managers raise.",
        lambda model, _matching: any(role.arity > DOMAIN_ARITY for role in model.roles.values()),
    ),
    Unasked(
        "patterns-of-names",
        "With a function that matches names, what Casbin answers depends on the order of the links and on what was "
        "asked before; that it grants what Gatebook grants is tested in `test_loose_roles`.",
        lambda _model, matching: bool(matching),
    ),
)


def unasked(model: Model, matching: frozenset[str]) -> str:
    """Returns the name of the reason for which Casbin is not asked about a model, or nothing."""
    return next((it.name for it in UNASKED if it.concerns(model, matching)), "")


def disagreement(answered: Answered) -> str:
    """Returns in which way two answers differ, without exceptions: `effect`, `rule` or nothing."""
    if answered.ours != answered.allowed:
        return "effect"
    return "" if answered.our_rule == answered.rule else "rule"


def difference(answered: Answered) -> str:
    """Returns the name of the documented difference that two answers show, or nothing if it is none."""
    return next((it.name for it in DIFFERENCES if it.explains(answered)), "")
