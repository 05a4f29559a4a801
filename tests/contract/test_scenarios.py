"""Acceptance scenarios of the telemetry set, through gRPC on a real port.

Each answer is also held against its entry in the book (see conftest), and the book verifies at the end.
"""

from __future__ import annotations

import pytest
from tests.contract.conftest import Ask
from tests.serving import RunningServer

from gatebook_client import Action, connect_blocking

KEYSTROKES = "mci.keystroke_events"
PEOPLE = ["ana", "dana", "eli", "farah", "gus", "hana", "ivan", "jo", "kai", "noor", "omar"]


@pytest.mark.parametrize("person", PEOPLE)
def test_at_03_what_is_not_catalogued_is_denied_to_all(ask: Ask, person: str) -> None:
    """A table without an entry in the catalogue is readable by nobody, the platform admin included."""
    decision = ask(person, "read", "mci.scratch_copy", purpose="model_training")

    assert (decision.allowed, decision.reason) == (False, "UNCATALOGUED")


def test_at_05_a_manager_reads_no_keystrokes(ask_consenting: Ask) -> None:
    """Being somebody's manager opens no recording of them."""
    decision = ask_consenting("dana", "read", KEYSTROKES, purpose="model_training")

    assert (decision.allowed, decision.reason) == (False, "NO_MATCHING_RULE")


def test_at_05_a_researcher_gets_masked_columns(ask_consenting: Ask) -> None:
    """Each sensitive column comes with its masks, the strictest first."""
    columns = ["key_text", "window_title", "ts", "subject_id"]
    decision = ask_consenting("farah", "read", KEYSTROKES, columns=columns, purpose="model_training")

    assert decision.allowed
    kinds = {name: [mask.kind for mask in masks] for name, masks in decision.masks.items()}
    assert kinds == {
        "key_text": ["NULLIFY", "REDACT"],
        "window_title": ["REDACT"],
        "ts": ["TRUNCATE"],
        "subject_id": ["HASH"],
    }
    assert decision.masks["ts"][0].parameters["unit"] == "hour"


def test_at_05_masks_change_the_rows(ask_consenting: Ask) -> None:
    """A secure field becomes null, any other is redacted, and a field of unknown security becomes null."""
    decision = ask_consenting("farah", "read", KEYSTROKES, columns=["key_text"], purpose="model_training")
    rows = [{"key_text": "Pa55", "is_secure_field": secure} for secure in (True, False, None)]

    assert [row["key_text"] for row in decision.enforce(rows)] == [None, "Xx00", None]


def test_at_05_masks_that_nobody_will_apply_deny(consenting: RunningServer) -> None:
    """An enforcer that declares no masks gets a denial, never clear text."""
    with connect_blocking(consenting.target) as client:
        decision = client.check("farah", "read", KEYSTROKES, columns=["window_title"], purpose="model_training")

    assert (decision.allowed, decision.reason) == (False, "OBLIGATION_NOT_SUPPORTED")


def test_at_05_consent_comes_first_in_the_shipped_set(ask: Ask) -> None:
    """Model training needs consent, which nothing establishes yet, so the shipped set denies it."""
    decision = ask("farah", "read", KEYSTROKES, purpose="model_training")

    assert (decision.allowed, decision.reason) == (False, "CONSENT_REQUIRED")


@pytest.mark.parametrize(
    ("person", "purpose", "reason"),
    [
        ("eli", "", "PURPOSE_REQUIRED"),
        ("eli", "performance_evaluation", "PURPOSE_NOT_PERMITTED"),
        ("eli", "idle_curiosity", "PURPOSE_UNKNOWN"),
        ("fiona", "adoption_visualisation", "PURPOSE_NOT_GRANTED"),
        ("noor", "cost_management", "PURPOSE_NOT_GRANTED"),
        ("fiona", "cost_management", "ALLOWED"),
    ],
)
def test_at_06_a_purpose_is_a_claim_and_not_a_grant(ask: Ask, person: str, purpose: str, reason: str) -> None:
    """Token usage is read for a purpose that is named, known, noticed and granted, each with its own reason."""
    decision = ask(person, "read", "ai_usage.token_usage", purpose=purpose)

    assert decision.reason == reason


def test_at_06_a_refused_purpose_names_the_notice(ask: Ask) -> None:
    """Who asks for a purpose beyond the notice is told which notice it is."""
    decision = ask("eli", "read", "ai_usage.token_usage", purpose="performance_evaluation")

    assert decision.raw.notice_id == "ai-usage-2026-03"


def test_at_06_finance_reads_groups_of_five(ask: Ask) -> None:
    """Costs are shown for at least five distinct people together."""
    decision = ask("fiona", "read", "ai_usage.token_usage", purpose="cost_management")

    assert decision.minimum_group is not None
    assert (decision.minimum_group.k, decision.minimum_group.entity_columns) == (5, ("subject_id",))


@pytest.mark.parametrize(
    ("dataset", "purpose", "allowed"),
    [
        (KEYSTROKES, "model_training.evaluation", True),
        (KEYSTROKES, "model_training", True),
        ("mci.screen_frames", "model_training.evaluation", True),
        ("mci.screen_frames", "model_training", False),
    ],
)
def test_at_07_a_sub_purpose_satisfies_its_parent_never_the_reverse(
    ask_consenting: Ask, dataset: str, purpose: str, allowed: bool
) -> None:
    """Evaluation is model training; model training is more than evaluation."""
    columns = {KEYSTROKES: ["app"], "mci.screen_frames": ["app"]}[dataset]

    assert ask_consenting("farah", "read", dataset, columns=columns, purpose=purpose).allowed is allowed


@pytest.mark.parametrize(("action", "allowed"), [("read", True), ("export", False), ("share", False)])
def test_at_11_reading_is_not_taking_away(ask: Ask, action: str, allowed: bool) -> None:
    """Who may read a dataset for a purpose may not for that reason export or share it."""
    decision = ask("fiona", action, "ai_usage.token_usage", purpose="cost_management")

    assert decision.allowed is allowed


@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        (["role:finops"], "ALLOWED"),
        (["role:employee"], "CEILING_EXCEEDED"),
        (["role:finops", "role:employee"], "CEILING_EXCEEDED"),
        ([], "CEILING_EXCEEDED"),
        (None, "CEILING_EXCEEDED"),
        ("role:finops", "CEILING_EXCEEDED"),
    ],
)
def test_at_11_a_link_reaches_nobody_beyond_the_ceiling(ask: Ask, audience: object, reason: str) -> None:
    """Sharing names its audience, and each role of it lies within the ceiling of the dataset."""
    action = Action("share", {} if audience is None else {"audience": audience})

    assert ask("gita", action, "ai_usage.token_usage", purpose="cost_management").reason == reason


@pytest.mark.parametrize(("dataset", "allowed"), [("ai_usage.team_daily", True), ("ai_usage.token_usage", False)])
def test_at_14_leadership_sees_teams_and_not_people(ask: Ask, dataset: str, allowed: bool) -> None:
    """A vice president reads the figures of teams, not those of persons."""
    assert ask("kai", "read", dataset, purpose="adoption_visualisation.team_dashboard").allowed is allowed
