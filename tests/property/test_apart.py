"""Guardrails about two accesses: random sets against brute force, as `test_guardrails` does for one.

Nothing is PROVED apart or separate of which brute force finds both, and everything REFUTED shows both.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.governed import GOVERNED_MODEL
from tests.property import whole_sets
from tests.property.test_guardrails import ROLES, asked_of, circumstances, is_access, policy_of, rows, somebodies

from gatebook.governance.prove import Prover, Result, Verdict
from gatebook.policy.directory import Subject
from gatebook.policy.policy_set import PolicySet, load

SEEDS = 24
TRIED = 120
ACTIONS = ["read"]


def set_of(policy: str, guardrail: Mapping[str, Any]) -> PolicySet:
    """Returns a set with one guardrail."""
    files = {
        "model.conf": GOVERNED_MODEL,
        "policy.csv": policy,
        "gatebook.yaml": whole_sets.SETTINGS,
        "catalogue.yaml": whole_sets.CATALOGUE,
        "purposes.yaml": whole_sets.PURPOSES,
        "guardrails.yaml": msgspec.json.encode({"guardrails": {"it": guardrail}}).decode(),
    }
    return load({name: text.encode() for name, text in files.items()}, accepted=True)


def has(policy_set: PolicySet, form: Mapping[str, Any], subjects: list[Subject], texts: str, seed: int) -> set[str]:
    """Returns the datasets of which brute force finds an access of a form by some of these subjects."""
    drawn, found = random.Random(seed), set[str]()
    catalogue = policy_set.catalogue
    assert catalogue is not None
    choices: list[list[Any]] = [subjects, list(circumstances(texts)), list(rows(texts))]
    cells = [(it.id, column) for it in catalogue.datasets.values() for column in it.columns.values()]
    for _ in range(TRIED):
        asked = (
            *(drawn.choice(some) for some in choices),
            *drawn.choice(cells),
            "read",
            drawn.choice(("train", "cost")),
        )
        if asked[3] not in found and is_access(policy_set, form, asked):
            found.add(asked[3])
    return found


def shows(policy_set: PolicySet, verdict: Verdict, forms: list[dict[str, Any]]) -> bool:
    """Tells whether two accesses are shown, one of each of two forms."""
    one, other = (asked_of(policy_set, it) for it in verdict.shown)
    pairs = [(first, second) for first in forms for second in forms if first is not second]
    return any(is_access(policy_set, first, one) and is_access(policy_set, second, other) for first, second in pairs)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_dataset_is_proved_apart_that_serves_both(seed: int) -> None:
    """Of two purposes that are PROVED apart no dataset is allowed for both, be it to two people."""
    drawn = random.Random(seed)
    policy = policy_of(drawn)
    policy_set = set_of(policy, {"apart": {"purposes": ["train", "cost"], "actions": ACTIONS}})
    (verdict,) = Prover(policy_set).verdicts()
    forms: list[dict[str, Any]] = [{"actions": ACTIONS, "purposes": [purpose]} for purpose in ("train", "cost")]

    if verdict.result is Result.REFUTED:
        assert shows(policy_set, verdict, forms), policy
        assert len({it.request.resource for it in verdict.shown}) == 1
        return
    one, other = (has(policy_set, form, list(somebodies(policy)), policy, seed) for form in forms)
    assert not one & other or verdict.result is Result.UNKNOWN, policy


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_role_is_proved_to_have_one_alone_that_has_both(seed: int) -> None:
    """Of what is PROVED separate nobody with a single role has both; REFUTED shows one person with both."""
    drawn = random.Random(seed)
    policy = policy_of(drawn)
    forms: list[dict[str, Any]] = [
        {"on": [drawn.choice(("t.rows.team", "tag:plain"))], "actions": ACTIONS},
        {"on": [drawn.choice(("t.rows.level", "tag:secret", "t.sums"))], "actions": ACTIONS},
    ]
    policy_set = set_of(policy, {"separate": forms})
    (verdict,) = Prover(policy_set).verdicts()

    if verdict.result is Result.REFUTED:
        assert shows(policy_set, verdict, forms), policy
        assert verdict.shown[0].subject == verdict.shown[1].subject
        return
    for role in ROLES:
        chosen = [it for it in somebodies(policy) if it.groups == (role,) and it.id == "zoe"]
        for subject in drawn.sample(chosen, min(3, len(chosen))):
            both = all(has(policy_set, form, [subject], policy, seed) for form in forms)
            assert not both or verdict.result is Result.UNKNOWN, (policy, subject)
