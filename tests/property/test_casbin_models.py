"""Compiled equals reference equals Casbin, for models nobody wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tests.property.agreement import Build, Comparison, brought_with, casbin_enforcer, compiled
from tests.property.casbin_models import Case, Drawn, cases
from tests.property.casbin_names import KINDS, Patterns
from tests.property.differences import DIFFERENCES
from tests.property.strategies import ATTRIBUTES, holed, plain_set, strange_values
from tests.property.untidy import MODEL_FAULTS, RULE_FAULTS, untidy

from gatebook.engine.reference import Reference
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.environment import Named

REQUESTS_MAX = 60
VECTORS = sorted((Path(__file__).parents[1] / "vectors/casbin").glob("*.yaml"))
SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def compare(case: Case, requests_max: int, build: Build = compiled) -> Counter[str]:
    """Asks the three about a drawn model; returns how often what was met."""
    try:
        model = case.model
        comparison = Comparison(
            model.text, case.policy, matcher=model.sections.matcher, patterns=model.patterns, build=build
        )
    except PolicySetRefusedError:
        return Counter(refused=1)
    for request in case.requests(requests_max):
        comparison.ask(request, case.attributes)
    return comparison.counts + Counter(models=1)


def compare_untidy(case: Case, data: st.DataObject) -> Counter[str]:
    """Asks the three about files that Casbin reads in some way, and that are read leniently."""
    model = data.draw(untidy(case.model.text, MODEL_FAULTS)) if data.draw(st.booleans()) else case.model.text
    policy = data.draw(untidy(case.policy, RULE_FAULTS))
    try:
        casbin_enforcer(model, policy)
    except Exception:  # noqa: BLE001  # what Casbin cannot read at all need not be read as it does
        return Counter({"Casbin cannot read": 1})
    try:
        comparison = Comparison(
            model, policy, matcher=case.model.sections.matcher, patterns=case.model.patterns, strict=False
        )
    except PolicySetRefusedError:
        return Counter(refused=1)
    for request in case.requests(30):
        comparison.ask(request, case.attributes)
    return comparison.counts + Counter(models=1)


def compare_strange(case: Case, data: st.DataObject) -> Counter[str]:
    """Asks the engine and the reference about a drawn model with whatever a caller may send."""
    try:
        brought = brought_with(case.model.patterns)
        policy_set = plain_set(case.model.text, case.policy, case.model.sections.matcher, brought)
        engine, reference = compiled(policy_set, brought), Reference(policy_set, brought=brought)
    except PolicySetRefusedError:
        return Counter(refused=1)
    for tokens in data.draw(st.lists(_strange_tokens(case.model), min_size=5, max_size=5)):
        assert reference.evaluate(tokens) == engine(tokens)
    return Counter(requests=5, models=1)


def test_compiled_equals_reference_equals_casbin() -> None:
    """For every request to every model, the three give one answer by the same rule, but for documented differences."""
    counts: Counter[str] = Counter()

    @settings(max_examples=150, suppress_health_check=SLOW_TO_DRAW)
    @given(cases())
    def check(case: Case) -> None:
        counts.update(compare(case, REQUESTS_MAX))

    check()
    # What nobody answers, or answers for a reason of its own, must not be most of what is asked.
    assert counts["requests"] > 3_000
    assert counts["refused"] < counts["models"] / 5
    assert counts["Casbin raises"] < counts["requests"] / 10
    assert counts["unknown-fails-closed"] < counts["requests"] / 20


@settings(max_examples=80, suppress_health_check=SLOW_TO_DRAW)
@given(cases(), st.data())
def test_strange_values_never_part_them(case: Case, data: st.DataObject) -> None:
    """Whatever is missing, null or of the wrong type, the compiled program answers what the reference does."""
    compare_strange(case, data)


@settings(max_examples=80, suppress_health_check=SLOW_TO_DRAW)
@given(cases(), st.data())
def test_untidy_files_are_read_as_casbin_reads_them(case: Case, data: st.DataObject) -> None:
    """Read leniently, files with odd lines are answered as Casbin answers them."""
    compare_untidy(case, data)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_vector_is_answered_alike(vector: Path) -> None:
    """What a long run once found, the three answer alike, and each difference is met where it is said to be."""
    case: dict[str, Any] = YAML(typ="safe").load(vector.read_text())
    patterns = {key: Patterns(**names) for key, names in case.get("patterns", {}).items()}
    comparison = Comparison(case["model"], case["policy"], matcher=case.get("matcher", "m"), patterns=patterns)

    for request in case["requests"]:
        verdict = comparison.ask(request["values"], request.get("attributes", {}))
        assert request["effect"] == verdict.effect.name
    named = {it.name for it in DIFFERENCES} & comparison.counts.keys()
    assert {case[key] for key in ("difference",) if key in case} == named


def test_every_difference_has_a_vector() -> None:
    """What is said to differ from Casbin differs in a case that anybody can read."""
    assert {it.name for it in DIFFERENCES} <= {vector.stem for vector in VECTORS}


def test_every_difference_is_documented() -> None:
    """The document for those who come from Casbin names each of them."""
    document = (Path(__file__).parents[2] / "docs/casbin.md").read_text()

    assert [] == [it.name for it in DIFFERENCES if f"`{it.name}`" not in document]


def _strange_tokens(model: Drawn) -> st.SearchStrategy[dict[str, Any]]:
    """Draws the tokens of a request, of which any may be anything."""
    return st.fixed_dictionaries(
        {
            token: st.builds(Named, st.sampled_from(KINDS[kind].request), holed(ATTRIBUTES)) | strange_values()
            for token, kind in model.request.items()
        }
    )
