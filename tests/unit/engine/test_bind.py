"""Requests bound to the tokens of a plain set's model."""

from __future__ import annotations

import msgspec
import pytest
from tests.property.strategies import EFFECTS, plain_set

from gatebook.compiler.program import compile_program
from gatebook.engine.bind import bind
from gatebook.engine.evaluate import evaluate
from gatebook.errors import TokenMissingError
from gatebook.policy.settings import Settings
from gatebook.values import AccessRequest, Effect, Entity

MODEL = """
[request_definition]
r = sub, dom, obj, act, network
[policy_definition]
p = dom, network
[policy_effect]
e = {effect}
[matchers]
m = {matcher}
"""
REQUEST = AccessRequest(
    subject=Entity("person", "ana", {"age": 30, "id": "mallory", "tags": ["a"]}),
    action="read",
    resource="data1",
    context={"dom": "hr", "network": {"zone": "corp"}},
    action_properties={"risk": "low"},
    resource_type="table",
    resource_properties={"owner": "ana", "type": "forged"},
)


@pytest.mark.parametrize(
    "matcher",
    [
        "r.sub == 'ana' && r.sub.id == 'ana' && r.sub.type == 'person' && r.sub.age == 30",
        "r.obj == 'data1' && r.obj.id == 'data1' && r.obj.type == 'table' && r.obj.owner == r.sub",
        "r.act == 'read' && r.act.name == 'read' && r.act.risk == 'low'",
        "r.dom == p.dom && r.dom in ('hr', 'legal')",
        "r.network.zone == p.network",
        "'a' in r.sub.tags",
    ],
)
def test_tokens(matcher: str) -> None:
    """A token compares as its id, also where its attributes are read, and no property outranks what it is."""
    model = MODEL.format(effect=EFFECTS["allow"], matcher=matcher)
    program = compile_program(plain_set(model, "p, hr, corp\n"), None)

    assert evaluate(program, bind(program, REQUEST)).effect is Effect.ALLOW


@pytest.mark.parametrize(
    ("context", "missing"), [({"dom": "hr"}, "network"), ({"network": {}}, "dom"), ({"dom": None}, "dom")]
)
def test_a_missing_token_is_an_error(context: dict[str, object], missing: str) -> None:
    """A token that the request does not supply is the caller's mistake, and named with the field to send."""
    program = compile_program(plain_set(MODEL.format(effect=EFFECTS["allow"], matcher="r.dom == p.dom"), ""), None)

    with pytest.raises(TokenMissingError) as caught:
        bind(program, msgspec.structs.replace(REQUEST, context=context))

    assert {"token": missing, "field": f"context.{missing}"} == caught.value.metadata


def test_settings_bind_otherwise() -> None:
    """`gatebook.yaml` may take a token from elsewhere."""
    policy_set = plain_set(MODEL.format(effect=EFFECTS["allow"], matcher="r.network == 'train' && r.dom == 'job'"), "")
    bindings = {"network": "purpose", "dom": "actor"}
    program = compile_program(msgspec.structs.replace(policy_set, settings=Settings(request=bindings)), None)
    request = msgspec.structs.replace(REQUEST, purpose="train", actor=Entity("agent", "job"))

    assert evaluate(program, bind(program, request)).effect is Effect.ALLOW
