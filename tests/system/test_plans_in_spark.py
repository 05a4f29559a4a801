"""What the SQL of a plan returns is what checks of the rows allow, on a real Spark.

Needs Java 17 or newer (the Debian package default-jdk-headless) and `make build/spark/.ready`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.planned import IDS, THINGS, TYPES, Line, checked, drawn_plans, planned, require_same, snapshot_of
from tests.system.plan_engine import Engine

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build/spark/bin/python"


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Spark that runs plans."""
    if not PYTHON.exists() or shutil.which("java") is None:
        pytest.skip("needs Java and pyspark: install default-jdk-headless, and call `make build/spark/.ready`")
    folder = tmp_path_factory.mktemp("warehouse")
    environment = {**os.environ, "PYSPARK_PYTHON": str(PYTHON), "SPARK_LOCAL_IP": "127.0.0.1"}
    program = str(Path(__file__).with_name("spark_engine.py"))
    with Engine([str(PYTHON), program, str(folder)], "`", "unix_micros({})", environment) as engine:
        yield engine


@pytest.mark.timeout(600)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn_plans
def test_rows_and_values_are_those_of_checks(
    spark: Engine, policy: list[Line], held: list[dict[str, Any]], columns: list[str], allow_partial: bool
) -> None:
    """A plan returns the rows that checks of each allow, with the values that masks leave; or less, and says so."""
    require_same(
        policy,
        held,
        columns,
        "spark",
        lambda statement: spark.selected(held, statement),
        allow_partial=allow_partial,
    )


@pytest.mark.parametrize(("ref", "is_allowed"), [(f"{IDS[1]}\n", False), (f"{IDS[1]}".upper(), True), ("x", False)])
def test_what_is_no_uuid(spark: Engine, ref: str, is_allowed: bool) -> None:
    """A text that is almost a uuid is none, and what a rule says of it is unknown."""
    snapshot = snapshot_of([("p", f"{THINGS}.small", f"r.row.ref != '{IDS[0]}'", "allow")])
    _, statement = planned(snapshot, ["small"], "spark")
    row = {**dict.fromkeys(TYPES), "ref": ref}
    assert (checked(snapshot, ["small"], row) is not None) == is_allowed
    assert len(spark.selected([row], statement)) == is_allowed
