"""The policy and the questions of the comparison: the same content for Gatebook and for its peer.

An office of 80 people with roles and attributes asks for reports and datasets with attributes. The policy is written
twice, as a Casbin set and as resource policies of Cerbos. The questions are 4,000 different ones, 50 for each
person, half allowed and half denied; whether they are is computed here from the rules, read by neither product,
so that every answer of both can be held against a third opinion.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PEOPLE = 80
QUESTIONS_EACH = 50
SEED = 20_260_601
KINDS = ("report", "dataset")
ACTIONS = ("read", "write", "delete")
DEPARTMENTS = ("finance", "people", "sales", "research")
SENSITIVITY_MAX = 5
RESOURCES_OF_A_KIND = 500
ROLES = (("employee",), ("employee", "analyst"), ("employee", "manager"), ("contractor",), ("employee", "auditor"))

MODEL = """[request_definition]
r = sub, obj, act

[policy_definition]
p = role, kind, act, cond, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = g(r.sub, p.role) && r.obj.type == p.kind && r.act == p.act && eval(p.cond)
"""
RULES = (
    ("employee", "read", "same_department && low", "allow"),
    ("employee", "write", "owns", "allow"),
    ("analyst", "read", "cleared", "allow"),
    ("manager", "write", "same_department && senior", "allow"),
    ("manager", "delete", "same_department && senior && cleared", "allow"),
    ("contractor", "read", "same_department", "allow"),
    ("contractor", "read", "secret", "deny"),
    ("auditor", "read", "always", "allow"),
    ("auditor", "read", "top_secret", "deny"),
)
"""Role, action, the names of conditions that must all hold, and effect; for both kinds."""

CASBIN = {
    "same_department": "r.sub.department == r.obj.department",
    "low": "r.obj.sensitivity <= 2",
    "owns": "r.obj.owner == r.sub",
    "cleared": "r.sub.level >= r.obj.sensitivity",
    "senior": "r.sub.level >= 3",
    "secret": "r.obj.sensitivity >= 3",
    "top_secret": "r.obj.sensitivity >= 5",
    "always": "True",
}
CEL = {
    "same_department": "P.attr.department == R.attr.department",
    "low": "R.attr.sensitivity <= 2",
    "owns": "R.attr.owner == P.id",
    "cleared": "P.attr.level >= R.attr.sensitivity",
    "senior": "P.attr.level >= 3",
    "secret": "R.attr.sensitivity >= 3",
    "top_secret": "R.attr.sensitivity >= 5",
    "always": "true",
}


NEW_THING = b"########"
"""Stands in the id of a thing for what each request has of its own."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. Roles are in the Casbin set, and go along with each question to Cerbos, which takes them so."""

    id: str
    roles: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Thing:
    """What is asked for."""

    kind: str
    id: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and its answer by the rules."""

    person: Person
    action: str
    thing: Thing
    allowed: bool


def people() -> list[Person]:
    """Returns the people of the office."""
    chosen = random.Random(SEED)
    return [
        Person(
            f"person-{number:03}",
            ROLES[number % len(ROLES)],
            {"department": chosen.choice(DEPARTMENTS), "level": chosen.randint(1, SENSITIVITY_MAX)},
        )
        for number in range(PEOPLE)
    ]


def about_new_things(asked: list[list[Asked]]) -> list[list[Asked]]:
    """Returns the same questions about things whose ids are still to be filled in; no rule asks for an id."""
    return [
        [replace(one, thing=replace(one.thing, id=f"{one.thing.id}-{NEW_THING.decode()}")) for one in of_person]
        for of_person in asked
    ]


def questions() -> list[list[Asked]]:
    """Returns the questions, those of each person in a list; half of each list is allowed where rules let it be."""
    chosen = random.Random(SEED + 1)
    office = people()
    things = [
        Thing(
            kind,
            f"{kind}-{number:04}",
            {
                "department": chosen.choice(DEPARTMENTS),
                "sensitivity": chosen.randint(1, SENSITIVITY_MAX),
                "owner": chosen.choice(office).id,
            },
        )
        for kind in KINDS
        for number in range(RESOURCES_OF_A_KIND)
    ]
    return [_of_one(person, things, chosen) for person in office]


def _of_one(person: Person, things: Sequence[Thing], chosen: random.Random) -> list[Asked]:
    found: dict[bool, list[Asked]] = {True: [], False: []}
    pairs = [(action, thing) for action in ACTIONS for thing in things]
    chosen.shuffle(pairs)
    for action, thing in pairs:
        allowed = is_allowed(person, action, thing)
        found[allowed].append(Asked(person, action, thing, allowed))
    half = QUESTIONS_EACH // 2
    picked = found[True][:half]
    picked += found[False][: QUESTIONS_EACH - len(picked)]
    chosen.shuffle(picked)
    return picked


def is_allowed(person: Person, action: str, thing: Thing) -> bool:
    """Answers a question by the rules: denied unless allowed, and where anything denies."""
    holds = {
        "same_department": person.attributes["department"] == thing.attributes["department"],
        "low": thing.attributes["sensitivity"] <= 2,
        "owns": thing.attributes["owner"] == person.id,
        "cleared": person.attributes["level"] >= thing.attributes["sensitivity"],
        "senior": person.attributes["level"] >= 3,
        "secret": thing.attributes["sensitivity"] >= 3,
        "top_secret": thing.attributes["sensitivity"] >= 5,
        "always": True,
    }
    effects = {
        effect
        for role, act, conditions, effect in RULES
        if role in person.roles and act == action and all(holds[name] for name in conditions.split(" && "))
    }
    return effects == {"allow"}


def write_casbin(folder: Path) -> None:
    """Writes the policy as a plain Casbin set."""
    folder.mkdir()
    lines = []
    for kind in KINDS:
        for role, action, conditions, effect in RULES:
            condition = " && ".join(CASBIN[name] for name in conditions.split(" && "))
            lines.append(f"p, {role}, {kind}, {action}, {condition}, {effect}")
    lines += [f"g, {person.id}, {role}" for person in people() for role in person.roles]
    (folder / "model.conf").write_text(MODEL, encoding="utf-8")
    (folder / "policy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_cerbos(folder: Path) -> None:
    """Writes the policy as resource policies of Cerbos, one for each kind."""
    folder.mkdir()
    for kind in KINDS:
        text = f'apiVersion: "api.cerbos.dev/v1"\nresourcePolicy:\n  resource: {kind}\n  version: default\n  rules:\n'
        for role, action, conditions, effect in RULES:
            text += f"    - roles: [{role}]\n      actions: [{action}]\n      effect: EFFECT_{effect.upper()}\n"
            text += "      condition:\n        match:\n          all:\n            of:\n"
            text += "".join(f"              - expr: {CEL[name]}\n" for name in conditions.split(" && "))
        (folder / f"{kind}.yaml").write_text(text, encoding="utf-8")
