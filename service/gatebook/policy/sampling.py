"""Policy tests that keep what another engine answered.

Owns `sample_tests`: a table of requests near to the rules of a plain set, allowed and denied ones, with the answers
that it is given. Values come from the rules and links themselves, from patterns made concrete, and from what conditions
compare attributes with; somebody and something that no rule names are always among them. Where the other engine fails,
ours says what is expected.
"""

from __future__ import annotations

import io
import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML

from gatebook.expression.parse import parse
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.policy.expectation_table import OTHERS, OUTCOME
from gatebook.policy.model import walk
from gatebook.policy.policy_set import PolicySet

RULES_MAX = 12
"""How many rules, spread over the set, give values."""
POOL_MAX = 8
ACTIONS_MAX = 5
CONTEXTS_MAX = 6
EXPECTATIONS_MAX = 400
HEADING: Final = "# What pycasbin answered when the set was imported. Change what is not meant, and add what is.\n"
ACTION: Final = "act"
STRANGER: Final = "somebody-else"
_SOURCES = {"sub": "subject", "obj": "resource", "act": "action"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,60}")
_WORD = re.compile(r"[^\s,](?:[^,\n]*[^\s,])?")
_PLACES = re.compile(r"(?<=/):[A-Za-z_]\w*|\{\w+\}|\.?\*")
_PATTERN = re.compile(r"\*|/[:{]")

Values = Mapping[str, Any]
Request = Mapping[str, tuple[str, Values]]
"""The tokens of a request, each a text with attributes."""
Ask = Callable[[Request], bool | None]
"""Answers a request; None where it fails."""


class Samples(msgspec.Struct, frozen=True):
    """The text of a test file, how many expectations it has, and at how many of them the other engine failed."""

    text: str
    expectations: int
    failed: int


class _Asked(msgspec.Struct, frozen=True):
    """Somebody or something that is asked about, under the name that tests give it."""

    name: str
    value: str
    attributes: Values = {}


