"""Compiled equals reference equals Casbin, for the classic models."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import casbin
import pytest
from casbin.persist.adapters import StringAdapter
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.strategies import ATTRIBUTES, REQUESTS, SHAPES, Shape, holed, plain_set, policies, strange_values

from gatebook.compiler.program import Program, compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.expression.environment import Named
from gatebook.values import Effect

logging.getLogger("casbin").setLevel(logging.CRITICAL)

WITHOUT_RULE = {"allow", "priority"}
"""The effects of which Casbin names the rule that we name, when it allows."""


class CasbinToken(str):
    """A text with attributes, as Casbin reads them."""

    __slots__ = ("__dict__",)


def casbin_enforcer(shape: Shape, policy: str) -> casbin.Enforcer:
    """Builds Casbin's own answer to a policy."""
    model = casbin.Model()
    model.load_model_from_text(shape.model)
    return casbin.Enforcer(model, StringAdapter(policy or "# none"))


def casbin_token(value: str, attributes: Mapping[str, Any]) -> CasbinToken:
    """Makes a token for Casbin."""
    token = CasbinToken(value)
    token.__dict__.update(attributes)
    return token


def decided(program: Program, tokens: Mapping[str, Any]) -> Effect | None:
    """Returns what the compiled closure decides, or None where it does not say."""
    allowed = None if program.decide is None else program.decide(tuple(tokens[token] for token in program.tokens))
    return None if allowed is None else Effect.ALLOW if allowed else Effect.DENY


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_compiled_equals_reference_equals_casbin(shape: Shape) -> None:
    """For every request with complete values, all three give one answer, by the same rule where they name one."""

    @settings(max_examples=20)
    @given(policies(shape), st.fixed_dictionaries(dict.fromkeys(("sub", "obj"), ATTRIBUTES)))
    def check(policy: str, attributes: dict[str, dict[str, Any]]) -> None:
        policy_set = plain_set(shape.model, policy)
        program, reference = compile_program(policy_set, None), Reference(policy_set)
        enforcer = None if "eval(" in shape.matcher and not policy_set.rules else casbin_enforcer(shape, policy)
        for values in itertools.product(*(REQUESTS[kind] for kind in shape.request.values())):
            own = [attributes.get(token, {}) for token in shape.request]
            tokens = {token: Named(value, its) for token, value, its in zip(shape.request, values, own, strict=True)}
            verdict = evaluate(program, tokens)
            assert reference.evaluate(tokens) == verdict
            assert decided(program, tokens) in (None, verdict.effect)
            if enforcer is None:
                continue
            allowed, rule = enforcer.enforce_ex(*(casbin_token(*it) for it in zip(values, own, strict=True)))
            assert allowed == (verdict.effect is Effect.ALLOW)
            assert verdict.unknown == ()
            if policy_set.rules and verdict.rules and (not allowed or shape.effect in WITHOUT_RULE):
                assert tuple(rule) == verdict.rules[0].fields

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
        program, reference = compile_program(policy_set, None), Reference(policy_set)
        for tokens in requests:
            verdict = evaluate(program, tokens)
            assert reference.evaluate(tokens) == verdict
            assert decided(program, tokens) in (None, verdict.effect)

    check()
