"""Compiles the rules of one type (`p`, `p2`, ...) under their matcher.

Owns the way from rules to indexes: conditions are parsed once per text, what is left of the
matcher is compiled once per combination of conditions, and every rule becomes one entry of the
index of each alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from gatebook.compiler.closure import Closure, Fields, Tokens, compile_expression
from gatebook.compiler.index import Blind, Entry, Index, Outcome
from gatebook.compiler.split import EVAL, Alternative, conjuncts, reads_token, split
from gatebook.compiler.timed import reads_time, with_time
from gatebook.compiler.understand import not_understood, pattern_fields
from gatebook.expression.functions import complaint
from gatebook.expression.parse import ParseError
from gatebook.expression.residual import ROW, reads_row, residual
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.truth import Functions
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.model import Matcher, Model, Sections, walk
from gatebook.policy.rule_text import read_condition
from gatebook.values import Finding, Rule

NOT_UNDERSTOOD = "NOT_UNDERSTOOD"
_NO_CONDITIONS: dict[str, Expression] = {}
_NO_TOKENS: Tokens = {}


class ReadRule(msgspec.Struct, frozen=True, gc=False):
    """A rule with its conditions as trees, by field.

    `bare` is its entry wherever nothing of the matcher is left: one for all indexes.
    """

    bare: Entry
    conditions: Mapping[str, Expression]

    @property
    def order(self) -> int:
        """Returns its place among the rules of its type."""
        return self.bare.order

    @property
    def rule(self) -> Rule:
        """Returns the rule itself."""
        return self.bare.rule


class Section(msgspec.Struct, frozen=True):
    """The rules of one type and what they are evaluated with.

    `late_token` is the token of which one request has many values: the resource.
    """

    sections: Sections
    matcher: Matcher
    names: tuple[str, ...]
    rules: tuple[ReadRule, ...]
    model: Model
    functions: Functions
    given: Functions
    loose: frozenset[str]
    late_token: str

    @property
    def key(self) -> str:
        """Returns the type of its rules."""
        return self.sections.rules

    def reads_time(self, pause: Pause = no_pause) -> bool:
        """Tells whether what its rules say depends on the time of the decision."""
        trees = {id(tree): tree for read in paced(self.rules, pause) for tree in read.conditions.values()}
        return any(map(reads_time, (self.matcher.expression, *trees.values())))

    def indexes(
        self,
        chosen: Callable[[Rule], bool] = lambda _: True,
        keep: Callable[[Expression], bool] = lambda _: True,
        pause: Pause = no_pause,
    ) -> tuple[Index, ...]:
        """Compiles the chosen rules, under the parts of the matcher that are kept: one index per alternative."""
        rules = [rule for rule in paced(self.rules, pause) if chosen(rule.bare.rule)]
        alternatives = split(self.matcher.expression, self.model.roles, keep, loose=self.loose, given=self.given)
        return tuple(self._index(alternative, rules, pause) for alternative in alternatives)

    def _index(self, alternative: Alternative, rules: Sequence[ReadRule], pause: Pause) -> Index:
        positions = {name: position for position, name in enumerate(self.names)}
        conditions = [positions[field] for field in sorted(self.matcher.condition_fields)]
        statics = [compile_expression(part, positions, self.functions) for part in alternative.statics]
        compiled: dict[tuple[object, ...], _Rest] = {}
        entries = []
        for read in paced(rules, pause):
            decided = [static(_NO_TOKENS, read.rule.fields) for static in statics]
            if False in decided:
                continue
            certain = all(outcome is True for outcome in decided)
            texts = (certain, *[read.rule.fields[position] for position in conditions])
            if texts not in compiled:
                parts = alternative.rest if certain else (*alternative.rest, Literal(None))
                compiled[texts] = self._rest(parts, read.conditions, positions)
            rest = compiled[texts]
            if rest.closure is None:
                entries.append(read.bare)
                continue
            entries.append(Entry(read.order, read.rule, rest.closure, rest.blind, fixed=rest.fixed, late=rest.late))
        guard = compile_expression(Call("and", alternative.guards), positions, self.functions)
        return Index(alternative.keys, self.names, guard if alternative.guards else None, entries, pause)

    def _rest(
        self, parts: Sequence[Expression], conditions: Mapping[str, Expression], positions: Mapping[str, int]
    ) -> _Rest:
        left = [with_conditions(part, conditions) for part in parts]
        left = [part for part in left if not (isinstance(part, Literal) and part.value is True)]
        if not left:
            return _Rest()
        whole = left[0] if len(left) == 1 else Call("and", tuple(left))
        closure = compile_expression(whole, positions, self.functions)
        late = reads_token(whole, self.late_token)
        if not reads_row(whole):
            return _Rest(closure, late=late)
        if all(node.names[:2] == ROW for node in walk(whole) if isinstance(node, Path)):
            over_row = residual(whole, {}, self.functions)
            return _Rest(closure, lambda _tokens, _fields: over_row, fixed=True, late=late)
        return _Rest(closure, self._blind(whole, positions), late=late)

    def _blind(self, whole: Expression, positions: Mapping[str, int]) -> Blind:
        """Returns what gives the outcome without a row, where the rest reads other things too."""
        request, key, names, functions = self.sections.request, self.key, self.names, self.functions
        seen = Call("and", tuple(part for part in conjuncts(whole) if not reads_row(part)))
        fails = compile_expression(seen, positions, functions)

        def blind(tokens: Tokens, fields: Fields) -> Outcome:
            # One part that is False makes the whole False, whatever the row: the usual case, and cheap.
            if fails(tokens, fields) is False:
                return False
            return residual(whole, {request: tokens, key: dict(zip(names, fields, strict=True))}, functions)

        return blind


class _Rest(msgspec.Struct, frozen=True):
    """What is left of a matcher for rules with the same conditions; see `Entry`."""

    closure: Closure | None = None
    blind: Blind | None = None
    fixed: bool = False
    late: bool = False


def read_rules(
    model: Model,
    sections: Sections,
    given: Functions,
    rules: Sequence[Rule],
    pause: Pause = no_pause,
    timed: AbstractSet[str] = frozenset(),
) -> tuple[tuple[ReadRule, ...], list[Finding]]:
    """Parses the conditions of rules of one type, each text once, and checks their patterns.

    Calls of functions that are `timed` get the time of the decision.
    """
    key, matcher = sections.rules, model.matchers[sections.matcher]
    names = model.policies[key].tokens
    fields = sorted(matcher.condition_fields)
    patterns = [(function, names.index(field)) for function, field in pattern_fields(matcher.expression, given)]
    parsed: dict[str, Expression | Finding] = {}
    read, findings = [], []
    for order, rule in enumerate(paced(rules, pause)):
        if len(rule.fields) != len(names):
            message = f"the rule has {len(rule.fields)} fields, but `{key}` has {len(names)}: {', '.join(names)}"
            findings.append(Finding(rule.file, rule.line, 1, NOT_UNDERSTOOD, message))
            continue
        for function, position in patterns:
            if wrong := complaint(function, text := rule.fields[position]):
                findings.append(Finding(rule.file, rule.line, rule.text.find(text) + 1, NOT_UNDERSTOOD, wrong))
        conditions = {} if fields else _NO_CONDITIONS
        for field in fields:
            text = rule.fields[names.index(field)]
            if text not in parsed:
                found = _condition(model, sections, given, rule, text)
                parsed[text] = found if isinstance(found, Finding) else with_time(found, sections.request, timed)
            condition = parsed[text]
            if isinstance(condition, Finding):
                findings.append(msgspec.structs.replace(condition, file=rule.file, line=rule.line))
            else:
                conditions[field] = condition
        read.append(ReadRule(Entry(order, rule), conditions))
    return tuple(read), findings


def check_matcher(model: Model, sections: Sections, given: Functions) -> list[Finding]:
    """Returns what of a matcher is not understood."""
    matcher = model.matchers[sections.matcher]
    return [
        Finding(MODEL_FILE, matcher.line, offset + 1, NOT_UNDERSTOOD, f"matcher `{matcher.key}`: {message}")
        for offset, message in not_understood(matcher.expression, model, sections, given, in_rule=False)
    ]


def with_conditions(expression: Expression, conditions: Mapping[str, Expression]) -> Expression:
    """Puts a rule's conditions in the place of `eval(p.field)`."""
    match expression:
        case Call(op, (Path((_, field)),)) if op == EVAL:
            return conditions[field]
        case Call(op, operands, span):
            return Call(op, tuple(with_conditions(operand, conditions) for operand in operands), span)
    return expression


def _condition(model: Model, sections: Sections, given: Functions, rule: Rule, text: str) -> Expression | Finding:
    start = max(rule.text.find(text), 0)
    try:
        tree = read_condition(model, text)
    except ParseError as err:
        return Finding(rule.file, rule.line, start + err.offset + 1, NOT_UNDERSTOOD, err.message)
    for offset, message in not_understood(tree, model, sections, given, in_rule=True):
        return Finding(rule.file, rule.line, start + offset + 1, NOT_UNDERSTOOD, message)
    return tree
