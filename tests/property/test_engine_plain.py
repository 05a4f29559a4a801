"""Compiled equals reference equals Casbin, for the classic models."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.agreement import Comparison, compiled
from tests.property.strategies import ATTRIBUTES, REQUESTS, SHAPES, Shape, holed, plain_set, policies, strange_values

from gatebook.engine.reference import Reference
from gatebook.expression.environment import Named
from gatebook.policy.brought import NOTHING_BROUGHT


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_compiled_equals_reference_equals_casbin(shape: Shape) -> None:
    """For every request with complete values, all three give one answer by the same rule, and nothing is unknown."""

    @settings(max_examples=20)
    @given(policies(shape), st.fixed_dictionaries(dict.fromkeys(("sub", "obj"), ATTRIBUTES)))
    def check(policy: str, attributes: dict[str, dict[str, Any]]) -> None:
        comparison = Comparison(shape.model, policy)
        for values in itertools.product(*(REQUESTS[kind] for kind in shape.request.values())):
            assert comparison.ask(values, attributes).unknown == ()

    check()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_strange_values_never_part_them(shape: Shape) -> None:
    """Whatever a caller sends as token or attribute, the compiled program answers what the reference does."""
    tokens_of = {
        token: st.builds(Named, st.sampled_from(REQUESTS[kind]), holed(ATTRIBUTES)) | strange_values()
        for token, kind in shape.request.items()
    }

    @settings(max_examples=15)
    @given(
        policies(shape),
        st.lists(st.fixed_dictionaries(tokens_of), min_size=8, max_size=8),
    )
    def check(policy: str, requests: list[dict[str, Any]]) -> None:
        policy_set = plain_set(shape.model, policy)
        engine, reference = compiled(policy_set, NOTHING_BROUGHT), Reference(policy_set)
        for tokens in requests:
            assert reference.evaluate(tokens) == engine(tokens)

    check()
