"""Compiled equals reference on the telemetry set, for subjects of any roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate_columns
from gatebook.engine.reference import Reference
from gatebook.policy.bundle import read_folder
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.policy_set import load
from gatebook.values import Reason

SET = load(read_folder(Path("policies/telemetry")))
assert SET.catalogue is not None
assert SET.purposes is not None
DATASETS = SET.catalogue.datasets
ROLES = sorted({rule.fields[0] for rule in SET.rules})
PURPOSES = [*sorted(edge.child for edge in SET.purposes.edges()), "no_purpose"]
VALUES = st.none() | st.booleans() | st.integers(0, 10) | st.sampled_from(("DE", "EE", "US", "corp", "vpn"))
NAMES = st.sampled_from(("level", "jurisdiction", "country", "network", "is_secure_field", "agent", "team", "status"))


@settings(max_examples=60)
@given(
    st.sets(st.sampled_from(ROLES), max_size=4),
    st.sampled_from(sorted(DATASETS)),
    st.sampled_from(SET.settings.actions),
    st.sampled_from(PURPOSES),
    st.tuples(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES)),
    st.none() | st.dictionaries(NAMES, VALUES),
)
def test_compiled_equals_reference(
    roles: set[str],
    dataset: str,
    action: str,
    purpose: str,
    attributes: tuple[dict[str, Any], dict[str, Any]],
    row: dict[str, Any] | None,
) -> None:
    """The compiled program answers for every column what the definition does, reasons and obligations included."""
    directory = Directory("", {"ana": Subject("person", "ana", {}, tuple(sorted(roles)), "people.csv", 1)})
    question: dict[str, Any] = {
        "subject": "ana",
        "attributes": attributes[0],
        "columns": [column.node for column in DATASETS[dataset].columns.values()],
        "action": action,
        "purpose": purpose,
        "context": attributes[1],
        "row": row,
    }

    expected = Reference(SET, directory).evaluate_columns(**question)
    assert expected == evaluate_columns(compile_program(SET, directory), **question)


def test_the_set_says_something_of_everything() -> None:
    """Every dataset is open to somebody for some purpose, so that the comparison above meets allows."""
    directory = Directory("", {"ana": Subject("person", "ana", {"level": 9}, tuple(ROLES), "people.csv", 1)})
    program = compile_program(SET, directory)
    met = set()
    for dataset in DATASETS.values():
        for action in SET.settings.actions:
            for purpose in PURPOSES:
                columns = [column.node for column in dataset.columns.values()]
                for verdict in evaluate_columns(
                    program,
                    subject="ana",
                    attributes={"level": 9},
                    columns=columns,
                    action=action,
                    purpose=purpose,
                    context={"network": "corp"},
                    row=None,
                ):
                    met.add(verdict.reason)

    assert {Reason.ALLOWED, Reason.NO_MATCHING_RULE, Reason.PURPOSE_NOT_GRANTED, Reason.DENIED_BY_RULE} <= met
