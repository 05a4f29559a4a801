"""Says which rules came near to allowing a request, and what they lacked.

Owns the explanation of a denial. Near are the allow rules about the same resource and action, else, where
there are none, those about the same subject; the nearest lack the fewest parts of their matcher. An explanation names
ids and rules, never the values of attributes or rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from gatebook.compiler.index import Entry, Outcome
from gatebook.compiler.outcomes import outcomes
from gatebook.compiler.program import Program
from gatebook.compiler.section import Section, with_conditions
from gatebook.compiler.split import EVAL, alternatives, conjuncts
from gatebook.compiler.timed import without_time
from gatebook.expression.residual import residual
from gatebook.expression.text import to_text
from gatebook.expression.tree import Call, Expression, Path
from gatebook.expression.truth import evaluate
from gatebook.values import NearRule, RuleRef

NEAR_MAX = 10
LOOKED_AT_MAX = 200
"""How many rules of each kind of nearness are looked at, in the order of the policy."""

_ROLE_OPERANDS = 2


def explain(program: Program, tokens: Mapping[str, Any]) -> tuple[NearRule, ...]:
    """Returns the allow rules nearest to a request, at most 10, those that lack least first.

    `tokens` are those of `bind`, or of `governed_tokens` with `obj`, the node of a column.
    """
    near: list[Entry] = []
    plan = program.near.plan(program.near.read(tokens), tokens)
    for group in ("about_resource", "about_subject"):
        found = islice(outcomes(plan[group], tokens), LOOKED_AT_MAX)
        near = near or [entry for entry, outcome in found if outcome is True]
    judged = [(_lacked(program.main, entry, tokens), entry) for entry in near]
    judged.sort(key=lambda it: (len(it[0]), it[1].order))
    return tuple(
        NearRule(RuleRef(entry.rule.text, entry.rule.file, entry.rule.line, program.effect_of(entry.rule)), lacked)
        for lacked, entry in judged[:NEAR_MAX]
        if lacked
    )


def _lacked(section: Section, entry: Entry, tokens: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns what the alternative of the matcher that is nearest lacks."""
    fields = dict(zip(section.names, entry.rule.fields, strict=True))
    judge = _Judge(section, fields, section.rules[entry.order].conditions, tokens)
    return min((tuple(judge.lacked(parts)) for parts in alternatives(section.matcher.expression)), key=len)


class _Judge:
    """Says what one rule lacks for one request. Lives for one rule."""

    def __init__(
        self,
        section: Section,
        fields: Mapping[str, str],
        conditions: Mapping[str, Expression],
        tokens: Mapping[str, Any],
    ) -> None:
        self._section = section
        self._conditions = conditions
        self._environment = {section.sections.request: tokens, section.key: fields}
        self._blind = "row" in tokens and tokens["row"] is None

    def lacked(self, parts: Iterable[Expression]) -> Iterator[str]:
        """Yields in words each part that is not true."""
        for part in self._flat(parts):
            outcome = self._outcome(part)
            if outcome is not True:
                yield self._words(part, outcome)

    def _flat(self, parts: Iterable[Expression]) -> Iterator[Expression]:
        """Opens conditions, so that each of their parts is named on its own."""
        for part in parts:
            if isinstance(part, Call) and part.op == EVAL:
                yield from conjuncts(with_conditions(part, self._conditions))
            else:
                yield with_conditions(part, self._conditions)

    def _outcome(self, part: Expression) -> Outcome:
        if self._blind:
            return residual(part, self._environment, self._section.functions)
        value = evaluate(part, self._environment, self._section.functions)
        return value if isinstance(value, bool) else None

    def _words(self, timed: Expression, outcome: Outcome) -> str:
        part = without_time(timed)
        match part:
            case Call(op, (Path() as child, Path() as parent, *_)) if (
                op in self._section.model.roles and outcome is False
            ):
                return f"{self._value(child)} does not inherit {self._value(parent)} by `{op}`"
            case Call("eq", (Path() as left, Path() as right)) if outcome is False:
                request, field = (right, left) if left.names[0] == self._section.key else (left, right)
                return f"`{to_text(request)}` is not {self._value(field)}"
        if outcome is False:
            return f"not true: `{to_text(part)}`"
        if outcome is None:
            return f"unknown, since a value is missing or of another type: `{to_text(part)}`"
        return f"depends on the row: `{to_text(part)}`"

    def _value(self, path: Path) -> str:
        """Names what a path stands for: an id or a field of a rule, but no attribute."""
        if path.names[0] == self._section.key or len(path.names) == _ROLE_OPERANDS or path.names[2:] == ("id",):
            return f"`{evaluate(path, self._environment)}`"
        return f"`{to_text(path)}`"
