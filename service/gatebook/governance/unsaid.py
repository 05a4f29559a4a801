"""What was too hard for a proof: a condition, where it stands, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from gatebook.governance.possible import Spot
from gatebook.governance.rules import CONDITION
from gatebook.governance.symbolic import Guess
from gatebook.policy.guardrails import Form
from gatebook.policy.model import walk, without_spans
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.rule_text import read_condition
from gatebook.policy.rules_file import field_column

NAMED_MAX = 20
_CALCULATED = frozenset(("add", "sub", "mul", "div", "mod", "neg"))
_INSTEAD = {
    "regexMatch": "compare with `==`, `in` a list, or `keyMatch` with a constant prefix",
    "eq": "ask with `in` whether a value is in the list",
    "in": "look for a text, number or truth value, not for a list",
}


class Unsaid(msgspec.Struct, frozen=True):
    """A part of a condition that the solver knows too little of."""

    text: str
    file: str
    line: int
    column: int
    instead: str


def unsaid_of(policy_set: PolicySet, spot: Spot, form: Form, guesses: Sequence[Guess]) -> tuple[Unsaid, ...]:
    """Returns the parts of the conditions of a spot's rules, and of a form, that were guessed."""
    hard = {repr(without_spans(guess.expression)): guess for guess in guesses}
    found = dict.fromkeys(_in_rules(policy_set, spot, hard))
    where = form.who.where
    if where is not None:
        found |= dict.fromkeys(
            Unsaid(
                where.text[node.span.start : node.span.end],
                "guardrails.yaml",
                where.line,
                where.column,
                _instead(hard[key]),
            )
            for node in walk(where.tree)
            if (key := repr(without_spans(node))) in hard
        )
    return tuple(found)[:NAMED_MAX]


def _in_rules(policy_set: PolicySet, spot: Spot, hard: dict[str, Guess]) -> Iterator[Unsaid]:
    for rule in spot.rules:
        text = rule.fields[CONDITION]
        for node in walk(read_condition(policy_set.model, text)) if hard else ():
            guess = hard.get(repr(without_spans(node)))
            if guess is not None:
                part = text[node.span.start : node.span.end]
                yield Unsaid(
                    part, rule.file, rule.line, field_column(rule, CONDITION) + node.span.start, _instead(guess)
                )


def _instead(guess: Guess) -> str:
    if guess.op in _CALCULATED:
        return "compare with a constant, or calculate with whole numbers and a constant alone"
    return _INSTEAD.get(guess.op, "compare with `==`, `in` a list, `<`, or `keyMatch` with a constant prefix")
