"""What the SQL of a plan returns is what checks of the rows allow, on a real Trino.

Needs Java 17 (the Debian package default-jdk-headless) and `make build/trino/.ready`, which needs Maven.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.planned import TYPES, Line, as_sent, drawn_plans, require_same
from tests.system.plan_engine import Engine

ROOT = Path(__file__).parents[2]
JARS = ROOT / "build/trino/lib"
SQL_TYPES = {
    "text": "varchar",
    "text[]": "array(varchar)",
    "int": "integer",
    "bigint": "bigint",
    "numeric": "decimal(20, 4)",
    "bool": "boolean",
    "uuid": "uuid",
    "timestamptz": "timestamp(6) with time zone",
    "date": "date",
    "jsonb": "json",
}


class Trino(Engine):
    """Trino, to which rows are told as part of the query, and values of placeholders as SQL."""

    def asked(self, held: Sequence[Mapping[str, Any]], query: str, values: Sequence[Any]) -> dict[str, Any]:
        """Returns what the program is asked."""
        names = ", ".join(["place", *[f'"{name}"' for name in TYPES]])
        told = [
            f"({', '.join([str(place), *[literal(as_sent(row)[name], of) for name, of in TYPES.items()]])})"
            for place, row in enumerate(held)
        ]
        rows_told = f"WITH things({names}) AS (VALUES {', '.join(told)}) "
        return {"sql": rows_told + query, "using": ", ".join(parameter(value) for value in values)}


def literal(value: Any, of: str) -> str:  # noqa: ANN401  # a row holds anything
    """Returns a value of a row as SQL."""
    if value is None:
        return f"CAST(NULL AS {SQL_TYPES[of]})"
    match of:
        case "text[]":
            items = ", ".join(["NULL" if item is None else quoted(item) for item in value])
            return f"CAST(ARRAY[{items}] AS array(varchar))"
        case "bool":
            return str(value).upper()
        case "jsonb":
            return f"json_parse({quoted(json.dumps(value))})"
        case "timestamptz":
            return f"CAST({quoted(value.replace('T', ' ').replace('+00:00', ' UTC'))} AS {SQL_TYPES[of]})"
        case _:
            return f"CAST({quoted(str(value))} AS {SQL_TYPES[of]})"


def parameter(value: Any) -> str:  # noqa: ANN401  # of a placeholder
    """Returns the value of a placeholder as SQL."""
    match value:
        case bool():
            return str(value).upper()
        case int():
            return f"BIGINT '{value}'"
        case float():
            return f"DOUBLE '{value!r}'"
        case bytes():
            return f"X'{value.hex()}'"
        case _:
            return quoted(value)


def quoted(text: str) -> str:
    """Returns a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture(scope="module")
def trino() -> Iterator[Trino]:
    """A Trino that runs plans."""
    if not JARS.is_dir() or shutil.which("java") is None:
        pytest.skip("needs Java and Trino: install default-jdk-headless and maven, and call `make build/trino/.ready`")
    program = str(Path(__file__).with_name("trino") / "PlanEngine.java")
    command = ["java", "-Xmx1g", "-cp", f"{JARS}/*", program]
    with Trino(command, '"', "CAST(at_timezone({}, 'UTC') AS varchar)", os.environ) as engine:
        yield engine


@pytest.mark.timeout(600)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn_plans
def test_rows_and_values_are_those_of_checks(
    trino: Trino, policy: list[Line], held: list[dict[str, Any]], columns: list[str], allow_partial: bool
) -> None:
    """A plan returns the rows that checks of each allow, with the values that masks leave; or less, and says so."""
    require_same(
        policy,
        held,
        columns,
        "trino",
        lambda statement: trino.selected(held, statement),
        allow_partial=allow_partial,
    )
