"""The opening of the story: the company and its open tables, and the gate that is put before them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.text import Text

from gatebook.demo.auditor import Auditor
from gatebook.demo.cast import PROMPTS, REVIEWS
from gatebook.demo.company import Company, found_company, require_clock
from gatebook.demo.gate import Gate
from gatebook.demo.processes import Processes
from gatebook.demo.rows import cell
from gatebook.demo.rules import Rules, make_tokens
from gatebook.demo.stage import Stage, count

OLD_WORLD: Final = (
    (PROMPTS, "subject_id", "prompt_text", "contains(prompt_text, 'doctor')"),
    ("mci.private_conversations", "sender_id", "body", "contains(body, 'leaving')"),
    ("mci.keystroke_events", "subject_id", "'typed as a password: ' || key_text", "is_secure_field"),
    (REVIEWS, "subject_id", "narrative_text", "contains(narrative_text, 'family')"),
)
"""What anybody could look up: the narrator reads it past every gate."""


def tell_company(stage: Stage, folder: Path, policies: Path, *, employees: int, scale: float, seed: int) -> Company:
    """Makes the company, and shows what anybody could read of it in the old world."""
    stage.chapter(
        "A company records its people",
        "An employer trains models on what its people type, say and do, and keeps it in tables that every "
        "employee can read. The company is made up, always the same from the same seed.",
    )
    with stage.working("making people and telemetry") as progress:
        company = found_company(
            folder, employees=employees, scale=scale, seed=seed, progress=progress, policies=policies
        )
    require_clock(company.catalogue, datetime.now(UTC))
    people, rows = count(company.employees), count(sum(company.tables.values()))
    stage.say(f"{people} people and {rows} rows in {len(company.tables)} tables are ready.")
    stage.gap()
    stage.say("The old world: any of them could type this, and nothing recorded that they did.")
    stage.gap()
    found = [(table, *row) for table, *look in OLD_WORLD for row in look_up(company, table, *look)]
    stage.table(("SELECT * FROM", "about", "finds"), found)
    return company


def look_up(company: Company, table: str, person: str, text: str, where: str) -> list[tuple[str, str]]:
    """Looks up one row past the gate; none where chance made no such row."""
    rows = company.query(f"SELECT {person}, {text} FROM {table} WHERE {where} LIMIT 1")  # noqa: S608  # the demo's own
    return [(cell(who), cell(found)) for who, found in rows]


def tell_gate(stage: Stage, processes: Processes, gate: Gate, company: Company, rules: Rules, folder: Path) -> Auditor:
    """Starts the server; the auditor notes its verifier key and its first checkpoint."""
    stage.chapter(
        "A gate is put before the tables",
        "Governance keeps the rules as Casbin files under version control. The real server publishes them, and "
        "from now on answers who may read which columns for which purpose.",
    )
    with stage.working("starting the server"):
        make_tokens(processes, rules)
        gate.start()
        auditor = Auditor(folder / "auditor", gate)
    datasets, notices = len(company.catalogue.datasets), len(company.catalogue.notices)
    stage.pairs(
        [
            (Text("served", "dim"), f"{datasets} datasets under {notices} notices, on {gate.target}"),
            (Text("rules", "dim"), "policies/telemetry, with the people above, and who must approve a change"),
            (Text("key", "dim"), auditor.key),
        ]
    )
    stage.gap()
    stage.say("The auditor notes that key and today's checkpoint, and later needs nothing else from us.")
    return auditor
