"""Compiles the rules of a plain set to a closure that says allow or deny, and nothing else.

Owns the fastest way to an answer: the values of a request go down the trees of the indexes (`compiler.steps`), and
nothing is made for the request that it does not need. Promises: where the closure says something, it says what
`engine.evaluate` says; which rule decided, only that says. Rules:

1. of the allows, some rule must be True of the request; of the denies, none may be anything but False;
2. a value that is no text is UNKNOWN as a key: no rule is True under it, so it allows nothing; where a
   deny could be not False, the closure does not say;
3. where the first rule in order decides, those that come into question are collected, and asked in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gatebook.compiler.closure import Tokens
from gatebook.compiler.find import find_in
from gatebook.compiler.index import Index
from gatebook.compiler.lookups import Graph
from gatebook.compiler.steps import Chain, Values
from gatebook.pace import Pause, no_pause
from gatebook.policy.model import EffectKind
from gatebook.values import Rule

Decide = Callable[[Values], bool | None]
"""Tells whether a request is allowed; None: it cannot say."""

Decided = Callable[[Values, Tokens], bool | None]
"""Does so of a request as values and, where something reads them, as tokens."""

ALLOW, DENY = "allow", "deny"
_NO_TOKENS: Tokens = {}


def compile_decide(
    effect: EffectKind,
    names: Sequence[str],
    groups: Mapping[str, Sequence[Index]],
    roles: Mapping[str, Graph],
    effect_of: Callable[[Rule], str],
    pause: Pause = no_pause,
) -> Decide:
    """Returns what decides a request whose values have these names."""
    chain = Chain(names, groups, roles, pause)
    decided = _in_order(chain, effect_of) if effect.in_order else _DECIDES[effect](chain)
    if not chain.reads_tokens:
        return lambda values: decided(values, _NO_TOKENS)
    return lambda values: decided(values, dict(zip(names, values, strict=True)))


def _allow_override(chain: Chain) -> Decided:
    allows = chain.applies("allows")
    are_texts = chain.are_texts()

    def decided(values: Values, tokens: Tokens) -> bool | None:
        try:
            # What is no text equals no text, unless somebody wrote a class that says so: hence the second look.
            return allows(values, tokens) and (are_texts(values) or None)
        except TypeError:  # a value that cannot be looked up
            return None

    return decided


def _deny_override(chain: Chain) -> Decided:
    denies = chain.may_apply("denies")
    are_texts = chain.are_texts()

    def decided(values: Values, tokens: Tokens) -> bool | None:
        try:
            return not denies(values, tokens) if are_texts(values) else None
        except TypeError:
            return None

    return decided


def _allow_and_deny(chain: Chain) -> Decided:
    allows, denies = chain.applies("allows"), chain.may_apply("denies")
    are_texts = chain.are_texts()

    def decided(values: Values, tokens: Tokens) -> bool | None:
        try:
            if not allows(values, tokens):
                return False
            return not denies(values, tokens) if are_texts(values) else None
        except TypeError:
            return None

    return decided


def _in_order(chain: Chain, effect_of: Callable[[Rule], str]) -> Decided:
    find = find_in(chain, "rules")

    def decided(values: Values, tokens: Tokens) -> bool | None:
        found = find(values, tokens)
        if found is None:
            return None
        for entry in found:
            outcome = entry.rest is None or entry.rest(tokens, entry.rule.fields)
            if outcome is False:
                continue
            effect = effect_of(entry.rule)
            if effect == DENY:
                return False
            if effect == ALLOW and outcome is True:
                return True
        return False

    return decided


_DECIDES: Mapping[EffectKind, Callable[[Chain], Decided]] = {
    EffectKind.ALLOW_OVERRIDE: _allow_override,
    EffectKind.DENY_OVERRIDE: _deny_override,
    EffectKind.ALLOW_AND_DENY: _allow_and_deny,
}