def sample_tests(policy_set: PolicySet, ask: Ask, ours: Ask, beside: PolicySet | None = None) -> Samples:
    """Returns tests of a plain set that expect what another engine answers.

    Args:
        policy_set: The set.
        ask: Asks the other engine.
        ours: Answers where the other engine fails.
        beside: A set whose rules give values as well.
    """
    rng = random.Random(0)  # noqa: S311 - the same set gives the same tests
    tokens = policy_set.model.requests[policy_set.model.sections(policy_set.settings.matcher).request].tokens
    expressions = [matcher.expression for matcher in policy_set.model.matchers.values()]
    expressions += _conditions(policy_set)
    known = set(policy_set.rules)
    more = [rule for rule in beside.rules if rule not in known] if beside is not None else []
    rules = [*_spread(policy_set.rules, RULES_MAX), *_spread(more, RULES_MAX)]
    pools = {token: _pool(policy_set, token, rules, expressions, rng) for token in tokens}
    named = {token: _named(token, pools[token], expressions, rng) for token in tokens}
    who, what = named.get("sub") or [_Asked("somebody", "somebody")], named.get("obj") or [_Asked("thing", "thing")]
    does = (named.get("act") or [_Asked("act", "act")])[:ACTIONS_MAX]
    rest = [token for token in tokens if token not in _SOURCES]
    contexts = list(itertools.product(*(named[token] for token in rest)))
    rng.shuffle(contexts)
    contexts = contexts[: max(1, min(CONTEXTS_MAX, EXPECTATIONS_MAX // (len(who) * len(what) * len(does))))]
    tests, failed = [], 0
    for number, context in enumerate(contexts, 1):
        told, expect = dict(zip(rest, context, strict=True)), {}
        for subject, resource, action in itertools.product(who, what, does):
            request = {"sub": subject, "obj": resource, "act": action, **told}
            asked = {token: (request[token].value, request[token].attributes) for token in tokens}
            answer = ask(asked)
            if answer is None:
                failed, answer = failed + 1, ours(asked)
            expect[subject.name, resource.name, action.value] = "ALLOW" if answer else "DENY"
        tests.append(_test(number, (who, what, does), told, expect))
    return Samples(_text(who, what, tests), len(contexts) * len(who) * len(what) * len(does), failed)


def _conditions(policy_set: PolicySet) -> list[Expression]:
    """Returns the conditions of rules, each once."""
    texts: dict[str, None] = {}
    for rule in policy_set.rules:
        fields = policy_set.model.condition_fields(rule.ptype)
        tokens = policy_set.model.policies[rule.ptype].tokens
        texts.update(
            {value: None for token, value in zip(tokens, rule.fields, strict=True) if token in fields and value}
        )
    return [parse(text) for text in itertools.islice(texts, 200)]


def _pool(
    policy_set: PolicySet, token: str, rules: Sequence[Any], expressions: Iterable[Expression], rng: random.Random
) -> list[str]:
    """Returns the values that a token takes."""
    values: dict[str, None] = {}
    relations = set()
    for node in itertools.chain.from_iterable(map(walk, expressions)):
        if isinstance(node, Call) and any(isinstance(it, Path) and it.names[1:2] == (token,) for it in node.operands):
            relations.add(node.op)
            values.update(
                {it.value: None for it in node.operands if isinstance(it, Literal) and isinstance(it.value, str)}
            )
    for rule in rules:
        names = policy_set.model.policies[rule.ptype].tokens
        if token in names:
            values.update(dict.fromkeys(_concrete(rule.fields[names.index(token)])))
    children = [edge.child for edge in policy_set.edges if edge.gtype in relations]
    parents = {edge.parent for edge in policy_set.edges if edge.gtype in relations}
    values.update(dict.fromkeys(_spread([child for child in children if child not in parents], POOL_MAX)))
    usable = [value for value in values if _WORD.fullmatch(value) and len(value) < 100]  # noqa: PLR2004
    if len(usable) > POOL_MAX:
        usable = rng.sample(usable, POOL_MAX)
    return usable if usable and token == ACTION else [*usable, STRANGER]


def _concrete(value: str) -> Iterator[str]:
    """Yields a value, and one that it could match as a pattern."""
    if _PATTERN.search(value):
        yield _PLACES.sub("x1", value).strip("^$")
        yield _PLACES.sub("x1/y2", value).strip("^$")
    yield value.partition("/")[0] if re.fullmatch(r"[\d.]+/\d+", value) else value


def _named(token: str, pool: Sequence[str], expressions: Iterable[Expression], rng: random.Random) -> list[_Asked]:
    """Returns the values under names of their own, with attributes where rules read some."""
    attributes = _attributes(token, expressions)
    made: list[_Asked] = []
    for number, value in enumerate(pool, 1):
        fits = _NAME.fullmatch(value) and value not in (OTHERS, OUTCOME) and all(value != it.name for it in made)
        name = value if fits else f"{_SOURCES.get(token, token)} {number}"
        for variant in ("", " again", " once more") if attributes else ("",):
            drawn = {key: rng.choice(of) for key, of in attributes.items()}
            made.append(_Asked(f"{name}{variant}", value, drawn))
    return made[: POOL_MAX + 2]


def _attributes(token: str, expressions: Iterable[Expression]) -> dict[str, list[Any]]:
    """Returns the attributes of a token that are read, and values near to what they are compared with."""
    found: dict[str, dict[Any, None]] = {}
    for node in itertools.chain.from_iterable(map(walk, expressions)):
        if not isinstance(node, Call):
            continue
        near = [it for side in node.operands for it in _literals(side)]
        for side in node.operands:
            if isinstance(side, Path) and side.names[0][0] == "r" and side.names[1:2] == (token,) and side.names[2:]:
                found.setdefault(side.names[2], {}).update(dict.fromkeys(near))
    # What is compared with numbers alone is a number: pycasbin fails at another kind.
    return {
        key: list(values) if values and not any(isinstance(it, str) for it in values) else [*values, STRANGER]
        for key, values in found.items()
        if key != "id"
    }


def _literals(node: Expression) -> Iterator[Any]:
    for it in walk(node):
        if isinstance(it, Literal) and it.value is not None:
            yield it.value
            if isinstance(it.value, int | float) and not isinstance(it.value, bool):
                yield it.value + 1
                yield it.value - 1


def _texts(node: Expression) -> Iterator[str]:
    return (node.value for node in (node,) if isinstance(node, Literal) and isinstance(node.value, str))


def _test(
    number: int,
    asked: tuple[Sequence[_Asked], Sequence[_Asked], Sequence[_Asked]],
    context: Mapping[str, _Asked],
    expect: Mapping[tuple[str, str, str], str],
) -> dict[str, Any]:
    who, what, does = asked
    actions = list(dict.fromkeys(it.value for it in does))
    table = {
        subject.name: _short(
            {thing.name: _short({act: expect[subject.name, thing.name, act] for act in actions}) for thing in what}
        )
        for subject in who
    }
    told = " and ".join(f"{token} {it.value}" for token, it in context.items())
    made: dict[str, Any] = {
        "name": f"what Casbin answered{', with ' + told if told else ''} ({number})",
        "subjects": [it.name for it in who],
        "actions": actions,
        "resources": [it.name for it in what],
    }
    if context:
        made["context"] = {token: it.value for token, it in context.items()}
    return {**made, "expect": _short(table)}


def _short(table: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an outcome or a table
    """Returns what all entries are, where they are alike; else those that are not like most of them."""
    values = list(table.values())
    if all(value == values[0] for value in values):
        return values[0] if isinstance(values[0], str) else {OTHERS: values[0]}
    most = max(values, key=values.count)
    if values.count(most) == 1:
        return dict(table)
    return {**{key: value for key, value in table.items() if value != most}, OTHERS: most}


def _text(who: Iterable[_Asked], what: Iterable[_Asked], tests: Sequence[Mapping[str, Any]]) -> str:
    document = {
        "subjects": {it.name: _told(it) for it in who},
        "resources": {it.name: _told(it) for it in what},
        "tests": list(tests),
    }
    yaml = YAML()
    yaml.width = 120
    yaml.default_flow_style = None
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    written = io.StringIO()
    yaml.dump(document, written)
    return HEADING + written.getvalue()


def _told(asked: _Asked) -> dict[str, Any] | None:
    made: dict[str, Any] = {} if asked.name == asked.value else {"id": asked.value}
    own = {key: value for key, value in asked.attributes.items() if key != "type"}
    if "type" in asked.attributes:
        made["type"] = str(asked.attributes["type"])
    return {**made, **({"properties": own} if own else {})} or None


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Returns at most so many items, spread over all of them."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])
