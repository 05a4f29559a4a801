"""The chapter about the old world and the new: who can read the prompts of everybody?

Owns the question put about every subject of the directory, one by one, and two promises: nobody gets the text in
clear, and no answer is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich.text import Text

import gatebook_client
from gatebook.demo.cast import EXPOSURE_REVIEW, PROMPTS
from gatebook.demo.company import Company
from gatebook.demo.gate import Gate
from gatebook.demo.promises import Promises
from gatebook.demo.question import ALLOWED
from gatebook.demo.stage import Cell, Stage, count

PURPOSES = ("", "model_training", EXPOSURE_REVIEW)
COLUMNS = ("subject_id", "ts", "prompt_text")
TEXT = "prompt_text"
BATCH = 500
TIMEOUT_SECONDS = 30.0


class Audience(msgspec.Struct, frozen=True):
    """Who may read for one purpose. `clear` is how many of them would get the text as it is stored."""

    purpose: str
    reasons: Mapping[str, int]
    clear: int
    leaves: Mapping[int, bytes]
    """The leaf hash that each receipt promises, by its index."""

    @property
    def allowed(self) -> int:
        """Returns how many may read at all."""
        return self.reasons.get(ALLOWED, 0)


def ask_about_everybody(gate: Gate, company: Company, stage: Stage) -> Iterator[Audience]:
    """Asks about every subject for each purpose; yields the audiences."""
    everybody = [(subject.type, subject.id) for subject in company.directory.subjects.values()]
    batches = [everybody[start : start + BATCH] for start in range(0, len(everybody), BATCH)]
    with (
        gatebook_client.connect_blocking(gate.target, enforcer="audience", timeout_seconds=TIMEOUT_SECONDS) as gatebook,
        stage.working("asking about everybody") as progress,
    ):
        for number, purpose in enumerate(PURPOSES):
            reasons: Counter[str] = Counter()
            clear, leaves = 0, {}
            for done, batch in enumerate(batches, start=1):
                checks = [
                    gatebook_client.Check(subject, "read", PROMPTS, COLUMNS, purpose, allow_partial=True)
                    for subject in batch
                ]
                for decision in gatebook.check_many(checks):
                    reasons[decision.reason] += 1
                    clear += in_clear(decision)
                    if decision.receipt is not None:
                        leaves[decision.receipt.index] = decision.receipt.leaf_hash
                progress(number * len(batches) + done, len(PURPOSES) * len(batches))
            yield Audience(purpose, reasons, clear, leaves)


def in_clear(decision: gatebook_client.Decision) -> bool:
    """Tells whether a decision lets the text out as it is stored."""
    masks = decision.masks.get(TEXT, ())
    return TEXT in decision.allowed_columns and not any(
        mask.condition is None and mask.kind == "NULLIFY" for mask in masks
    )


def tell(stage: Stage, company: Company, audiences: tuple[Audience, ...]) -> None:
    """Tells who could, and who can."""
    everybody = count(company.employees)
    stage.say(f"In the old world the answer was {everybody}: one grant to all, no purpose, and no record.")
    stage.say("Now it depends on what for:")
    stage.gap()
    reasons = Counter(reason for audience in audiences for reason in audience.reasons if reason != ALLOWED)
    most = sorted(reasons, key=lambda reason: -max(audience.reasons.get(reason, 0) for audience in audiences))
    rows: list[list[Cell]] = [
        [Text(title, "bold"), *(Text(count(number), "bold") for number in numbers)]
        for title, numbers in (
            ("may read", [audience.allowed for audience in audiences]),
            ("... in clear", [audience.clear for audience in audiences]),
        )
    ]
    rows += [[reason, *(count(audience.reasons.get(reason, 0)) for audience in audiences)] for reason in most]
    headings = [audience.purpose or "no purpose" for audience in audiences]
    stage.table(("", *headings), rows, right=headings)


def check(promises: Promises, company: Company, audiences: tuple[Audience, ...]) -> None:
    """Checks what the answers about everybody promise."""
    subjects = len(company.directory.subjects)
    asked = sum(sum(audience.reasons.values()) for audience in audiences)
    held = sum(len(audience.leaves) for audience in audiences)
    promises.check(
        "every question about everybody has its place in the book",
        kept=asked == held == subjects * len(PURPOSES),
        told=count(asked, "question"),
    )
    ceiling = company.catalogue.datasets[PROMPTS].ceiling.people_max or 0
    most = max(audience.allowed for audience in audiences)
    clear = sum(audience.clear for audience in audiences)
    promises.check(
        f"at most {ceiling} of {count(subjects)} may read the prompts, none in clear",
        kept=most <= ceiling and clear == 0 and most < subjects,
        told=f"{most} may, {clear} in clear",
    )


def summary(audience: Audience) -> dict[str, Any]:
    """Returns what the JSON summary says of one audience."""
    return {
        "purpose": audience.purpose,
        "allowed": audience.allowed,
        "in_clear": audience.clear,
        "reasons": dict(audience.reasons),
    }
