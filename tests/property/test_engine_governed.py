"""Compiled equals reference equals Casbin, for the governed model."""

from __future__ import annotations

import itertools
import logging
from types import SimpleNamespace
from typing import Any

import casbin
from casbin.core_enforcer import EnforceContext
from casbin.persist.adapters import StringAdapter
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.governed import GOVERNED_MODEL
from tests.property.governed_sets import (
    ACTIONS,
    CATALOGUE,
    COLUMNS,
    PURPOSES,
    SUBJECTS,
    TWO_WAYS,
    governed_policies,
    governed_set,
)
from tests.property.strategies import ATTRIBUTES, holed

from gatebook.compiler.program import Program, compile_program
from gatebook.engine.evaluate import evaluate_columns
from gatebook.engine.reference import Reference
from gatebook.engine.verdict import Applicable, ColumnVerdict
from gatebook.expression.operations import conjunction
from gatebook.expression.truth import evaluate as truth_of
from gatebook.policy.model import without_spans
from gatebook.values import Effect, Rule

logging.getLogger("casbin").setLevel(logging.CRITICAL)

SECTIONS = {key: EnforceContext("r", key, "e", f"m{key[1:]}") for key in ("p", "p2", "p3")}
HOLED = holed(ATTRIBUTES)
COMPLETE = (governed_policies(), ATTRIBUTES, ATTRIBUTES, ATTRIBUTES)
STRANGE = (governed_policies(), st.sampled_from((GOVERNED_MODEL, TWO_WAYS)), HOLED, HOLED, st.none() | HOLED)
ROWS = (governed_policies(), HOLED, HOLED, HOLED)
NULLS = (*COMPLETE, st.data())


