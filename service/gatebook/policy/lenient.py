"""Reads a plain set as pycasbin reads it, where the strict reading refuses it.

Owns `strict=False`, which only users of the library have; a server never reads like this. Rules:

1. a set that the strict reading accepts is read strictly, and means what it means there;
2. otherwise pycasbin itself reads the model and the lines, with all that it drops, cuts and rewrites, and puts the
   rules in its order; what the strict reading refused comes along as warnings;
3. what pycasbin cannot load, or fails at with every request, is refused, and so is what has no meaning here.

Evaluation is ours in both cases: three-valued, with patterns that take linear time, and to any depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gatebook.expression.tokens import ParseError
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.casbin_files import CasbinFiles
from gatebook.policy.casbin_text import read_text
from gatebook.policy.model import (
    EffectDefinition,
    EffectKind,
    Matcher,
    Model,
    RoleDefinition,
    TokensDefinition,
    names_of,
)
from gatebook.policy.oracle import CasbinReading, casbin_reading
from gatebook.values import Edge, Finding, Rule, Severity

NOT_READABLE = "NOT_READABLE"


def read_leniently(
    files: Mapping[str, bytes], rows: Iterable[Sequence[str]] | None = None
) -> tuple[CasbinFiles, list[Finding]]:
    """Returns what pycasbin reads of the files, or of these rows instead of rule files, and what refuses it."""
    try:
        reading = casbin_reading(files, rows)
    except ValueError as err:
        finding = Finding(MODEL_FILE, 0, 0, NOT_READABLE, f"Casbin cannot read these files: {err}")
        return CasbinFiles(Model({}, {}, {}, {}, {}), (), ()), [finding]
    findings: list[Finding] = []
    model = _model(reading, findings)
    rules, edges = _rules(model, reading, findings), _edges(model, reading, findings)
    return CasbinFiles(model, rules, edges), findings


def as_warnings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns what the strict reading found, none of which refuses."""
    return tuple(msgspec.structs.replace(finding, severity=Severity.WARNING) for finding in findings)


def _model(reading: CasbinReading, findings: list[Finding]) -> Model:
    defined = reading.requests.keys() | reading.policies.keys() | reading.effects.keys() | reading.matchers.keys()
    findings += [_finding(f"the model does not define `{key}`; add it") for key in "rpem" if key not in defined]
    kinds = {kind.value.replace("p.", "p_"): kind for kind in EffectKind}
    effect = kinds.get(reading.effects.get("e", ""))
    if effect is None:
        findings.append(_finding(f"`{reading.effects.get('e', '')}` is no effect that Casbin has"))
    model = Model(
        {key: TokensDefinition(key, tokens, 0) for key, tokens in reading.requests.items()},
        {key: TokensDefinition(key, tokens, 0) for key, tokens in reading.policies.items()},
        {key: RoleDefinition(key, arity, 0, count) for key, (arity, count) in reading.roles.items()},
        {} if effect is None else {"e": EffectDefinition("e", effect, 0)},
        {},
        as_casbin=True,
    )
    findings += [
        _finding(f"`{definition.key}` names a token twice")
        for definition in (*model.requests.values(), *model.policies.values())
        if len(set(definition.tokens)) < len(definition.tokens)
    ]
    matchers = {}
    for key, text in reading.matchers.items():
        try:
            matchers[key] = Matcher(key, text, read_text(text, names_of(model)), 0)
        except ParseError as err:
            # Another matcher than `m` may be one that nobody asks for.
            if key == "m":
                findings.append(_finding(f"matcher `{key}`: {err.message}"))
    return msgspec.structs.replace(model, matchers=matchers)


def _rules(model: Model, reading: CasbinReading, findings: list[Finding]) -> tuple[Rule, ...]:
    rules = []
    for line in reading.rules:
        names = model.policies[line.key].tokens
        if len(line.fields) != len(names):
            message = f"the rule has {len(line.fields)} fields, and `{line.key}` has {len(names)}; Casbin fails at it"
            findings.append(Finding(line.file, line.line, 1, NOT_READABLE, message))
        rules.append(Rule(line.key, line.fields, line.file, line.line, line.text))
    return tuple(rules)


def _edges(model: Model, reading: CasbinReading, findings: list[Finding]) -> tuple[Edge, ...]:
    edges = []
    for line in reading.edges:
        role = model.roles[line.key]
        if len(line.fields) < role.width:
            message = f"the link has {len(line.fields)} names, but `{line.key}` has {role.width}"
            findings.append(Finding(line.file, line.line, 1, NOT_READABLE, message))
            continue
        child, parent, *domains = line.fields[: role.arity]
        parameters = line.fields[role.arity : role.width]
        edges.append(Edge(line.key, child, parent, tuple(domains), line.file, line.line, parameters))
    return tuple(edges)


def _finding(message: str) -> Finding:
    return Finding(MODEL_FILE, 0, 0, NOT_READABLE, message)
