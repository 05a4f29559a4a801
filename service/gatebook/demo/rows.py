"""What is stored, beside what a reader got: rows and groups as cells of a table, and what must not be in them.

Pure but for the company's store, which only the narrator reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from gatebook.demo.company import Company
from gatebook.demo.question import Outcome, Question
from gatebook.demo.stage import Cell

ROWS_SHOWN = 2
GROUPS_SHOWN = 3
CELL_WIDTH = 60
KEEPING = frozenset({"NONE"})
"""Masks that show a value as it is."""
COARSE = frozenset({"BAND", "TRUNCATE"})
"""Masks under which a value may happen to be as it was: a band begins somewhere, and so does a day."""

Shown = tuple[Sequence[str], list[list[Cell]], Sequence[str]]
"""Headings, rows, and the headings of columns with numbers."""


def shown_rows(company: Company, question: Question, outcome: Outcome) -> Shown:
    """Shows a few rows, each as it is stored and as the reader got it where that differs."""
    columns = tuple(outcome.got[0])
    table: list[list[Cell]] = []
    stored_rows = company.rows(question, columns, ROWS_SHOWN)
    if stored_rows == list(outcome.got[:ROWS_SHOWN]):
        return columns, [[cell(row[name]) for name in columns] for row in stored_rows], ()
    for stored, got in zip(stored_rows, outcome.got, strict=False):
        table.append([Text("stored", "dim"), *(Text(cell(stored[name]), "dim") for name in columns)])
        table.append([Text("got"), *(after(stored[name], got[name]) for name in columns)])
    return ("", *columns), table, ()


def after(stored: object, got: object) -> Text:
    """Returns what a reader got of a value, in colour where it is not what is stored."""
    return Text(cell(got), "" if stored == got else "yellow")


def shown_groups(company: Company, question: Question, outcome: Outcome) -> Shown:
    """Shows the first groups and the remainder."""
    del company
    named = [group for group in outcome.got if any(group[column] is not None for column in question.by)]
    rest = [group for group in outcome.got if group not in named]
    table: list[list[Cell]] = [[cell(value) for value in group.values()] for group in named[:GROUPS_SHOWN]]
    if len(named) > GROUPS_SHOWN:
        table.append([Text(f"... {len(named) - GROUPS_SHOWN} more", "dim"), *("" for _ in question.measures)])
    width = len(question.by)
    for group in rest:
        key = Text("all others, together", "yellow")
        table.append([key, *("" for _ in range(width - 1)), *(cell(group[name]) for name in question.measures)])
    return (*question.by, *question.measures), table, tuple(question.measures)


def hidden(outcome: Outcome) -> tuple[str, ...]:
    """Returns the columns whose values must not be those that are stored."""
    return tuple(column for column, kind in outcome.masks.items() if kind not in KEEPING | COARSE)


def leaks(company: Company, question: Question, outcome: Outcome) -> Iterator[str]:
    """Yields each masked value that left as it is stored."""
    if question.by or not outcome.got:
        return
    stored_rows = company.rows(question, tuple(outcome.got[0]), len(outcome.got))
    if len(stored_rows) != len(outcome.got):
        yield f"{len(outcome.got)} rows left, but {len(stored_rows)} are stored"
    for stored, got in zip(stored_rows, outcome.got, strict=False):
        for column in hidden(outcome):
            if got[column] is not None and got[column] == stored[column]:
                yield f"`{question.dataset}.{column}` left in clear"
    yield from (
        f"`{question.dataset}.{name}` was not asked for" for name in outcome.got[0] if name not in question.columns
    )


def cell(value: Any, width: int = CELL_WIDTH) -> str:  # noqa: ANN401  # a value of JSON
    """Returns a value as the text of a cell, cut to a width."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case str() if value.endswith("Z") and value[10:11] == "T":
            return f"{value[:10]} {value[11:16]}"
        case Mapping():
            return ", ".join(f"{name}: {cell(item)}" for name, item in value.items())
        case list():
            return ", ".join(cell(item) for item in value)
        case _:
            text = str(value)
            return text if len(text) <= width else text[: width - 3] + "..."
