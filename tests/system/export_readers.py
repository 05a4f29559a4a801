"""Reads a Parquet export with pandas and with Spark: a program for the environment in build/spark.

Takes the folder of the export and one for Spark; prints for each reader what it found, as one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession


def by_pandas(folder: str) -> dict[str, Any]:
    """Returns what pandas finds."""
    frame = pd.read_parquet(folder)
    denied = frame[frame["effect"] == "deny"]
    first = frame.sort_values("index").iloc[0]
    return {
        "indexes": sorted(int(each) for each in frame["index"]),
        "denials": {str(day): int(count) for day, count in denied.groupby("day", observed=True).size().items()},
        "leaf": bytes(first["leaf_hash"]).hex(),
        "time": int(first["time"].value // 1_000),
        "columns": sum(len(each) for each in frame["columns"] if each is not None),
        "types": [str(frame[name].dtype) for name in ("index", "time")],
    }


def by_spark(folder: str, warehouse: str) -> dict[str, Any]:
    """Returns what Spark finds."""
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "America/New_York")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.warehouse.dir", warehouse)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("OFF")
    spark.read.parquet(folder).createOrReplaceTempView("lake")

    def rows(query: str) -> list[Any]:
        return list(spark.sql(query).collect())

    denials = rows("SELECT CAST(day AS STRING), count(*) FROM lake WHERE effect = 'deny' GROUP BY 1")
    [first] = rows("SELECT hex(leaf_hash), unix_micros(time) FROM lake WHERE `index` = 0")
    [columns] = rows("SELECT sum(size(columns)) FROM lake WHERE columns IS NOT NULL")
    found = {
        "indexes": [row[0] for row in rows("SELECT `index` FROM lake ORDER BY 1")],
        "denials": dict(tuple(row) for row in denials),
        "leaf": first[0].lower(),
        "time": first[1],
        "columns": columns[0],
        "types": [dict(spark.table("lake").dtypes)[name] for name in ("index", "time")],
    }
    spark.stop()
    return found


if __name__ == "__main__":
    print(json.dumps({"pandas": by_pandas(sys.argv[1]), "spark": by_spark(*sys.argv[1:])}))  # noqa: T201  # its answer
