"""Conditions as formulas: the reader of the expression tree that asks the solver.

Owns which operator becomes which formula. For any values of the terms, the formulas say of a condition what
`truth.evaluate` says with those values; but for what is noted as a guess, which may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from gatebook.compiler.timed import with_time
from gatebook.expression.functions import BUILTINS, prefix_pattern
from gatebook.expression.moments import NOW, TIME_MATCH, UNBOUNDED, is_time
from gatebook.expression.operations import STRICT
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.tree import Value as Constant
from gatebook.governance.anybody import Circumstances
from gatebook.governance.symbolic import UNKNOWN, Guess, Items, Symbolic, Truth, Value
from gatebook.governance.texts import successor
from gatebook.policy.model import Model, walk, without_spans
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.rule_text import read_condition

EPOCH: Final = datetime.min.replace(tzinfo=UTC)
_ORDERED = frozenset(("lt", "le", "gt", "ge"))
_CALCULATED = frozenset(("sub", "mul", "div", "mod"))
_NAMES = 3
_CONDITION = 4


class Encoder:
    """Reads conditions under the circumstances of one request."""

    def __init__(self, symbolic: Symbolic, around: Circumstances, model: Model) -> None:
        """Takes what stands for each value that a condition may read."""
        self._symbolic, self._solver = symbolic, symbolic.solver
        self._around, self._model = around, model
        self._values: dict[str, Value] = {}
        self._truths: dict[str, Truth] = {}
        self._guessed: dict[str, tuple[Guess, ...]] = {}
        self._roles = {key for key in model.roles if key == "g"}

    def condition(self, text: str) -> Truth:
        """Returns the truth value of the condition of a rule."""
        if text not in self._truths:
            self._truths[text] = self.truth(read_condition(self._model, text))
        return self._truths[text]

    def truth(self, tree: Expression) -> Truth:
        """Returns the truth value of an expression."""
        return self._symbolic.truth_of(self._value(with_time(tree, "r", frozenset({TIME_MATCH}))))

    def guesses(self, tree: Expression) -> tuple[Guess, ...]:
        """Returns what was guessed of an expression that was read."""
        timed = with_time(tree, "r", frozenset({TIME_MATCH}))
        return tuple(guess for node in walk(timed) for guess in self._guessed.get(repr(without_spans(node)), ()))

    def guesses_of(self, text: str) -> tuple[Guess, ...]:
        """Returns what was guessed of the condition of a rule."""
        return self.guesses(read_condition(self._model, text))

    def _value(self, node: Expression) -> Value:
        key = repr(without_spans(node))
        if key not in self._values:
            before = len(self._symbolic.guesses)
            self._values[key] = self._encoded(node)
            self._guessed[key] = tuple(guess for guess in self._symbolic.guesses[before:] if guess.expression is node)
        return self._values[key]

    def _encoded(self, node: Expression) -> Value:
        symbolic = self._symbolic
        match node:
            case Literal(value):
                return self._constant(value, node)
            case Path(names):
                return self._path(names, node)
            case Call(("and" | "or") as op, operands):
                truths = [symbolic.truth_of(self._value(operand)) for operand in operands]
                joined = symbolic.conjunction(truths) if op == "and" else symbolic.disjunction(truths)
                return symbolic.of_truth(joined)
            case Call("list", operands):
                return Value(is_list=True, items=Items(known=tuple(map(self._value, operands))))
            case Call(op, operands) if op == TIME_MATCH:
                return self._during(node)
            case Call(op, operands):
                return self._operation(op, node)

    def _operation(self, op: str, node: Call) -> Value:
        symbolic = self._symbolic
        operands = [self._value(operand) for operand in node.operands]
        match op, operands:
            case "eq" | "ne", (left, right):
                equal = symbolic.equal(left, right, node)
                return symbolic.of_truth(equal if op == "eq" else Truth(equal.false, equal.true))
            case _, (left, right) if op in _ORDERED:
                return symbolic.of_truth(symbolic.ordered(op, left, right))
            case "in", (item, items):
                return symbolic.of_truth(symbolic.contains(item, items, node))
            case "not", (operand,):
                truth = symbolic.truth_of(operand)
                return symbolic.of_truth(Truth(truth.false, truth.true))
            case "add", (left, right):
                return symbolic.add(left, right, node)
            case _, (left, right) if op in _CALCULATED:
                return symbolic.calculate(op, left, right, node)
            case "neg", (operand,):
                return symbolic.negative(operand)
        if op in STRICT:
            return symbolic.anything(node)
        return self._function(op, node, operands)

    def _function(self, op: str, node: Call, operands: list[Value]) -> Value:
        s, symbolic = self._solver, self._symbolic
        match node.operands:
            case (Path(("r", "sub", "id")), Literal(str() as role)) if op in self._roles:
                return Value(is_truth=True, truth=self._around.somebody.holds(role))
            case (_, Literal(str() as pattern)) if op == "keyMatch":
                prefix, whole = prefix_pattern(pattern)
                key, point = operands[0], s.of_text(prefix)
                if key.is_text is False:
                    return UNKNOWN
                matches = None if point is None else s.same(key.text, point) if whole else s.starts(key.text, prefix)
                if matches is not None:
                    return Value(is_truth=key.is_text, truth=matches)
        builtin = BUILTINS.get(op)
        if builtin is None:
            return symbolic.anything(node) if op in self._model.roles else UNKNOWN
        return symbolic.guess(op, operands, node) if builtin.arity == len(operands) else UNKNOWN

    def _during(self, node: Call) -> Value:
        """Is `moments.time_match` between two constant times, now."""
        match node.operands:
            case (Literal(str() as start), Literal(str() as end), _):
                if not (is_time(start) and is_time(end)):
                    return UNKNOWN
                s, now = self._solver, self._around.now
                after = start == UNBOUNDED or s.below(s.of_number(_microseconds(start)), now)
                before = end == UNBOUNDED or s.below(now, s.of_number(_microseconds(end)))
                return Value(is_truth=True, truth=s.all_of((after, before)))
        return self._symbolic.anything(node)

    def _path(self, names: tuple[str, ...], node: Path) -> Value:
        if len(names) == _NAMES and names[0] == "r":
            readers: Mapping[str, Callable[[str], Value]] = {
                "sub": self._around.subject,
                "ctx": self._around.context,
                "row": self._around.row,
            }
            if names[1] in readers:
                return readers[names[1]](names[2])
        if names == ("r", NOW):
            return UNKNOWN
        return self._symbolic.anything(node)

    def _constant(self, value: Constant, node: Expression) -> Value:
        s = self._solver
        match value:
            case None:
                return UNKNOWN
            case bool():
                return Value(is_truth=True, truth=value)
            case int() | float():
                if value in (float("inf"), float("-inf")) or value != value:  # noqa: PLR0124 - NaN
                    return self._symbolic.anything(node)
                return Value(is_number=True, number=s.of_number(value), whole=isinstance(value, int))
            case str():
                point = s.of_text(value)
                return self._symbolic.anything(node) if point is None else Value(is_text=True, text=point)
            case tuple():
                return Value(is_list=True, items=Items(known=tuple(self._constant(item, node) for item in value)))


def named_texts(policy_set: PolicySet) -> set[str]:
    """Returns every text that conditions of rules and guardrails name, and where texts that begin so end."""
    model = policy_set.model
    trees = [read_condition(model, text) for text in {rule.fields[_CONDITION] for rule in policy_set.rules}]
    wheres = (form.who.where for guardrail in policy_set.guardrails for form in guardrail.forms)
    trees += [where.tree for where in wheres if where is not None]
    found: set[str] = {name for edge in policy_set.edges if edge.gtype == "g" for name in (edge.child, edge.parent)}
    for tree in trees:
        for node in walk(tree):
            if isinstance(node, Literal):
                found |= _texts_in(node.value)
    for text in tuple(found):
        prefix, whole = prefix_pattern(text)
        if not whole:
            found |= {prefix, *filter(None, (successor(prefix),))}
    return found


def _texts_in(value: Constant) -> set[str]:
    if isinstance(value, tuple):
        return {text for item in value for text in _texts_in(item)}
    return {value} if isinstance(value, str) else set()


def _microseconds(text: str) -> int:
    passed = datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
