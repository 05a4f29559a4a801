"""Runs the SQL of plans on Spark, line by line: a program for the environment in build/spark, which has nothing else.

Reads one JSON object a line: `types` of the columns, `rows`, `sql` and its `parameters` (bytes in hexadecimal); answers
with the rows found, or an `error`.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pyspark.sql import SparkSession

TYPES = {
    "text[]": "array<string>",
    "numeric": "decimal(20, 4)",
    "bool": "boolean",
    "uuid": "string",
    "timestamptz": "timestamp",
    "jsonb": "string",
    "text": "string",
}


def stored(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value as Spark takes it."""
    if value is None:
        return None
    match of:
        case "numeric":
            return Decimal(value)
        case "timestamptz":
            return dt.datetime.fromisoformat(value)
        case "date":
            return dt.date.fromisoformat(value)
        case "jsonb":
            return json.dumps(value)
        case _:
            return value


def told(value: Any) -> Any:  # noqa: ANN401  # as above
    """Returns a value as JSON has it."""
    return str(value) if isinstance(value, (Decimal, dt.date)) else value


def bound(value: Any) -> Any:  # noqa: ANN401  # as above
    """Returns the value of a placeholder."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def answer(spark: Any, asked: Mapping[str, Any]) -> list[dict[str, Any]]:  # noqa: ANN401  # pyspark is not here
    """Runs one plan."""
    types = asked["types"]
    schema = "place int, " + ", ".join(f"`{name}` {TYPES.get(of, of)}" for name, of in types.items())
    rows = [[place, *[stored(row[name], of) for name, of in types.items()]] for place, row in enumerate(asked["rows"])]
    spark.createDataFrame(rows, schema).createOrReplaceTempView("things")
    values = {f"p{number}": bound(value) for number, value in enumerate(asked["parameters"], 1)}
    return [{name: told(row[name]) for name in row.asDict()} for row in spark.sql(asked["sql"], args=values).collect()]


def main() -> None:
    """Answers until there is no more."""
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "America/New_York")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.default.parallelism", "1")
        .config("spark.sql.warehouse.dir", sys.argv[1])
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("OFF")
    for line in sys.stdin:
        try:
            told_back: dict[str, Any] = {"rows": answer(spark, json.loads(line))}
        except Exception as err:  # noqa: BLE001  # whoever asked is told
            told_back = {"error": str(err)[:2000]}
        sys.stdout.write(f"answer {json.dumps(told_back)}\n")
        sys.stdout.flush()
    spark.stop()


if __name__ == "__main__":
    main()
