"""The rows of a plan, held against checks: a sample of rows is asked about one by one.

Owns the comparison. The statement of a plan runs on a store that holds the sample alone; beside it each row of the
sample is asked about with all of its values, and what is allowed is masked by the client. Both must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import msgspec

import gatebook_client
from gatebook.demo.actor import DIALECT, result_types, statement_of
from gatebook.demo.company import Company
from gatebook.demo.question import Actor, Question
from gatebook.demo.store import create_tables, read_rows, run_statement

ROWS_EACH = 20
"""How many rows are taken of those that the question should get, and of all others."""
TIMEOUT_SECONDS = 30.0


class Compared(msgspec.Struct, frozen=True):
    """What came of one sample: how many rows were asked about and left, and where plan and checks differ."""

    asked: int
    left: int
    differences: tuple[str, ...]


def compare(company: Company, target: str, actor: Actor, question: Question, keys: Mapping[str, bytes]) -> Compared:
    """Compares the plan of a question with checks of a sample of rows."""
    sample = list(sample_of(company, question))
    subject = (actor.type, actor.subject)
    checks = [
        gatebook_client.Check(subject, question.action, question.dataset, question.columns, question.purpose, row=row)
        for row in sample
    ]
    with gatebook_client.connect_blocking(target, enforcer=actor.name, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        plan = gatebook.plan(
            subject,
            question.action,
            question.dataset,
            dialect=DIALECT,
            columns=question.columns,
            purpose=question.purpose,
        )
        answers = gatebook.check_many(checks)
    whole = msgspec.structs.replace(question, wanted=())
    planned = planned_rows(company, whole, statement_of(plan, whole, keys), sample)
    checked = [
        plain(left)
        for answer, row in zip(answers, sample, strict=True)
        if answer.allowed
        for left in answer.enforce([row], keys=keys)
    ]
    return Compared(len(sample), len(planned), tuple(differences(question, planned, checked)))


def sample_of(company: Company, question: Question) -> Iterator[dict[str, Any]]:
    """Yields rows that a question should get, and others, with all of their columns."""
    dataset = company.catalogue.datasets[question.dataset]
    others = f"({question.where}) IS NOT TRUE" if question.where else "FALSE"
    with duckdb.connect(str(company.store), read_only=True) as connection:
        for where in (question.where, others):
            yield from read_rows(connection, dataset, tuple(dataset.columns), where=where, limit=ROWS_EACH)


def planned_rows(
    company: Company, question: Question, statement: gatebook_client.Statement, sample: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns what a statement leaves of a sample."""
    dataset = company.catalogue.datasets[question.dataset]
    with duckdb.connect() as connection:
        create_tables(connection, [dataset])
        table = ".".join(f'"{part}"' for part in dataset.id.split("."))
        places = ", ".join("?" for _ in dataset.columns)
        connection.executemany(
            f"INSERT INTO {table} VALUES ({places})",  # noqa: S608  # a catalogued name
            [[row[name] for name in dataset.columns] for row in sample],
        )
        types = result_types(company.catalogue, question)
        return [plain(row) for row in run_statement(connection, statement, types, limit=len(sample))[1]]


def differences(
    question: Question, planned: Sequence[Mapping[str, Any]], checked: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yields where the rows of a plan are not those of checks; no value is told."""
    if len(planned) != len(checked):
        yield f"the plan of `{question.dataset}` leaves {len(planned)} rows, checks leave {len(checked)}"
        return
    for one, other in zip(planned, checked, strict=True):
        for name in one.keys() | other.keys():
            if name not in one or name not in other or one[name] != other[name]:
                yield f"`{question.dataset}.{name}` is not what a check of the row leaves"


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row in the values of JSON, in which both sides are compared."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(row))
    return decoded
