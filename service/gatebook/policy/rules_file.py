"""Reads `policy.csv`: strictly, and every finding at once.

Owns the meaning of that file, which is Casbin's where Casbin reads it as it looks:

1. a line is a rule (`p`, `p2`, ...) or an edge (`g`, `g2`, ...); `#` begins a comment line, and
   nothing else does;
2. fields are separated by commas outside brackets, and lose the spaces around them;
3. the file is not CSV: quotes mean nothing, so quoted fields are refused;
4. a line of an unknown type, or with an unknown effect, is dropped by Casbin without a word, so
   it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from gatebook.expression.moments import AtTime, time_complaint
from gatebook.expression.tree import Expression
from gatebook.pace import Pause, no_pause
from gatebook.policy.brought import NOTHING_BROUGHT, Brought, LinkConditions
from gatebook.policy.conditions import Scope, check
from gatebook.policy.model import Model
from gatebook.policy.source import Line, Remark, walk_lines
from gatebook.policy.suggest import did_you_mean
from gatebook.values import Edge, Finding, Rule

FINDINGS_MAX = 1_000
EFFECTS = ("allow", "deny")
EDGE_FIELDS = ("child", "parent", "domain", *(f"domain{number}" for number in range(2, 8)))
_WATCHED = frozenset(("eft", "priority"))
"""Fields, beside conditions, of which not everything is accepted."""
_PRIORITY = re.compile(r"0|[1-9][0-9]{0,17}")
_BRACKETS = re.compile(r"[,()\[\]]")
_CLOSES = {")": "(", "]": "["}
_ODD = re.compile(r"[()\[\]\"'#]")
"""What a line may hold beside fields and the commas between them."""
# The first separator is the one: to try each of them would take quadratic time.
_SEPARATOR_IN_QUOTES = re.compile(r"'[^',()\[\]]*[,()\[\]][^']*'|\"[^\",()\[\]]*[,()\[\]][^\"]*\"")
_COMMENT = re.compile(r"\s#")
_TRAILING_COMMENT = "Casbin takes a comment after a rule as part of its last field; put it into a line of its own"
_QUOTE_OR_COMMENT = re.compile(r"[\"'#]")
_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'[^']*'")


class RulesReader:
    """Reads the rule files of one model; a condition that occurs often is checked once.

    Past `FINDINGS_MAX` findings nothing more is read: the set is refused, and each finding is work.
    """

    def __init__(self, model: Model, pause: Pause = no_pause, brought: Brought = NOTHING_BROUGHT) -> None:
        """Takes the model that says what the lines consist of, and what to call after some of them."""
        self._model = model
        self._pause = pause
        self._names: dict[str, str] = {}  # each text that stands in many lines is kept once
        self._scopes = {key: _scope(model, key, brought) for key in model.policies}
        self._conditions = {key: model.condition_fields(key) for key in model.policies}
        # The relations whose links all hold between two times, which stand in their lines.
        self._timed = {
            key for key in model.roles if isinstance(brought.conditions.get(key, LinkConditions()).otherwise, AtTime)
        }
        self._arities = {key: role.arity for key, role in model.roles.items()}
        widths = {key: len(it.tokens) for key, it in model.policies.items()}
        self._widths = {**{key: role.width for key, role in model.roles.items()}, **widths}
        self._watched = {
            key: tuple(at for at, name in enumerate(it.tokens) if name in {*_WATCHED, *self._conditions[key]})
            for key, it in model.policies.items()
        }
        self._accepted: set[tuple[str, ...]] = set()  # what watched fields held in a line without remarks
        self._found = 0
        self._checked: dict[tuple[str, str], tuple[Expression | None, tuple[Remark, ...]]] = {}

    def read(self, file: str, content: bytes) -> tuple[list[Rule], list[Edge], list[Finding]]:
        """Returns the rules and edges of a file that could be read, and its findings, unsorted."""
        findings: list[Finding] = []
        rules: list[Rule] = []
        edges: list[Edge] = []
        for line in walk_lines(file, content, findings, self._pause):
            text = line.text.strip()
            if not text or text.startswith("#"):
                continue
            if self._found > FINDINGS_MAX:
                break
            read = self._plain_line(file, line, text) or self._line(file, line, text)
            if isinstance(read, Rule):
                rules.append(read)
            elif isinstance(read, Edge):
                edges.append(read)
            else:
                indent = len(line.text) - len(line.text.lstrip())
                findings += [_place(file, line.number, indent, remark) for remark in read]
                self._found += len(read)
        return rules, edges, findings

    def _plain_line(self, file: str, line: Line, text: str) -> Rule | Edge | None:
        """Reads a line in which nothing can be wrong; gives None of any other."""
        if _ODD.search(text):
            return None
        share = self._names.setdefault
        key, *fields = [share(field, field) for field in map(str.strip, text.split(","))]
        if len(fields) != self._widths.get(key):
            return None
        values = tuple(fields)
        watched = self._watched.get(key)
        if watched is None:
            return self._edge(file, line, key, values) if all(values) and key not in self._timed else None
        if watched and (key, *[values[at] for at in watched]) not in self._accepted:
            return None
        return Rule(key, values, file, line.number, line.text.rstrip())

    def _line(self, file: str, line: Line, text: str) -> Rule | Edge | list[Remark]:
        spans, remarks = split_fields(text)
        if remarks:
            return remarks
        fields = tuple(text[start:end] for start, end in spans)
        key, values = fields[0], fields[1:]
        names = self._fields_of(key)
        if names is None and not self._model.policies:
            return []  # what is wrong is the model, and that is a finding already
        if names is None:
            return [_unknown_type(key, (*self._model.policies, *self._model.roles))]
        conditions = self._conditions.get(key, frozenset())
        remarks = []
        if _QUOTE_OR_COMMENT.search(text):
            remarks += _plain_fields(spans[1:], values, tuple(name in conditions for name in names))
        if len(values) != len(names):
            return [_wrong_count(key, text, names, values), *remarks]
        if key in self._model.roles:
            remarks += _empty_fields(spans[1:], values)
            if key in self._timed:
                remarks += _times(spans[1:], values, self._arities[key])
            return remarks or self._edge(file, line, key, values)
        remarks += self._rule_fields(key, spans[1:], values)
        if remarks:
            return remarks
        self._accepted.add((key, *[values[at] for at in self._watched[key]]))
        return Rule(key, values, file, line.number, line.text.rstrip())

    def _edge(self, file: str, line: Line, key: str, values: tuple[str, ...]) -> Edge:
        arity = self._arities[key]
        return Edge(key, values[0], values[1], values[2:arity], file, line.number, values[arity:])

    def _fields_of(self, key: str) -> tuple[str, ...] | None:
        if key in self._model.policies:
            return self._model.policies[key].tokens
        if key not in self._model.roles:
            return None
        role = self._model.roles[key]
        return (*EDGE_FIELDS[: role.arity], *(f"parameter{number}" for number in range(1, role.parameters + 1)))

    def _rule_fields(self, key: str, spans: list[tuple[int, int]], values: tuple[str, ...]) -> Iterator[Remark]:
        for (start, _), value, name in zip(spans, values, self._model.policies[key].tokens, strict=True):
            if name in self._conditions[key]:
                yield from self._condition(key, start, value)
            elif name == "eft" and value not in EFFECTS and not _COMMENT.search(value):
                message = f"Casbin ignores a rule with the effect `{value}`; write `allow` or `deny`"
                yield Remark(start, "UNKNOWN_EFFECT", message)
            elif name == "priority" and not _PRIORITY.fullmatch(value):
                message = (
                    f"the priority `{value}` is no whole number from 0, so Casbin sorts it as a text; write a number"
                )
                yield Remark(start, "MALFORMED_PRIORITY", message)

    def _condition(self, key: str, start: int, value: str) -> Iterator[Remark]:
        if _is_quoted(value) or _COMMENT.search(value):
            return
        if (key, value) not in self._checked:
            self._checked[key, value] = check(value, self._scopes[key])
        for remark in self._checked[key, value][1]:
            yield Remark(start + remark.offset, remark.invariant, remark.message, remark.severity)


def split_fields(text: str) -> tuple[list[tuple[int, int]], list[Remark]]:
    """Returns where the fields of a line start and end, cut as Casbin cuts them.

    Brackets that do not pair up are refused: Casbin would stop reading there, or take all the
    commas that follow for text.
    """
    cuts = [-1]
    open_brackets: list[tuple[str, int]] = []
    for match in _BRACKETS.finditer(text):
        character = match.group()
        if character in "([":
            open_brackets.append((character, match.start()))
        elif character == ",":
            if not open_brackets:
                cuts.append(match.start())
        elif not open_brackets or open_brackets.pop()[0] != _CLOSES[character]:
            return [], [_unbalanced(text, match.start(), character)]
    if open_brackets:
        character, offset = open_brackets[-1]
        return [], [_unbalanced(text, offset, character)]
    spans = []
    for before, after in pairwise([*cuts, len(text)]):
        field = text[before + 1 : after]
        start = before + 1 + len(field) - len(field.lstrip())
        spans.append((start, start + len(field.strip())))
    return spans, []


def field_column(rule: Rule, position: int) -> int:
    """Returns the column at which a field of a rule starts in its line."""
    indent = len(rule.text) - len(rule.text.lstrip())
    spans, _ = split_fields(rule.text.strip())
    return indent + spans[position + 1][0] + 1


def _scope(model: Model, key: str, brought: Brought) -> Scope:
    matchers = [matcher for matcher in model.matchers.values() if matcher.policy_key == key]
    requests = {matcher.request_key for matcher in matchers if matcher.condition_fields} or {"r"}
    return Scope(
        requests={name: model.requests[name].tokens for name in sorted(requests) if name in model.requests},
        policies={key: model.policies[key].tokens},
        role_arities={name: role.arity for name, role in model.roles.items()},
        in_rule=True,
        given=frozenset(brought.functions),
        awaits=brought.awaits,
    )


def _plain_fields(
    spans: list[tuple[int, int]], values: tuple[str, ...], is_condition: tuple[bool, ...]
) -> Iterator[Remark]:
    for position, ((start, _), value) in enumerate(zip(spans, values, strict=True)):
        condition = position < len(is_condition) and is_condition[position]
        comment = _COMMENT.search(value)
        if comment:
            yield Remark(start + comment.start() + 1, "TRAILING_COMMENT", _TRAILING_COMMENT)
        elif _is_quoted(value) or (not condition and value[:1] == '"'):
            message = "Casbin keeps the quotes as part of the field; write it without quotes"
            yield Remark(start, "QUOTED_FIELD", message)


def _empty_fields(spans: list[tuple[int, int]], values: tuple[str, ...]) -> Iterator[Remark]:
    for (start, _), value in zip(spans, values, strict=True):
        if not value:
            yield Remark(start, "EMPTY_FIELD", "a link needs a name here; write one")


def _times(spans: list[tuple[int, int]], values: tuple[str, ...], arity: int) -> Iterator[Remark]:
    wrong = [
        (start, why)
        for (start, _), text in zip(spans[arity:], values[arity:], strict=True)
        if (why := time_complaint(text))
    ]
    for start, why in wrong:
        yield Remark(start, "MALFORMED_TIME", why)


def _wrong_count(key: str, text: str, names: tuple[str, ...], values: tuple[str, ...]) -> Remark:
    match = _SEPARATOR_IN_QUOTES.search(text)
    if match:
        message = "Casbin cuts the line at commas and brackets also inside quotes; compare with a text that has none"
        return Remark(match.start(), "SEPARATOR_IN_STRING", message)
    if values and values[-1].startswith("#"):
        return Remark(text.rindex("#"), "TRAILING_COMMENT", _TRAILING_COMMENT)
    fields = ", ".join(names)
    message = f"a `{key}` line has {len(names)} fields ({fields}), this one has {len(values)}; write each of them"
    return Remark(0, "WRONG_FIELD_COUNT", message)


def _is_quoted(value: str) -> bool:
    return bool(_QUOTED.fullmatch(value))


def _unbalanced(text: str, offset: int, character: str) -> Remark:
    match = _SEPARATOR_IN_QUOTES.search(text)
    if match and match.start() < offset < match.end():
        message = f"Casbin counts the `{character}` also inside quotes; compare with a text that has none"
        return Remark(offset, "SEPARATOR_IN_STRING", message)
    return Remark(
        offset, "UNBALANCED_BRACKET", f"the `{character}` has no partner; Casbin misreads the commas after it"
    )


def _unknown_type(key: str, known: tuple[str, ...]) -> Remark:
    written = ", ".join(f"`{name}`" for name in known)
    if key[:1] in ('"', "'"):
        return Remark(0, "QUOTED_FIELD", "Casbin drops a line that begins with a quote; write it without quotes")
    if key.startswith((";", "//", "--")):
        return Remark(0, "UNKNOWN_RULE_TYPE", "this is no comment in Casbin; begin the line with `#`")
    hint = did_you_mean(key, known)
    message = f"Casbin drops a line of the type `{key}` without a word; the model defines {written or 'none'}{hint}"
    return Remark(0, "UNKNOWN_RULE_TYPE", message)


def _place(file: str, line: int, indent: int, remark: Remark) -> Finding:
    return Finding(file, line, indent + remark.offset + 1, remark.invariant, remark.message, remark.severity)
