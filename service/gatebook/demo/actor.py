"""One reader of the demo, in a process of its own: `python -m gatebook.demo.actor NAME --target ... --store ...`.

It does what every service behind the gate does, with the client library alone:

1. ask for a plan; a denial ends it, and the store is not even opened;
2. run the statement that the plan makes, and nothing else: what comes out of the store is what may leave;
3. where it wants one row alone, ask about that one.

The keys of its hashes come on standard input, as `gatebook keys export` prints them; what it asked, was told and
got goes to standard output as JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
from google.protobuf import json_format

import gatebook_client
from gatebook.demo.cast import CAST, NOOR_AGAIN
from gatebook.demo.processes import BrokenOffError
from gatebook.demo.question import Actor, Outcome, Question
from gatebook.demo.store import run_statement
from gatebook.policy.catalogue import Catalogue, parse_catalogue

ROWS_MAX = 50
GROUPS_MAX = 10_000
TIMEOUT_SECONDS = 20.0
DIALECT: Final = "duckdb"
ACTORS = (*CAST, NOOR_AGAIN)
UNRULED = ("NO_MATCHING_RULE", "PURPOSE_NOT_GRANTED")
"""The reasons of denials that a rule could have prevented."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks all questions of one actor and prints the outcomes."""
    parser = argparse.ArgumentParser(prog="python -m gatebook.demo.actor")
    parser.add_argument("name", choices=[actor.name for actor in ACTORS])
    parser.add_argument("--target", required=True, help="where the gate is")
    parser.add_argument("--store", required=True, type=Path, help="the file with the telemetry")
    parser.add_argument("--catalogue", required=True, type=Path, help="catalogue.yaml, for the types of columns")
    chosen = parser.parse_args(arguments)
    actor = next(actor for actor in ACTORS if actor.name == chosen.name)
    keys = parse_keys(sys.stdin.read())
    catalogue, findings = parse_catalogue(chosen.catalogue.read_text(encoding="utf-8"), chosen.catalogue.name)
    if catalogue is None:
        raise BrokenOffError(f"the catalogue cannot be read: {findings[0].message}")
    outcomes = [
        outcome_of(actor, question, chosen.target, Store(chosen.store, catalogue), keys) for question in actor.questions
    ]
    sys.stdout.buffer.write(msgspec.json.encode(outcomes))


class Store(msgspec.Struct, frozen=True):
    """Where the rows are."""

    path: Path
    catalogue: Catalogue

    def run(self, question: Question, statement: gatebook_client.Statement) -> tuple[int, list[dict[str, Any]]]:
        """Runs the statement of a plan; returns how many rows it leaves, and the first of them."""
        with duckdb.connect(str(self.path), read_only=True) as connection:
            types = result_types(self.catalogue, question)
            return run_statement(connection, statement, types, limit=GROUPS_MAX if question.by else ROWS_MAX)


def result_types(catalogue: Catalogue, question: Question) -> dict[str, str]:
    """Returns the columns of what a question gets, with their types where they are columns of the table."""
    columns = catalogue.datasets[question.dataset].columns
    shown = question.by or question.columns
    return {name: columns[name].type for name in shown} | dict.fromkeys(question.measures, "")


def parse_keys(text: str) -> dict[str, bytes]:
    """Returns the keys in the lines that `gatebook keys export` prints, by their id."""
    pairs = (line.split() for line in text.splitlines())
    return {key_id: bytes.fromhex(key) for key_id, key in pairs}


def outcome_of(actor: Actor, question: Question, target: str, store: Store, keys: Mapping[str, bytes]) -> Outcome:
    """Asks one question, and gets what the answer lets this actor have."""
    # A program that runs its own SQL says so: it names itself, and declares nothing that it would do.
    enforcer = actor.name if question.plans else gatebook_client.Enforcer(actor.name)
    with gatebook_client.connect_blocking(target, enforcer=enforcer, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        asked = ((actor.type, actor.subject), question.action, question.dataset)
        terms: dict[str, Any] = {"columns": question.columns, "purpose": question.purpose, "receipt": "full"}
        if question.row is not None or not question.plans:
            return told_of(gatebook.check(*asked, row=question.row, explain=True, **terms))
        plan = gatebook.plan(*asked, dialect=DIALECT, explain=True, **terms)
    told = told_of(plan.decision)
    if not plan.allowed:
        return msgspec.structs.replace(told, allowed=False, reason=plan.reason, message=plan.message)
    try:
        statement = statement_of(plan, question, keys)
    except gatebook_client.EnforcementError as error:
        return msgspec.structs.replace(told, refused=error.message)
    left, got = store.run(question, statement)
    return msgspec.structs.replace(told, sql=statement.sql, rows_left=left, got=tuple(got))


def statement_of(
    plan: gatebook_client.Plan, question: Question, keys: Mapping[str, bytes]
) -> gatebook_client.Statement:
    """Makes the statement that gets what a question wants."""
    if question.by:
        return plan.aggregate(by=question.by, measures=question.measures, where=question.wanted, keys=keys)
    return plan.select(where=question.wanted, keys=keys)


def told_of(decision: gatebook_client.Decision) -> Outcome:
    """Returns what an answer says."""
    nearest = decision.near_rules[0] if decision.reason in UNRULED and decision.near_rules else None
    return Outcome(
        allowed=decision.allowed,
        reason=decision.reason,
        message=decision.message,
        rules=tuple(f"{rule.file}:{rule.line}" for rule in decision.rules),
        nearest="" if nearest is None else f"{nearest.rule.file}:{nearest.rule.line}",
        lacked=() if nearest is None else nearest.lacked,
        masks={column: masks[0].kind for column, masks in decision.masks.items()},
        group=0 if decision.minimum_group is None else decision.minimum_group.k,
        receipt=json_format.MessageToDict(decision.raw.receipt, preserving_proto_field_name=True),
    )


if __name__ == "__main__":
    main()
