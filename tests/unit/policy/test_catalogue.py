"""What a catalogue, its purposes and its settings mean once they are read."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from gatebook.policy.casts import cast_value
from gatebook.policy.catalogue import Catalogue, Sensitivity, cast_row, parse_catalogue
from gatebook.policy.purposes import ConsentMode, Purposes, parse_purposes
from gatebook.policy.settings import NOTHING_BELIEVED, parse_settings

CATALOGUE = """
tags:
  content.prompt: {requires_mask: true}
  source.chat:
notices:
  n1: {purposes: [training, cost], effective_time: 2026-01-01T00:00:00+01:00, end_time: 2027-01-01T00:00:00Z}
datasets:
  mci.eu.prompts:
    sensitivity: restricted
    subject_keys: [subject_id]
    retention_days: 90
    notice: n1
    tags: [source.chat]
    ceiling:
      roles: [role:researcher]
      people_max: 40
      actions: {ingest: {roles: [role:collector], people_max: 0}}
    columns:
      subject_id: text
      prompt_text: {type: text, tags: [content.prompt]}
  mci.clicks:
    sensitivity: public
    subject_keys: []
    retention_days: 1
    notice: n1
    purposes: [cost]
    ceiling: {roles: [role:employee], people_max: all}
    columns: {x: int}
"""
PURPOSES = """
purposes:
  training.evaluation: {}
  training: {consent: opt_in}
  training.study: {consent: none}
  cost: {consent: none}
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Returns a catalogue of two datasets."""
    parsed, findings = parse_catalogue(CATALOGUE, "catalogue.yaml")
    assert parsed is not None, findings
    return parsed


@pytest.fixture(scope="module")
def purposes() -> Purposes:
    """Returns a tree of four purposes."""
    parsed, findings = parse_purposes(PURPOSES, "purposes.yaml")
    assert parsed is not None, findings
    return parsed


def test_catalogue_becomes_g2_edges(catalogue: Catalogue) -> None:
    """Columns lie in datasets and under tags, datasets in namespaces, tags under their parents; each once."""
    actual = [(edge.gtype, edge.child, edge.parent, edge.line) for edge in catalogue.edges()]

    assert [
        ("g2", "mci.eu.prompts.subject_id", "mci.eu.prompts", 19),
        ("g2", "mci.eu.prompts.subject_id", "tag:source.chat", 19),
        ("g2", "mci.eu.prompts.prompt_text", "mci.eu.prompts", 20),
        ("g2", "mci.eu.prompts.prompt_text", "tag:content.prompt", 20),
        ("g2", "mci.eu.prompts.prompt_text", "tag:source.chat", 20),
        ("g2", "mci.eu.prompts", "mci.eu.*", 8),
        ("g2", "mci.eu.*", "mci.*", 8),
        ("g2", "mci.clicks.x", "mci.clicks", 28),
        ("g2", "mci.clicks", "mci.*", 21),
        ("g2", "tag:content.prompt", "tag:content", 3),
        ("g2", "tag:source.chat", "tag:source", 4),
    ] == actual


def test_tags_that_demand_a_mask_are_nodes(catalogue: Catalogue) -> None:
    """`mask_tags` names nodes, as columns do."""
    assert frozenset({"tag:content.prompt"}) == catalogue.mask_tags
    assert catalogue.datasets["mci.eu.prompts"].columns["prompt_text"].tags[0] in catalogue.mask_tags


def test_values_of_a_dataset_are_typed(catalogue: Catalogue) -> None:
    """Sensitivity is ordered, a ceiling of `all` has no head-count, and purposes default to the notice's."""
    prompts, clicks = catalogue.datasets["mci.eu.prompts"], catalogue.datasets["mci.clicks"]

    assert prompts.sensitivity > clicks.sensitivity is Sensitivity.PUBLIC
    assert (40, None) == (prompts.ceiling.people_max, clicks.ceiling.people_max)
    assert ("role:collector",) == prompts.ceiling.of("ingest").roles
    assert ("role:researcher",) == prompts.ceiling.of("read").roles
    assert (("training", "cost"), ("cost",)) == (prompts.purposes, clicks.purposes)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2025, 12, 31, 22, 59, 59, tzinfo=UTC), False),
        (datetime(2025, 12, 31, 23, tzinfo=UTC), True),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), True),
        (datetime(2027, 1, 1, tzinfo=UTC), False),
    ],
)
def test_notice_is_in_force_between_its_times(catalogue: Catalogue, now: datetime, expected: bool) -> None:
    """A notice begins at its effective time and has ended at its end time, in whatever offset they are written."""
    assert expected is catalogue.notices["n1"].in_force(now)


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (["role:researcher"], True),
        (("role:researcher", "role:researcher"), True),
        (["role:lead", "role:researcher"], False),
        (("role:senior",), False),
        (["role:employee"], False),
        (["role:researcher", "role:employee"], False),
        (["role:unknown"], False),
        (["role:loop"], False),
        (["role:stranger"], False),
        (["role:collector"], False),
        (["ana"], False),
        (["*"], False),
        ([], False),
        (None, False),
        ("role:researcher", False),
        ({"role:researcher": True}, False),
        ([["role:researcher"]], False),
        ([None], False),
        (["role:researcher"] * 101, False),
    ],
)
def test_audience_lies_within_the_ceiling_or_is_refused(catalogue: Catalogue, audience: object, expected: bool) -> None:
    """Each role of an audience is one of the ceiling; what inherits one is not, nor what is not said."""
    prompts = catalogue.datasets["mci.eu.prompts"]

    assert expected is catalogue.audience_within_ceiling(prompts, audience)


