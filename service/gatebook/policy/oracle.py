"""Casbin's own reading of the files, to hold ours against it.

Owns every use of pycasbin. It is on the path of no request: `compare_reading` runs when a set is
loaded, `Oracle` in tests. pycasbin evaluates text with Python's `ast` and is not safe in threads, so
one lock keeps its calls apart.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from casbin import Enforcer
from casbin.core_enforcer import EnforceContext
from casbin.model import Model as CasbinModel
from casbin.persist.adapter import load_policy_line
from casbin.util import escape_assertion

from gatebook.policy.bundle import MODEL_FILE, rule_files
from gatebook.policy.casbin_files import CasbinFiles
from gatebook.values import Edge, Finding, Rule

HIERARCHY_LEVELS_MAX = 10_000

_LOCK = threading.Lock()
# casbin logs each denial as a warning, with every value of the request.
logging.getLogger("casbin").setLevel(logging.CRITICAL + 1)

_READING_ERRORS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def compare_reading(files: Mapping[str, bytes], ours: CasbinFiles) -> list[Finding]:
    """Returns a finding for each definition, rule and link that Casbin reads otherwise than we do."""
    with _LOCK:
        try:
            theirs = _read(files)
        except _READING_ERRORS as err:
            return [Finding(MODEL_FILE, 0, 0, "READ_DIFFERENTLY", f"Casbin cannot read these files: {err}")]
    return [*_definitions(theirs, ours), *_rules(theirs, ours), *_edges(theirs, ours)]


class Oracle:
    """Asks pycasbin, with the files of a policy set and further links. For tests."""

    def __init__(self, files: Mapping[str, bytes], edges: Iterable[Edge] = ()) -> None:
        """Takes the files, and links that stand in none of the rule files."""
        self._lines = _read(files)
        self._enforcer = Enforcer(self._lines)
        for edge in edges:
            self._enforcer.get_model()["g"][edge.gtype].policy.append([edge.child, edge.parent, *edge.domains])
        for manager in self._enforcer.rm_map.values():
            manager.max_hierarchy_level = HIERARCHY_LEVELS_MAX
        with _LOCK:
            self._enforcer.build_role_links()

    def enforce(self, *tokens: Any) -> bool:  # noqa: ANN401  # a token is any value
        """Returns what `Enforcer.enforce` answers.

        Raises:
            Exception: whatever pycasbin raises on a rule or request that it cannot evaluate.
        """
        with _LOCK:
            return bool(self._enforcer.enforce(*tokens))

    def matches(self, rule: Rule, *tokens: Any) -> bool:  # noqa: ANN401  # a token is any value
        """Tells whether one rule applies to the request, whatever its effect.

        pycasbin has no such question, so it is asked with a model that holds this rule alone,
        allowing, and with the matcher of the same number as the rule (`m2` for `p2`).
        """
        assertion = self._enforcer.get_model()["p"][rule.ptype]
        fields = list(rule.fields)
        if f"{rule.ptype}_eft" in assertion.tokens:
            fields[assertion.tokens.index(f"{rule.ptype}_eft")] = "allow"
        request = "r" + rule.ptype[1:] if "r" + rule.ptype[1:] in self._enforcer.get_model()["r"] else "r"
        context = EnforceContext(request, rule.ptype, "e", "m" + rule.ptype[1:])
        with _LOCK:
            kept, assertion.policy = assertion.policy, [fields]
            try:
                return bool(self._enforcer.enforce(context, *tokens))
            finally:
                assertion.policy = kept


def _read(files: Mapping[str, bytes]) -> Any:  # noqa: ANN401  # casbin has no types
    model = CasbinModel()
    model.load_model_from_text(files[MODEL_FILE].decode())
    for path in rule_files(files):
        for line in files[path].split(b"\n"):
            load_policy_line(line.decode().strip(), model)
    model.sort_policies_by_subject_hierarchy()
    model.sort_policies_by_priority()
    return model


def _definitions(theirs: Any, ours: CasbinFiles) -> Iterable[Finding]:  # noqa: ANN401  # casbin has no types
    model = ours.model
    expected: dict[str, dict[str, tuple[int, object]]] = {
        "r": {key: (it.line, [f"{key}_{token}" for token in it.tokens]) for key, it in model.requests.items()},
        "p": {key: (it.line, [f"{key}_{token}" for token in it.tokens]) for key, it in model.policies.items()},
        "g": {key: (it.line, (it.width, it.parameters)) for key, it in model.roles.items()},
        "e": {key: (it.line, it.kind.value.replace("p.", "p_")) for key, it in model.effects.items()},
        "m": {key: (it.line, escape_assertion(it.text)) for key, it in model.matchers.items()},
    }
    for section, definitions in expected.items():
        read = theirs[section] or {}
        for key in sorted(definitions.keys() | read.keys()):
            line, meant = definitions.get(key, (0, None))
            assertion = read.get(key)
            got = None if assertion is None else _meaning(section, key, assertion)
            if got != meant:
                yield _differently(MODEL_FILE, line, f"`{key}`", got, meant)


def _meaning(section: str, key: str, assertion: Any) -> object:  # noqa: ANN401  # casbin has no types
    match section:
        case "r" | "p":
            return assertion.tokens
        case "g":
            return assertion.value.count("_"), len(assertion.params_tokens)
        case "e":
            return assertion.value.replace(f"p{key[1:]}_", "p_")
    return assertion.value


def _rules(theirs: Any, ours: CasbinFiles) -> Iterable[Finding]:  # noqa: ANN401  # casbin has no types
    for key in ours.model.policies:
        rules = [rule for rule in ours.rules if rule.ptype == key]
        for rule, fields in zip_longest(rules, theirs["p"][key].policy):
            if rule is None or list(rule.fields) != fields:
                yield _differently(
                    *_place(rule), f"a `{key}` line", fields, None if rule is None else list(rule.fields)
                )
                break


def _edges(theirs: Any, ours: CasbinFiles) -> Iterable[Finding]:  # noqa: ANN401  # casbin has no types
    for key in ours.model.roles:
        edges = [edge for edge in ours.edges if edge.gtype == key]
        for edge, fields in zip_longest(edges, theirs["g"][key].policy):
            meant = None if edge is None else [edge.child, edge.parent, *edge.domains, *edge.parameters]
            if meant != fields:
                yield _differently(*_place(edge), f"a `{key}` line", fields, meant)
                break


def _place(line: Rule | Edge | None) -> tuple[str, int]:
    return (MODEL_FILE, 0) if line is None else (line.file, line.line)


def _differently(file: str, line: int, what: str, got: object, meant: object) -> Finding:
    message = f"Casbin reads {what} as {_shown(got)}, which looks like {_shown(meant)}; write it more plainly"
    return Finding(file, line, 1 if line else 0, "READ_DIFFERENTLY", message)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    return (
        f"`{', '.join(map(str, value))}`"
        if isinstance(value, Sequence) and not isinstance(value, str)
        else f"`{value}`"
    )
