"""The order in which the rules of a set are asked, which is pycasbin's.

Owns both sorts, each of which leaves rules of equal rank as they stand:

1. where the effect is `subjectPriority(p.eft) || deny`, by the level of the subject in the hierarchy of `g`: nobody
   inherits those of level 0, and every other name stands one above the highest that inherits it;
2. where rules have a field named `priority`, by that, the smallest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.model import EffectKind, Model
from gatebook.values import Edge, Rule

DOMAIN_FIELD = "dom"
PRIORITY_FIELD = "priority"
_Name = tuple[str, str]


def in_order(model: Model, rules: list[Rule], edges: Sequence[Edge], pause: Pause = no_pause) -> list[Rule]:
    """Returns the rules in order.

    Raises:
        ValueError: the hierarchy that gives the order has a cycle.
    """
    effect = model.effects.get("e")
    if effect is not None and effect.kind is EffectKind.SUBJECT_PRIORITY:
        levels = subject_levels([edge for edge in edges if edge.gtype == "g"])
        positions = {key: _position(model, key, DOMAIN_FIELD) for key in model.policies}
        rules = _sorted(rules, lambda rule: levels.get(_subject(rule, positions[rule.ptype]), 0), pause)
    if any(PRIORITY_FIELD in policy.tokens for policy in model.policies.values()):
        rules = _sorted(rules, lambda rule: _priority(model, rule), pause)
    return rules


def subject_levels(edges: Sequence[Edge]) -> Mapping[_Name, int]:
    """Returns the level of each name, in its domain.

    Raises:
        ValueError: the links have a cycle.
    """
    above: dict[_Name, set[_Name]] = {}
    below: dict[_Name, int] = {}
    for edge in edges:
        domain = edge.domains[0] if edge.domains else ""
        child, parent = (domain, edge.child), (domain, edge.parent)
        below.setdefault(child, 0)
        if parent not in above.setdefault(child, set()):
            above[child].add(parent)
            below[parent] = below.get(parent, 0) + 1
    pending = [name for name, count in below.items() if count == 0]
    levels = dict.fromkeys(pending, 0)
    for name in pending:
        for parent in above.get(name, ()):
            levels[parent] = max(levels.get(parent, 0), levels[name] + 1)
            below[parent] -= 1
            if below[parent] == 0:
                pending.append(parent)
    if any(below.values()):
        message = "the links have a cycle"
        raise ValueError(message)
    return levels


def _sorted(rules: list[Rule], rank: Callable[[Rule], int], pause: Pause) -> list[Rule]:
    ranks = [rank(rule) for rule in paced(rules, pause)]
    return [rules[at] for at in sorted(range(len(rules)), key=ranks.__getitem__)]


def _position(model: Model, key: str, field: str) -> int | None:
    tokens = model.policies[key].tokens
    return tokens.index(field) if field in tokens else None


def _subject(rule: Rule, domain: int | None) -> _Name:
    return ("" if domain is None else rule.fields[domain], rule.fields[0])


def _priority(model: Model, rule: Rule) -> int:
    position = _position(model, rule.ptype, PRIORITY_FIELD)
    return 0 if position is None else int(rule.fields[position])
