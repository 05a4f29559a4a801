"""An engine in a process of its own, which runs the SQL of plans line by line."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

from tests.planned import TYPES, as_sent, bound

from gatebook.sql.statement import Statement

STOP_SECONDS = 30


class Engine:
    """Runs plans in a process that answers each line of JSON with a line `answer {...}`; see `spark_engine.py`."""

    def __init__(self, command: Sequence[str], quote: str, time: str, environment: Mapping[str, str]) -> None:
        """Takes the command, the sign that names are quoted with, and what is shown of a time (`{}`)."""
        self._quote, self._time = quote, time
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(environment),
        )

    def __enter__(self) -> Self:
        """Returns the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def selected(self, held: Sequence[Mapping[str, Any]], statement: Statement) -> dict[int, dict[str, Any]]:
        """Runs a plan over rows; returns those that it selects by their places."""
        shown = [f"{self._shown(name, sql)} AS {self._quoted(name)}" for name, sql in statement.columns.items()]
        where = f" WHERE {statement.filter_sql}" if statement.filter_sql else ""
        query = f"SELECT {', '.join((*shown, 'place'))} FROM things{where}"  # noqa: S608  # that is what is tested
        found = self._answer(self.asked(held, query, bound(statement.parameters)))
        return {row.pop("place"): {name: fetched(row[name], TYPES[name]) for name in row} for row in found}

    def found(self, held: Sequence[Mapping[str, Any]], query: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Runs a query over rows; returns what it finds."""
        return self._answer(self.asked(held, query, values))

    def asked(self, held: Sequence[Mapping[str, Any]], query: str, values: Sequence[Any]) -> dict[str, Any]:
        """Returns what the program is asked."""
        return {
            "types": TYPES,
            "rows": [as_sent(row) for row in held],
            "sql": query,
            "parameters": [{"hex": value.hex()} if isinstance(value, bytes) else value for value in values],
        }

    def _answer(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                answer = json.loads(line.removeprefix("answer "))
                if "error" in answer:
                    raise AssertionError(f"{answer['error']}\n{asked['sql']}")
                found: list[dict[str, Any]] = answer["rows"]
                return found
        raise AssertionError("the engine ended")

    def _shown(self, name: str, sql: str) -> str:
        return self._time.format(sql) if TYPES[name] == "timestamptz" else sql

    def _quoted(self, name: str) -> str:
        return f"{self._quote}{name}{self._quote}"


def fetched(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value of an engine as the rows have it."""
    if value is None:
        return None
    match of:
        case "numeric":
            return Decimal(value)
        case "timestamptz":
            if isinstance(value, str):
                return dt.datetime.fromisoformat(value.replace(" UTC", "+00:00"))
            return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=value)
        case "date":
            return dt.date.fromisoformat(value)
        case "uuid":
            return uuid.UUID(value)
        case "jsonb":
            return json.loads(value)
        case _:
            return value
