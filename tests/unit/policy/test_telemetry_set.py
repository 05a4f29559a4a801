"""The telemetry set: fifteen tables, and promises that hold for every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telemetry_sets import DIRECTORY, TELEMETRY, telemetry_without_consent

from gatebook.policy import bundle
from gatebook.policy.catalogue import Sensitivity
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import PolicySet, load
from gatebook.policy.purposes import ConsentMode

OPT_IN = {"model_training", "recognition"}


@pytest.fixture(scope="module")
def telemetry() -> PolicySet:
    """Returns the telemetry set."""
    return load(bundle.read_folder(TELEMETRY))


@pytest.fixture(scope="module")
def personas() -> Directory:
    """Returns the named people and services."""
    return load_directory(bundle.read_directory_folder(DIRECTORY))


def test_set_loads_without_a_finding(telemetry: PolicySet) -> None:
    """The set that everybody copies from has not even a warning."""
    assert () == telemetry.warnings
    assert () == bundle.ignored_files(TELEMETRY)
    assert "governed" == telemetry.kind


def test_catalogue_is_that_of_the_incident(telemetry: PolicySet) -> None:
    """The catalogue has the fifteen tables of the tracker, AI usage, HR, training and the audit."""
    assert telemetry.catalogue is not None

    assert {
        "mci.keystroke_events": (12, Sensitivity.SEALED, 30, 40),
        "mci.pointer_events": (10, Sensitivity.RESTRICTED, 30, 40),
        "mci.screen_frames": (10, Sensitivity.SEALED, 7, 20),
        "mci.prompts": (10, Sensitivity.RESTRICTED, 90, 40),
        "mci.transcripts": (7, Sensitivity.SEALED, 30, 20),
        "mci.private_conversations": (7, Sensitivity.SEALED, 14, 8),
        "mci.source_activity": (8, Sensitivity.CONFIDENTIAL, 60, 60),
        "ai_usage.token_usage": (11, Sensitivity.CONFIDENTIAL, 180, 15),
        "ai_usage.team_daily": (7, Sensitivity.AGGREGATED, 730, None),
        "ai_usage.leaderboard": (6, Sensitivity.CONFIDENTIAL, 30, 50),
        "hr.performance_metrics": (6, Sensitivity.RESTRICTED, 1095, None),
        "hr.promotion_signals": (6, Sensitivity.RESTRICTED, 1095, 12),
        "hr.award_submissions": (5, Sensitivity.INTERNAL, 365, 10),
        "mlops.training_features": (5, Sensitivity.RESTRICTED, 7, 40),
        "gov.decisions": (10, Sensitivity.CONFIDENTIAL, 2555, 12),
    } == {
        dataset.id: (len(dataset.columns), dataset.sensitivity, dataset.retention_days, dataset.ceiling.people_max)
        for dataset in telemetry.catalogue.datasets.values()
    }


def test_consent_is_asked_for_training_and_recognition_alone(telemetry: PolicySet) -> None:
    """Every purpose below model training and recognition needs consent; no other does."""
    purposes = telemetry.purposes
    assert purposes is not None

    needing = {name for name in purposes.names if purposes.consent_mode(name) is not ConsentMode.NONE}
    assert {name for name in purposes.names if name.split(".")[0] in OPT_IN} == needing


def test_every_role_of_a_rule_or_ceiling_is_held_by_a_persona_or_generated(
    telemetry: PolicySet, personas: Directory
) -> None:
    """No rule speaks of a role that nobody can hold; members of the leaderboard are generated."""
    held = {group for subject in personas.subjects.values() for group in subject.groups}
    held |= {edge.parent for edge in telemetry.edges if edge.gtype == "g" and edge.child in held}

    assert {"role:leaderboard_member"} == {rule.fields[0] for rule in telemetry.rules} - held


def test_employees_hold_no_grant_on_recordings(telemetry: PolicySet) -> None:
    """What everybody holds never reaches the tables of the tracker."""
    everyone = {rule.fields[1] for rule in telemetry.rules if rule.ptype == "p" and rule.fields[0] == "role:employee"}

    assert not [node for node in everyone if node.startswith(("mci.", "tag:"))]


def test_variant_without_consent_differs_in_consent_alone(telemetry: PolicySet, tmp_path: Path) -> None:
    """The variant of the tests asks nobody's consent and is the same set otherwise."""
    variant = load(bundle.read_folder(telemetry_without_consent(tmp_path)))
    assert variant.purposes is not None

    assert telemetry.rules == variant.rules
    assert telemetry.catalogue == variant.catalogue
    assert {ConsentMode.NONE} == {variant.purposes.consent_mode(name) for name in variant.purposes.names}
