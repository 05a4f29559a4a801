"""The shipped set `gatebook`: what is kept before the row is known, and what Casbin answers with it."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from tests.property.agreement import casbin_token

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.permission import permission
from gatebook.engine.reference import Reference
from gatebook.expression.environment import Named
from gatebook.policy.gatebook_set import ACTS, OPERATIONS, shape_findings
from gatebook.policy.oracle import Oracle
from gatebook.policy.policy_set import load
from gatebook.policy.shipped import shipped_gatebook
from gatebook.values import Effect

FILES = shipped_gatebook()
ROLES = ("service", "person", "author", "publisher", "registrar", "keeper", "auditor", "operator")
GRANTS = "".join(f"g, cn:{role}, role:{role}\n" for role in ROLES) + "g, token, role:person\n"
GRANTED = {**FILES, "policy.csv": FILES["policy.csv"] + GRANTS.encode()}
SET = load(GRANTED, "gatebook")
PROGRAM, REFERENCE, ORACLE = compile_program(SET, None), Reference(SET), Oracle(GRANTED)

IDS = st.sampled_from(["local", "cn:stranger", "corp:farah", *(f"cn:{role}" for role in ROLES)])
OBJECTS = st.sampled_from([*OPERATIONS, "employee", "agent", "policy_set", "directory", "decision", "policy", "*"])
NAMES = st.sampled_from(["farah", "kai", "employee", "agent", "cn:service", "cn:stranger", "local"])
ROWS = st.fixed_dictionaries(dict.fromkeys(("type", "id", "caller", "subject_type", "subject_id"), NAMES))
PERSON = {"subject_type": "employee", "subject_id": "farah"}
FARAH = {"type": "employee", "id": "farah", "caller": "local", **PERSON}


@given(
    caller=IDS,
    kind=st.sampled_from(["local", "certificate", "token"]),
    person=st.fixed_dictionaries(dict.fromkeys(PERSON, NAMES)),
    obj=OBJECTS,
    act=st.sampled_from(ACTS),
    name=st.sampled_from(["", "basic", "gatebook"]),
    dev=st.booleans(),
    row=ROWS,
)
@example(
    caller="corp:farah", kind="token", person=PERSON, obj="employee", act="ask", name="basic", dev=False, row=FARAH
)
@example(
    caller="cn:keeper",
    kind="certificate",
    person=PERSON,
    obj="policy_set",
    act="publish",
    name="gatebook",
    dev=False,
    row=FARAH,
)
def test_what_is_kept_is_what_casbin_answers(
    caller: str, kind: str, person: dict[str, str], obj: str, act: str, name: str, dev: bool, row: dict[str, Any]
) -> None:
    """With complete values the permission for a row, the engine, the reference and Casbin give one answer."""
    attributes = {**person, "id": caller, "kind": kind}
    tokens = {"sub": Named(caller, attributes), "obj": obj, "act": act, "set": name, "ctx": {"dev": dev}, "row": row}
    kept = permission(PROGRAM, {**tokens, "row": None})
    context, known = casbin_token("", {"dev": dev}), casbin_token("", row)
    expected = ORACLE.enforce(casbin_token(caller, attributes), obj, act, name, context, known)

    assert expected == (evaluate(PROGRAM, tokens).effect is Effect.ALLOW)
    assert expected == (REFERENCE.evaluate(tokens).effect is Effect.ALLOW)
    assert expected == (kept if isinstance(kept, bool) else kept.permits(row))


@given(IDS, OBJECTS, st.sampled_from(ACTS), st.dictionaries(st.sampled_from(["type", "id", "caller"]), NAMES))
def test_what_is_missing_allows_nothing_more(caller: str, obj: str, act: str, row: dict[str, str]) -> None:
    """A row with holes is never permitted what the engine does not allow for it."""
    tokens = {"sub": Named(caller, {"id": caller, "kind": "token"}), "obj": obj, "act": act, "set": "", "ctx": {}}
    kept = permission(PROGRAM, {**tokens, "row": None})

    expected = evaluate(PROGRAM, {**tokens, "row": row}).effect is Effect.ALLOW
    assert expected == (kept if isinstance(kept, bool) else kept.permits(row))


def test_the_shipped_set_fits_the_door() -> None:
    """Nothing is found in the shipped set, not even a warning."""
    assert [] == shape_findings(load(FILES, "gatebook"))
