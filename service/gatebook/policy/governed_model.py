"""The one shape that the model of a governed policy set has.

Owns `RULES` and `MATCHERS`, which every reader of governed rules relies on: a request names a subject, a
column, an action, a purpose, circumstances and a row; `p` rules allow or deny, `p2` rules mask, and `p3`
rules set a minimum group.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.expression.parse import parse
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.draft import Draft
from gatebook.policy.model import EffectKind, Matcher, without_spans
from gatebook.values import Finding

REQUEST = ("sub", "obj", "act", "purpose", "ctx", "row")
RULES = {
    "p": ("sub", "obj", "act", "purpose", "cond", "eft"),
    "p2": ("sub", "obj", "act", "purpose", "cond", "mask"),
    "p3": ("sub", "obj", "act", "purpose", "cond", "k"),
}
ROLES = ("g", "g2", "g3")
MATCHER = (
    "g(r.sub.id, {p}.sub) && g2(r.obj, {p}.obj) && r.act == {p}.act && g3(r.purpose, {p}.purpose) && eval({p}.cond)"
)
MATCHERS = {"m": MATCHER.format(p="p"), "m2": MATCHER.format(p="p2"), "m3": MATCHER.format(p="p3")}


def model_findings(draft: Draft) -> Iterator[Finding]:
    """Finds where the model differs from the governed one."""
    yield from _shape_of_request(draft)
    yield from _shape_of_rules(draft)
    yield from _shape_of_roles(draft)
    yield from _shape_of_effect(draft)
    yield from _shape_of_matchers(draft)


def _shape_of_request(draft: Draft) -> Iterator[Finding]:
    for key, definition in draft.model.requests.items():
        if key != "r" or definition.tokens != REQUEST:
            yield _shape(definition.line, f"[request_definition] r = {', '.join(REQUEST)}")


def _shape_of_rules(draft: Draft) -> Iterator[Finding]:
    for key, tokens in RULES.items():
        definition = draft.model.policies.get(key)
        if definition is None or definition.tokens != tokens:
            yield _shape(definition.line if definition else 0, f"[policy_definition] {key} = {', '.join(tokens)}")
    for key, definition in draft.model.policies.items():
        if key not in RULES:
            yield _shape(definition.line, f"[policy_definition] {', '.join(RULES)} and no other than these")


def _shape_of_roles(draft: Draft) -> Iterator[Finding]:
    for key in ROLES:
        role = draft.model.roles.get(key)
        if role is None or role.arity != 2:  # noqa: PLR2004  # child and parent
            yield _shape(role.line if role else 0, f"[role_definition] {key} = _, _")
    for key, role in draft.model.roles.items():
        if key not in ROLES:
            yield _shape(role.line, f"[role_definition] {', '.join(ROLES)} and no other than these")


def _shape_of_effect(draft: Draft) -> Iterator[Finding]:
    for effect in draft.model.effects.values():
        if effect.kind is not EffectKind.ALLOW_AND_DENY:
            yield _shape(effect.line, f"[policy_effect] e = {EffectKind.ALLOW_AND_DENY.value}")


def _shape_of_matchers(draft: Draft) -> Iterator[Finding]:
    for key, text in MATCHERS.items():
        matcher = draft.model.matchers.get(key)
        if matcher is None or not _is_same(matcher, text):
            yield _shape(matcher.line if matcher else 0, f"[matchers] {key} = {text}")
    for key, matcher in draft.model.matchers.items():
        if key not in MATCHERS:
            yield _shape(matcher.line, f"[matchers] {', '.join(MATCHERS)} and no other than these")


def _shape(line: int, wanted: str) -> Finding:
    message = f"a governed set has the governed model; write `{wanted}`"
    return Finding(MODEL_FILE, line, 0, "GOVERNED_MODEL", message)


def _is_same(matcher: Matcher, text: str) -> bool:
    return without_spans(matcher.expression) == without_spans(parse(text))
