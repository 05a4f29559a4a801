"""Which way single changes of the telemetry set go, by lines alone: no directory is known."""

from __future__ import annotations

import pytest
from tests.approving import edited
from tests.serving import POLICIES

from gatebook.governance.change import Direction, loosens
from gatebook.governance.loosening import changes
from gatebook.policy.bundle import read_folder
from gatebook.policy.policy_set import PolicySet, load

FILES = {path: content for path, content in read_folder(POLICIES / "telemetry").items() if path[:6] != "tests/"}
BASE = load(FILES, "telemetry", accepted=True)
LOOSENS, TIGHTENS, NEITHER = Direction.LOOSENS, Direction.TIGHTENS, Direction.NEITHER
MCI, USAGE, ROLES = "policy/mci.csv", "policy/ai_usage.csv", "policy/roles.csv"
CATALOGUE, PURPOSES, SETTINGS = "catalogue.yaml", "purposes.yaml", "gatebook.yaml"
DENY = "p, role:platform_admin, mci.*, read, *, True, deny\n"
ALLOW = "p, role:mci_researcher, mci.pointer_events, read, model_training, r.sub.level >= 3, allow\n"
SHARED = "p, role:employee, mci.prompts, share, model_training, True, deny\n"

CASES = {
    "an allow goes": (MCI, ALLOW, "", "ALLOW_REMOVED", TIGHTENS),
    "an allow comes": (MCI, DENY, DENY + ALLOW.replace("read", "export"), "ALLOW_ADDED", LOOSENS),
    "a deny goes": (MCI, DENY, "", "DENY_REMOVED", LOOSENS),
    "a deny is narrowed": (MCI, DENY, DENY.replace("mci.*", "mci.prompts"), "DENY_REMOVED", LOOSENS),
    "a deny comes": (MCI, DENY, DENY + SHARED, "DENY_ADDED", TIGHTENS),
    "k is lowered": (USAGE, "True, 10", "True, 9", "GROUP_LOWERED", LOOSENS),
    "k is raised": (USAGE, "True, 10", "True, 11", "GROUP_RAISED", TIGHTENS),
    "a mask shows more": (
        MCI,
        "window_title, read, model_training, True, redact",
        "window_title, read, model_training, True, none",
        "MASK_WEAKER",
        LOOSENS,
    ),
    "a mask goes": (
        USAGE,
        "p2, role:dashboard, ai_usage.token_usage.cost_usd, read, adoption_visualisation, True, band:1\n",
        "",
        "MASK_REMOVED",
        LOOSENS,
    ),
    "a link comes": (
        ROLES,
        "g, role:manager, role:employee\n",
        "g, role:manager, role:employee\ng, role:jury, role:employee\n",
        "LINK_ADDED",
        LOOSENS,
    ),
    "a link goes that brings masks": (ROLES, "g, role:finops_lead, role:finops\n", "", "LINK_REMOVED", LOOSENS),
    "a ceiling is raised": (CATALOGUE, "people_max: 8", "people_max: all", "CEILING_RAISED", LOOSENS),
    "a ceiling names everybody": (
        CATALOGUE,
        "roles: [role:incident_responder]",
        "roles: [role:incident_responder, role:employee]",
        "CEILING_RAISED",
        LOOSENS,
    ),
    "a ceiling is lowered": (CATALOGUE, "people_max: 8", "people_max: 7", "CEILING_LOWERED", TIGHTENS),
    "a tag is dropped": (
        CATALOGUE,
        "[behavior.keystroke, incidental.special]",
        "[behavior.keystroke]",
        "TAG_DROPPED",
        LOOSENS,
    ),
    "a mask is demanded no more": (
        CATALOGUE,
        "incidental.special: {requires_mask: true,",
        "incidental.special: {",
        "MASK_NOT_DEMANDED",
        LOOSENS,
    ),
    "a column is catalogued no more": (CATALOGUE, "      inter_key_ms: int\n", "", "COLUMN_REMOVED", LOOSENS),
    "retention is longer": (CATALOGUE, "retention_days: 14", "retention_days: 15", "RETENTION_LENGTHENED", LOOSENS),
    "retention is shorter": (CATALOGUE, "retention_days: 14", "retention_days: 13", "RETENTION_SHORTENED", TIGHTENS),
    "a purpose is permitted": (
        CATALOGUE,
        "purposes: [security_investigation]\n",
        "purposes: [security_investigation, model_training]\n",
        "PURPOSE_PERMITTED",
        LOOSENS,
    ),
    "a notice begins sooner": (CATALOGUE, "2026-05-11T", "2026-05-01T", "NOTICE_LEAD_SHORTENED", LOOSENS),
    "sensitivity is lowered": (CATALOGUE, "sensitivity: sealed", "sensitivity: public", "SENSITIVITY_LOWERED", LOOSENS),
    "consent is lowered": (PURPOSES, "consent: opt_in", "consent: none", "CONSENT_LOWERED", LOOSENS),
    "a caller is believed": (
        SETTINGS,
        "svc-dashboard: {context: [network]}",
        "svc-dashboard: {context: [network, x]}",
        "ATTRIBUTE_SOURCES_CHANGED",
        LOOSENS,
    ),
    "a zone grows": (SETTINGS, "datasets: [mci.*]", "datasets: [mci.*, hr.*]", "ZONES_CHANGED", LOOSENS),
    "an action comes": (SETTINGS, "administer]", "administer, publish]", "ACTION_ADDED", LOOSENS),
    "a comment": (MCI, "# Researchers", "# Those who research", "TEXT_CHANGED", NEITHER),
    "a description": (CATALOGUE, "pointer movements, clicks and scrolling", "pointers", "TEXT_CHANGED", NEITHER),
}


def draft_of(path: str, before: str, after: str) -> PolicySet:
    """Reads the set with one edit."""
    return load(edited(FILES, path, (before, after)), "telemetry", accepted=True)


@pytest.mark.parametrize("name", CASES)
def test_which_way_a_change_goes(name: str) -> None:
    """Each edit is told by its kind, its direction and its place, and makes the draft loosen or not."""
    path, before, after, what, direction = CASES[name]

    found = changes(BASE, draft_of(path, before, after))

    told = [change for change in found if change.what == what]
    assert [(change.direction, change.file) for change in told] == [(direction, path)] * len(told)
    assert told
    assert loosens(found) == (direction is LOOSENS)
    assert all(change.line for change in told) or direction is NEITHER


def test_guardrails_that_go_loosen_and_those_that_come_tighten() -> None:
    """Guardrails are compared by what they say."""
    without = {path: content for path, content in FILES.items() if path != "guardrails.yaml"}
    bare = load(without, "telemetry", accepted=True)

    assert loosens(changes(BASE, bare))
    assert {change.what for change in changes(bare, BASE)} == {"GUARDRAIL_ADDED"}


def test_the_first_revision_loosens() -> None:
    """Where nothing was active everything is new."""
    assert [change.what for change in changes(None, BASE)] == ["FIRST_REVISION"]
