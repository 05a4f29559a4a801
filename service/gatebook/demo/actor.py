"""One reader of the demo, in a process of its own: `python -m gatebook.demo.actor NAME --target ... --store ...`.

It does what every service behind the gate does, with the client library alone:

1. ask; a denial ends it, and the store is not even opened;
2. read the allowed columns, and those that say whom a row is about where the answer depends on it;
3. where only some rows are allowed, ask about each row that was read, with all of its values;
4. let out what the decision's own `enforce` or `aggregate` returns, and nothing else.

The keys of its hashes come on standard input, as `gatebook keys export` prints them; what it asked, was told and
got goes to standard output as JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
from google.protobuf import json_format

import gatebook_client
from gatebook.demo.cast import CAST
from gatebook.demo.processes import BrokenOffError
from gatebook.demo.question import Actor, Outcome, Question
from gatebook.demo.store import read_rows
from gatebook.policy.catalogue import Catalogue, parse_catalogue

ROWS_MAX = 50
GROUPED_ROWS_MAX = 1_000_000
TIMEOUT_SECONDS = 20.0
UNRULED = ("NO_MATCHING_RULE", "PURPOSE_NOT_GRANTED")
"""The reasons of denials that a rule could have prevented."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks all questions of one actor and prints the outcomes."""
    parser = argparse.ArgumentParser(prog="python -m gatebook.demo.actor")
    parser.add_argument("name", choices=[actor.name for actor in CAST])
    parser.add_argument("--target", required=True, help="where the gate is")
    parser.add_argument("--store", required=True, type=Path, help="the file with the telemetry")
    parser.add_argument("--catalogue", required=True, type=Path, help="catalogue.yaml, for the types of columns")
    chosen = parser.parse_args(arguments)
    actor = next(actor for actor in CAST if actor.name == chosen.name)
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

    def read(self, question: Question, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Reads columns of the rows that a question is about."""
        limit = GROUPED_ROWS_MAX if question.by else ROWS_MAX
        with duckdb.connect(str(self.path), read_only=True) as connection:
            dataset = self.catalogue.datasets[question.dataset]
            return read_rows(connection, dataset, columns, where=question.where, limit=limit)


def parse_keys(text: str) -> dict[str, bytes]:
    """Returns the keys in the lines that `gatebook keys export` prints, by their id."""
    pairs = (line.split() for line in text.splitlines())
    return {key_id: bytes.fromhex(key) for key_id, key in pairs}


def outcome_of(actor: Actor, question: Question, target: str, store: Store, keys: Mapping[str, bytes]) -> Outcome:
    """Asks one question, and reads what the answer lets this actor have."""
    # A program that cannot mask says so: it names itself, and declares nothing that it would do.
    enforcer = actor.name if question.masks else gatebook_client.Enforcer(actor.name)
    with gatebook_client.connect_blocking(target, enforcer=enforcer, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        decision = gatebook.check(
            (actor.type, actor.subject),
            question.action,
            question.dataset,
            columns=question.columns,
            purpose=question.purpose,
            row=question.row,
            explain=True,
            receipt="full",
        )
        told = told_of(decision)
        if not decision.allowed:
            return told
        group = decision.minimum_group
        about = (*(() if group is None else group.entity_columns), *(question.row or ()))
        rows = store.read(question, tuple(dict.fromkeys((*decision.allowed_columns, *about))))
        try:
            got = let_out(gatebook, decision, actor, question, rows, keys)
        except gatebook_client.EnforcementError as error:
            return msgspec.structs.replace(told, rows_read=len(rows), refused=error.message)
    return msgspec.structs.replace(told, rows_read=len(rows), got=tuple(got))


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


def let_out(
    gatebook: gatebook_client.BlockingConnection,
    decision: gatebook_client.Decision,
    actor: Actor,
    question: Question,
    rows: list[dict[str, Any]],
    keys: Mapping[str, bytes],
) -> list[dict[str, Any]]:
    """Returns what may leave of the rows."""
    if question.by:
        return decision.aggregate(rows, by=question.by, measures=question.measures, keys=keys)
    if question.row is None:
        return decision.enforce(rows, keys=keys)
    subject = (actor.type, actor.subject)
    checks = [
        gatebook_client.Check(subject, question.action, question.dataset, question.columns, question.purpose, row=row)
        for row in rows
    ]
    answers = zip(gatebook.check_many(checks), rows, strict=True)
    return [left for answer, row in answers if answer.allowed for left in answer.enforce([row], keys=keys)]


if __name__ == "__main__":
    main()