def test_purposes_inherit_consent_whatever_their_order(purposes: Purposes) -> None:
    """A child has its parent's consent unless it says otherwise; an unknown purpose needs the most."""
    modes = {name: purposes.consent_mode(name) for name in (*purposes.names, "unknown")}

    assert {
        "training.evaluation": ConsentMode.OPT_IN,
        "training": ConsentMode.OPT_IN,
        "training.study": ConsentMode.NONE,
        "cost": ConsentMode.NONE,
        "unknown": ConsentMode.OPT_IN,
    } == modes


def test_purposes_become_g3_edges(purposes: Purposes) -> None:
    """Every purpose lies below its parent, and a root below `*`."""
    assert {
        ("training.evaluation", "training"),
        ("training", "*"),
        ("training.study", "training"),
        ("cost", "*"),
    } == {(edge.child, edge.parent) for edge in purposes.edges()}
    assert ("training.evaluation", "training", "*") == purposes.lineage("training.evaluation")
    assert () == purposes.lineage("unknown")


def test_root_is_no_purpose_that_a_request_may_name(purposes: Purposes) -> None:
    """`*` stands in rules; a request that names it names nothing."""
    assert "*" not in purposes
    assert "" not in purposes


def test_only_named_callers_are_believed() -> None:
    """A caller may state what the settings name for it, and nothing else."""
    settings, _ = parse_settings("attribute_sources: {svc-x: {context: [network]}}", "gatebook.yaml")
    assert settings is not None

    assert frozenset({"network"}) == settings.believed("svc-x").context
    assert frozenset() == settings.believed("svc-x").subject
    assert NOTHING_BELIEVED == settings.believed("svc-y")


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
UUID = "0b8e4f0e-6d0c-4a6e-9a1e-0c6f2f5d7c11"


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("text", "x", "x"),
        ("text", 5, None),
        ("text", None, None),
        ("text[]", ["a", "b"], ("a", "b")),
        ("text[]", ["a", 1], None),
        ("text[]", "ab", None),
        ("int", 5, 5),
        ("int", 5.0, 5),
        ("int", 5.5, None),
        ("int", "5", 5),
        ("int", " 5", None),
        ("int", True, None),
        ("int", 2**31, None),
        ("int", -(2**31), -(2**31)),
        ("bigint", 2**63 - 1, 2**63 - 1),
        ("bigint", str(2**63 - 1), 2**63 - 1),
        ("bigint", float(2**53), 2**53),
        ("bigint", float(2**53 + 2), None),
        ("bigint", 2**63, None),
        ("bigint", float("nan"), None),
        ("bigint", "9" * 5000, None),
        ("numeric", 0.1, 0.1),
        ("numeric", "0.1", 0.1),
        ("numeric", 10**30, 10**30),
        ("numeric", float("inf"), None),
        ("numeric", 1e300, None),
        ("numeric", False, None),
        ("bool", True, True),
        ("bool", 1, None),
        ("bool", "true", None),
        ("uuid", UUID.upper(), UUID),
        ("uuid", UUID.replace("-", ""), None),
        ("uuid", "{" + UUID + "}", None),
        ("timestamptz", "2026-05-01T12:00:00Z", NOON),
        ("timestamptz", "2026-05-01t14:00:00.000+02:00", NOON),
        ("timestamptz", "2026-05-01 12:00:00+00:00", NOON),
        ("timestamptz", "2026-05-01T12:00:00", None),
        ("timestamptz", "2026-05-01", None),
        ("timestamptz", "2026-13-01T12:00:00Z", None),
        ("timestamptz", "0001-01-01T00:00:00+23:00", None),
        ("timestamptz", 1777636800, None),
        ("date", "2026-05-01", date(2026, 5, 1)),
        ("date", "20260501", None),
        ("date", "2026-02-30", None),
        ("jsonb", {"a": [1]}, {"a": [1]}),
        ("jsonb", [1, "a"], (1, "a")),
        ("jsonb", 7, 7),
    ],
)
def test_value_is_cast_exactly_or_unknown(type_: str, value: object, expected: Any) -> None:  # noqa: ANN401  # of any type
    """A JSON value becomes exactly the value of the column's type, or is unknown."""
    actual = cast_value(type_, value)

    assert expected == actual
    assert type(expected) is type(actual)


def test_row_has_every_column_and_no_other(catalogue: Catalogue) -> None:
    """A missing column is unknown, and a column that the catalogue does not know does not exist."""
    prompts = catalogue.datasets["mci.eu.prompts"]

    assert {"subject_id": "ana", "prompt_text": None} == cast_row(prompts, {"subject_id": "ana", "extra": 1})