def questions(attributes: dict[str, Any], context: dict[str, Any], row: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Returns a request for each subject, action and purpose."""
    return [
        {
            "subject": subject,
            "attributes": attributes,
            "columns": COLUMNS,
            "action": action,
            "purpose": purpose,
            "context": context,
            "row": row,
        }
        for subject, action, purpose in itertools.product((*SUBJECTS, "role1"), ACTIONS, (*PURPOSES, "other"))
    ]


def placeless(verdicts: tuple[ColumnVerdict, ...]) -> list[object]:
    """Leaves out where in the policy the parts of a condition stand: several of them may say the same."""

    def without(applicable: Applicable) -> tuple[Rule, object]:
        return applicable.rule, None if applicable.condition is None else without_spans(applicable.condition)

    return [
        (it.column, it.effect, it.reason, it.rules, [*map(without, it.masks)], [*map(without, it.groups)])
        for it in verdicts
    ]


class CasbinOracle:
    """Asks Casbin about one rule at a time, since its answer names no more than one."""

    def __init__(self, policy: str) -> None:
        """Takes the text of the rules."""
        model = casbin.Model()
        model.load_model_from_text(GOVERNED_MODEL)
        self._enforcer = casbin.Enforcer(model, StringAdapter(policy + CATALOGUE))

    def allows(self, question: dict[str, Any], column: str) -> bool:
        """Tells what Casbin answers for a column; it cannot be asked without rules, and no rule is no allow."""
        return bool(self._enforcer.get_policy()) and bool(
            self._enforcer.enforce(SECTIONS["p"], *self._values(question, column))
        )

    def matches(self, rule: Rule, question: dict[str, Any], column: str) -> bool:
        """Tells whether a p2 or p3 rule matches."""
        assertion = self._enforcer.model["p"][rule.ptype]
        everything, assertion.policy = assertion.policy, [list(rule.fields)]
        try:
            return bool(self._enforcer.enforce(SECTIONS[rule.ptype], *self._values(question, column)))
        finally:
            assertion.policy = everything

    def _values(self, question: dict[str, Any], column: str) -> list[Any]:
        subject = SimpleNamespace(**question["attributes"], id=question["subject"])
        context, row = SimpleNamespace(**question["context"]), SimpleNamespace(**question["row"])
        return [subject, column, question["action"], question["purpose"], context, row]


@settings(max_examples=50)
@given(*COMPLETE)
def test_compiled_equals_reference_equals_casbin(
    policy: str, attributes: dict[str, Any], context: dict[str, Any], row: dict[str, Any]
) -> None:
    """With complete values, a column is allowed, and a mask and group rule applies, exactly where Casbin says so."""
    policy_set = governed_set(policy)
    program, reference, oracle = compile_program(policy_set, None), Reference(policy_set), CasbinOracle(policy)
    for question in questions(attributes, context, row):
        verdicts = evaluate_columns(program, **question)
        assert reference.evaluate_columns(**question) == verdicts
        for column, verdict in zip(COLUMNS, verdicts, strict=True):
            assert oracle.allows(question, column) == (verdict.effect is Effect.ALLOW)
            if verdict.effect is Effect.ALLOW:
                expected = [
                    Applicable(rule, None)
                    for rule in policy_set.rules
                    if rule.ptype != "p" and oracle.matches(rule, question, column)
                ]
                assert sorted(expected, key=str) == sorted((*verdict.masks, *verdict.groups), key=str)


@settings(max_examples=60)
@given(*STRANGE)
def test_strange_values_never_part_them(
    policy: str, model: str, attributes: dict[str, Any], context: dict[str, Any], row: dict[str, Any] | None
) -> None:
    """Whatever is missing, null or of the wrong type, and without a row, compiled equals reference."""
    policy_set = governed_set(policy, model)
    program, reference = compile_program(policy_set, None), Reference(policy_set)
    for question in questions(attributes, context, row):
        assert placeless(reference.evaluate_columns(**question)) == placeless(evaluate_columns(program, **question))


@settings(max_examples=60)
@given(*ROWS)
def test_an_unknown_row_only_narrows(
    policy: str, attributes: dict[str, Any], context: dict[str, Any], row: dict[str, Any]
) -> None:
    """What is allowed without a row is allowed with any row, under masks and groups that hold where they apply."""
    program = compile_program(governed_set(policy), None)
    for question in questions(attributes, context, None):
        for blind, seeing in zip(
            evaluate_columns(program, **question), evaluate_columns(program, **{**question, "row": row}), strict=True
        ):
            if blind.effect is Effect.ALLOW:
                assert seeing.effect is Effect.ALLOW
                assert applying(seeing, row) == applying(blind, row)


@settings(max_examples=60)
@given(*NULLS)
def test_nulls_never_open(
    policy: str, attributes: dict[str, Any], context: dict[str, Any], row: dict[str, Any], data: st.DataObject
) -> None:
    """A value made null turns no deny into an allow, and takes no mask or group away."""
    program = compile_program(governed_set(policy), None)
    emptied = [
        {
            name: None if name in data.draw(st.sets(st.sampled_from(sorted(values)))) else value
            for name, value in values.items()
        }
        for values in (attributes, context, row)
    ]
    for full, emptier in zip(questions(attributes, context, row), questions(*emptied), strict=True):
        for before, after in zip(evaluate_columns(program, **full), evaluate_columns(program, **emptier), strict=True):
            if after.effect is Effect.ALLOW:
                assert before.effect is Effect.ALLOW
                assert set(applying(before, row)) <= set(applying(after, row))


def applying(verdict: ColumnVerdict, row: dict[str, Any]) -> list[Rule]:
    """Returns the mask and group rules that apply to a row: where their condition is true or unknown."""
    return [
        it.rule
        for it in (*verdict.masks, *verdict.groups)
        if it.condition is None or conjunction([truth_of(it.condition, {"row": row})]) is not False
    ]


def test_programs_of_one_set_are_equal_in_answers() -> None:
    """The order of rules in the file changes no answer of a governed set, but for the order of what is named."""
    lines = [
        "p, role1, t, read, *, True, allow",
        "p, role1, t.b, read, train, r.row.level > 2, deny",
        "p2, role1, t, read, *, True, hash",
        "p2, role1, t.a, read, *, True, nullify",
        "g, ana, role1",
    ]
    programs: list[Program] = [
        compile_program(governed_set("".join(f"{line}\n" for line in order)), None)
        for order in (lines, list(reversed(lines)))
    ]
    (question, *_) = questions({}, {}, None)

    answers = [
        [
            (it.effect, it.reason, {rule.text for rule in it.rules}, {mask.rule.text for mask in it.masks})
            for it in found
        ]
        for found in (evaluate_columns(program, **question) for program in programs)
    ]
    assert answers[0] == answers[1]
