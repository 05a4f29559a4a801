"""The groups of a plan are those that the client finds in the rows, on a real Spark and a real Trino."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conformance.test_groups_in_sql import plan_of, raw_decision
from tests.planned import TYPES
from tests.system.plan_engine import Engine
from tests.system.test_plans_in_spark import spark as spark  # noqa: PLC0414  # a fixture
from tests.system.test_plans_in_trino import trino as trino  # noqa: PLC0414  # as above

from gatebook_client.groups import Measure, aggregate

MEASURES: dict[str, Measure] = {"many": ("count", "*"), "people": ("distinct", "name"), "total": ("sum", "small")}
COLUMNS = ("name", "other", "small")
held_rows = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from([*"abcdefgh", None]),
            "other": st.sampled_from(["red", "blue", "it's", None]),
            "small": st.none() | st.integers(0, 9),
        }
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("dialect", ["spark", "trino"])
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(held_rows, st.integers(1, 5), st.sampled_from([["other"], []]), st.booleans())
def test_groups_and_remainder(
    request: pytest.FixtureRequest,
    dialect: str,
    held: list[dict[str, Any]],
    k: int,
    by: list[str],
    some: bool,  # drawn
) -> None:
    """Groups and remainder are those of the client, of the rows that the application's condition keeps."""
    engine: Engine = request.getfixturevalue(dialect)
    where = [("small", ">=", 2), ("other", "<>", "red")] if some else []
    plan = plan_of(k, dialect, columns=COLUMNS, person="name")
    sql, parameters = plan.aggregate(by=by, measures=MEASURES, where=where, stored_as=("things",))
    values = list(parameters.values()) if isinstance(parameters, dict) else parameters
    kept = (
        [row for row in held if (row["small"] or 0) >= 2 and row["other"] not in ("red", None)] if some else held
    )  # as wanted

    whole = [{**dict.fromkeys(TYPES), **row} for row in held]
    found = engine.found(whole, f"SELECT * FROM ({sql}) AS planned", values)  # noqa: S608  # that is what is tested

    decision = raw_decision(k, columns=COLUMNS, person="name")
    expected = aggregate(decision, kept, by=by, measures=MEASURES)
    assert sorted(map(str, map(sorted_items, expected))) == sorted(map(str, map(sorted_items, found)))


def sorted_items(group: dict[str, Any]) -> list[tuple[str, Any]]:
    """Returns the names and values of a group, in the order of the names."""
    return sorted(group.items())
