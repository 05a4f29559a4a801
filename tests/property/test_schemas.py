"""The JSON Schemas of policy sets say what the readers do: what loads is valid, and what has a wrong shape is not."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gatebook.policy import bundle
from gatebook.policy.catalogue import parse_catalogue
from gatebook.policy.policy_test_file import read_policy_tests
from gatebook.policy.purposes import parse_purposes
from gatebook.policy.schema import SCHEMAS
from gatebook.policy.settings import parse_settings
from gatebook.policy.yaml_nodes import Listing, Node, Scalar, Table, parse_yaml
from gatebook.values import Finding

ROOT = Path(__file__).parents[2]
FORM = {"UNKNOWN_KEY", "MISSING_KEY", "MALFORMED_NAME", "DUPLICATE_NAME", "WRONG_VALUE"}
"""What a finding about the shape of a file is called."""
BEYOND_A_SCHEMA = (
    "is no column of",
    "which identifies nobody",
    "is not after `effective_time`",
    "must be a time such as",  # the shape of a time can be told, not whether there is such a day
    "comes from the request itself",
    "nothing goes below an action",
    "unknown mask",
)
ACTIONS = frozenset(("read", "aggregate", "export", "share", "write", "delete", "ingest", "administer"))
UNREAD = "others"
"""What stands for all that are not named is not read where everything is."""
READERS: dict[str, Callable[[str], list[Finding]]] = {
    "gatebook": lambda text: parse_settings(text, "x")[1],
    "gatebook_governed": lambda text: parse_settings(text, "x", governed=True)[1],
    "catalogue": lambda text: parse_catalogue(text, "x", actions=ACTIONS)[1],
    "purposes": lambda text: parse_purposes(text, "x")[1],
    "policy_test": lambda text: read_policy_tests("x", text.encode())[1],
}
VALUES: tuple[Any, ...] = (
    None, True, 7, -1, 1.5, 10**12, "", " ", "x", "all", "role:x", "role: x", "a.b", "a.*", "none", "confidential",
    "ALLOW", "2026-05-01T00:00:00Z", "2026-05-01", "true", "7", "keyMatch2", "text", "x" * 5_000, [], {}, ["a", "a"],
    ["role:a"], [None], {"x": 1}, {"consent": "none"}, {"outcome": "DENY"},
)  # fmt: skip
ADDED = ("unknown", "true", "7", "a b", "description", "purposes", "roles", "x.y", "others")


def document(node: Node) -> Any:  # noqa: ANN401  # whatever the file says
    """Returns what a program that reads YAML 1.2 has of a file."""
    match node:
        case Scalar(value):
            return value
        case Listing(items):
            return [document(item) for item in items]
        case Table(entries):
            return {key.text: document(value) for key, value in entries}


def shipped(name: str) -> list[str]:
    """Returns the texts of shipped files that a schema is for."""
    if name == "policy_test":
        return [path.read_text() for path in sorted(ROOT.glob("policies/*/tests/*.yaml"))]
    if not name.startswith("gatebook"):
        return [path.read_text() for path in sorted(ROOT.glob(f"policies/*/{name}.yaml"))]
    every = sorted(ROOT.glob("policies/*/gatebook.yaml")) + sorted(ROOT.glob("tests/cases/casbin/*/gatebook.yaml"))
    governed = [path for path in every if (path.parent / bundle.CATALOGUE_FILE).exists()]
    return [path.read_text() for path in (governed if name == "gatebook_governed" else every)]


def containers(value: Any) -> Iterator[Any]:  # noqa: ANN401  # whatever the file says
    """Yields every mapping and list within a document."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def changed(original: Any, rng: random.Random) -> Any:  # noqa: ANN401  # whatever the file says
    """Returns a document with one thing in it otherwise."""
    made = copy.deepcopy(original)
    place = rng.choice(list(containers(made)))
    if isinstance(place, list):
        at = rng.randrange(len(place) + 1)
        place[at : at + rng.randrange(2)] = [copy.deepcopy(rng.choice((*VALUES, *place)))] * rng.randrange(3)
        return made
    key = rng.choice([*place, rng.choice(ADDED)])
    if rng.random() < 0.25:
        place.pop(key, None)
    elif rng.random() < 0.2 and key in place:
        place[rng.choice(ADDED)] = place.pop(key)
    else:
        place[key] = copy.deepcopy(rng.choice(VALUES))
    return made


@pytest.mark.parametrize("name", READERS)
def test_a_schema_says_what_the_reader_does(name: str) -> None:
    """Of shipped files, each with something in it changed: what loads is valid, and what has a wrong shape is not."""
    rng = random.Random(f"schemas of {name}")
    schema = jsonschema.Draft202012Validator(SCHEMAS[name]())
    accepted = refused = 0
    texts = shipped(name)
    for text in texts:
        root, findings = parse_yaml(text, "x")
        assert root is not None
        assert not findings
        assert schema.is_valid(document(root))
        for _ in range(80 // len(texts) + 1):
            written = json.dumps(changed(document(root), rng))
            root_now, _ = parse_yaml(written, "x")
            assert root_now is not None
            found = READERS[name](written)
            wrong = [it for it in found if it.invariant in FORM and not any(t in it.message for t in BEYOND_A_SCHEMA)]
            says = schema.is_valid(document(root_now))
            if not found:
                accepted += 1
                errors = list(schema.iter_errors(document(root_now)))
                assert all(UNREAD in str(error.instance) for error in errors), (written, errors)
            if wrong:
                refused += 1
                assert not says, (written, wrong)
    assert accepted > 3
    assert refused > 15


def test_shipped_guardrails_are_valid() -> None:
    """The schema of guardrails accepts those that come along, and refuses one that says nothing."""
    schema = jsonschema.Draft202012Validator(SCHEMAS["guardrails"]())
    for text in shipped("guardrails"):
        root, _ = parse_yaml(text, "x")
        assert root is not None
        schema.validate(document(root))
    assert not schema.is_valid({"guardrails": {"empty": {}}})


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_has_a_description(name: str) -> None:
    """An editor has something to say of each key, and each schema is one."""
    schema = SCHEMAS[name]()
    jsonschema.Draft202012Validator.check_schema(schema)
    for place in containers(schema):
        if isinstance(place, dict) and isinstance(place.get("type"), str | list) and "properties" in place:
            for key, value in place["properties"].items():
                assert value.get("description") or "$ref" in value, (name, key)
