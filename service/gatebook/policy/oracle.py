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

import msgspec
from casbin import Enforcer
from casbin.core_enforcer import EnforceContext
from casbin.model import Model as CasbinModel
from casbin.persist.adapter import load_policy_line
from casbin.util import escape_assertion

from gatebook.errors import PolicySetRefusedError
from gatebook.policy.bundle import MODEL_FILE, POLICY_FILE, rule_files
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


class CasbinLine(msgspec.Struct, frozen=True):
    """One line as pycasbin reads it, and where it stands."""

    key: str
    fields: tuple[str, ...]
    file: str
    line: int
    text: str


class CasbinReading(msgspec.Struct, frozen=True):
    """What pycasbin reads: definitions by key, without its prefixes, and the lines in its order.

    A relation has its number of names and of parameters; effects and matchers are the texts as it rewrites them.
    """

    requests: Mapping[str, tuple[str, ...]]
    policies: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, tuple[int, int]]
    effects: Mapping[str, str]
    matchers: Mapping[str, str]
    rules: tuple[CasbinLine, ...]
    edges: tuple[CasbinLine, ...]


def casbin_reading(files: Mapping[str, bytes], rows: Iterable[Sequence[str]] | None = None) -> CasbinReading:
    """Returns what pycasbin reads of the files of a set, or of these rows instead of its rule files.

    Raises:
        ValueError: it cannot read them.
    """
    places: _Places = {}
    try:
        with _LOCK:
            model = _read(files, places, rows)
            return CasbinReading(
                requests={key: _tokens(key, it) for key, it in (model["r"] or {}).items()},
                policies={key: _tokens(key, it) for key, it in (model["p"] or {}).items()},
                roles={key: (len(it.tokens), len(it.params_tokens)) for key, it in (model["g"] or {}).items()},
                effects={key: it.value for key, it in (model["e"] or {}).items()},
                matchers={key: it.value for key, it in (model["m"] or {}).items()},
                rules=_lines(model["p"] or {}, places),
                edges=_lines(model["g"] or {}, places),
            )
    except _READING_ERRORS as err:
        raise ValueError(str(err)) from err


def rewritten(text: str) -> str:
    """Returns a condition as pycasbin rewrites it."""
    return str(escape_assertion(text))


class Oracle:
    """Asks pycasbin, with the files of a policy set and further links. For tests."""

    def __init__(self, files: Mapping[str, bytes], edges: Iterable[Edge] = ()) -> None:
        """Takes the files, and links that stand in none of the rule files."""
        self.read = _read(files)
        self._enforcer = Enforcer(self.read)
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


class Answers:
    """Asks pycasbin about the files of a plain set, as they are: whatever it raises is no answer."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Takes the files.

        Raises:
            PolicySetRefusedError: pycasbin cannot read them.
        """
        try:
            self._oracle = Oracle(files)
        except Exception as err:
            raise PolicySetRefusedError(f"pycasbin cannot read these files: {err}") from err
        self._tokens = _tokens("r", self._oracle.read["r"]["r"])

    def ask(self, request: Mapping[str, tuple[str, Mapping[str, Any]]]) -> bool | None:
        """Returns the answer to a request, each token of which is a text with attributes; None where it fails."""
        try:
            return self._oracle.enforce(*(_token(*request[token]) for token in self._tokens))
        except Exception:  # noqa: BLE001 - what pycasbin evaluates may raise anything
            return None


class _Text(str):
    """A text with attributes, as pycasbin reads them."""

    __slots__ = ("__dict__",)


def _token(value: str, attributes: Mapping[str, Any]) -> _Text:
    made = _Text(value)
    made.__dict__.update(attributes)
    return made


_Places = dict[int, tuple[str, int, str]]
"""The file, line and text of each rule and link, by its identity in pycasbin's model."""


def _read(
    files: Mapping[str, bytes], places: _Places | None = None, rows: Iterable[Sequence[str]] | None = None
) -> Any:  # noqa: ANN401  # casbin has no types
    model = CasbinModel()
    model.load_model_from_text(files[MODEL_FILE].decode())
    for path in rule_files(files) if rows is None else ():
        for number, line in enumerate(files[path].split(b"\n"), 1):
            text = line.decode().strip()
            load_policy_line(text, model)
            if places is not None:
                _place_last(model, text.partition(",")[0].strip(), (path, number, text), places)
    for number, (key, *fields) in enumerate(rows or (), 1):
        if key in (model[key[:1]] or {}):
            model[key[:1]][key].policy.append(list(fields))
            _place_last(model, key, (POLICY_FILE, number, ", ".join((key, *fields))), places)
    model.sort_policies_by_subject_hierarchy()
    model.sort_policies_by_priority()
    return model


def _place_last(model: Any, key: str, place: tuple[str, int, str], places: _Places | None) -> None:  # noqa: ANN401  # casbin has no types
    """Notes where the last rule of a type stands, unless the line was none."""
    assertion = (model[key[:1]] or {}).get(key)
    if places is not None and assertion is not None and assertion.policy:
        places.setdefault(id(assertion.policy[-1]), place)


def _tokens(key: str, assertion: Any) -> tuple[str, ...]:  # noqa: ANN401  # casbin has no types
    return tuple(token.removeprefix(f"{key}_") for token in assertion.tokens)


def _lines(assertions: Mapping[str, Any], places: _Places) -> tuple[CasbinLine, ...]:
    return tuple(
        CasbinLine(key, tuple(fields), *places.get(id(fields), (POLICY_FILE, 0, ", ".join((key, *fields)))))
        for key, assertion in assertions.items()
        for fields in assertion.policy
    )


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
