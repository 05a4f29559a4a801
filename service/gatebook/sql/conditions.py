"""Conditions over the row in SQL.

Owns the translation of an expression. In SQL, true, false and null stand for True, False and UNKNOWN, and for each row:

1. what comes out as true is True, and what comes out as false is False;
2. what cannot be said exactly comes out as null. `narrowings` say what that was.

Kinds are decided from the types of the catalogue, as `operations` decides them from the values: an operator on values
that are not of one kind is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatebook.engine.row_masks import NOT_FALSE
from gatebook.expression.operations import TEXT_LENGTH_MAX
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.policy.dataset import Column
from gatebook.sql import terms
from gatebook.sql.dialects import Dialect
from gatebook.sql.numbers import Number, Numbers
from gatebook.sql.terms import Node
from gatebook.sql.values import (
    Items,
    Json,
    Known,
    Moment,
    Text,
    Texts,
    Truth,
    column_value,
    constant,
    contains,
    json_as,
    list_of,
    member,
    same_texts,
)

COLUMN_PARTS = 2
"""`row` and the name of a column; more lead into it."""
ORDERINGS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%"}
BEYOND_DOUBLES = "decimal numbers, and whole ones where they meet one, count as unknown beyond 2^53"


class Conditions:
    """Translates the conditions of one plan."""

    def __init__(self, columns: Mapping[str, Column], dialect: Dialect) -> None:
        """Takes the columns of the dataset, and the dialect."""
        self._columns = columns
        self._dialect = dialect
        self._numbers = Numbers(dialect)
        self._narrowed: list[str] = []

    @property
    def narrowings(self) -> tuple[str, ...]:
        """Returns what could not be said exactly, each once."""
        return tuple(dict.fromkeys((*self._narrowed, *((BEYOND_DOUBLES,) if self._numbers.rounded else ()))))

    def holds(self, expression: Expression) -> Node | None:
        """Returns what is true only where an expression is True; nothing where that is for no row."""
        if isinstance(expression, Call) and expression.op in ("and", "or"):
            parts = [self.holds(operand) for operand in expression.operands]
            said = [part for part in parts if part is not None]
            if expression.op == "and":
                return terms.both(said) if len(said) == len(parts) else None
            return terms.either(said) if said else None
        if isinstance(expression, Literal) and expression.value is False:
            return None
        return self.truth(expression)

    def truth(self, expression: Expression) -> Node | None:
        """Returns the truth of an expression; nothing where it is unknown for every row."""
        known = self._known(expression)
        if isinstance(known, Json):
            known = json_as(Truth, known, self._dialect, self._numbers)
        return known.node if isinstance(known, Truth) else None

    def _known(self, expression: Expression) -> Known | None:
        """Returns the value of an expression; None where it is unknown for every row."""
        match expression:
            case Literal(value):
                found = constant(value, self._numbers)
                if found is None and value is not None:
                    self._narrow("a constant that the dialect has no type for is unknown")
                return found
            case Path(names):
                return self._path(names)
            case Call(("and" | "or") as op, operands):
                return self._junction(op, operands)
            case Call(op, operands) if op == NOT_FALSE:
                return self._not_false(operands[0])
            case Call("list", operands):
                return Items(tuple([self._known(operand) for operand in operands]))
            case Call(op, operands):
                return self._call(op, [self._known(operand) for operand in operands])

    def _path(self, names: tuple[str, ...]) -> Known | None:
        column = self._columns.get(names[1]) if len(names) >= COLUMN_PARTS else None
        if column is None:
            return None
        found = column_value(column.name, column.type, self._dialect, self._numbers)
        if found is None:
            self._narrow(
                f"column `{column.name}` is of type `{column.type}`, which `{self._dialect.name}` cannot look into"
            )
            return None
        for name in names[COLUMN_PARTS:]:
            if not isinstance(found, Json):
                return None  # values of other types have no attributes
            found = member(found, name, self._dialect)
        return found

    def _junction(self, op: str, operands: Sequence[Expression]) -> Truth:
        parts = [self.truth(operand) or terms.unknown() for operand in operands]
        return Truth(terms.both(parts) if op == "and" else terms.either(parts))

    def _not_false(self, operand: Expression) -> Truth | None:
        before = (len(self._narrowed), self._numbers.rounded)
        node = self.truth(operand)
        if (len(self._narrowed), self._numbers.rounded) != before:
            return None  # what is null for want of words may be False
        return Truth(terms.truth(True) if node is None else terms.coalesce(node, terms.truth(True)))  # noqa: FBT003

    def _call(self, op: str, values: Sequence[Known | None]) -> Known | None:
        match op, values:
            case "not", [one]:
                return self._not(one)
            case "neg", [one]:
                number = self._as(Number, one)
                return self._numbers.negative(number) if isinstance(number, Number) else None
            case (("eq" | "ne"), [one, other]):
                equal = self._equal(one, other)
                return equal if equal is None or op == "eq" else Truth(terms.negation(equal.node))
            case "in", [one, other]:
                return self._in(one, other)
            case _, [one, other] if op in ORDERINGS:
                return self._ordered(ORDERINGS[op], one, other)
            case _, [one, other] if op in ARITHMETIC:
                return self._computed(ARITHMETIC[op], one, other)
            case "keyMatch", [Text() as one, Text(constant=str(pattern))]:
                return self._key_match(one, pattern)
        if all(value is not None for value in values):
            self._narrow(f"`{op}` of values of the row has no SQL")
        return None

    def _not(self, one: Known | None) -> Truth | None:
        truth = self._as(Truth, one)
        return Truth(terms.negation(truth.node)) if isinstance(truth, Truth) else None

    def _as(self, kind: type[Any], value: Known | None) -> Known | None:
        """Returns a value as one of a kind, if it can be one."""
        return json_as(kind, value, self._dialect, self._numbers) if isinstance(value, Json) else value

    def _alike(self, one: Known | None, other: Known | None) -> tuple[Known | None, Known | None]:
        """Returns two values, of which one may be JSON, as those of one kind."""
        if isinstance(one, Json) and isinstance(other, Json):
            self._narrow("two JSON values are not compared")
            return None, None
        if isinstance(one, Json) and other is not None:
            return self._as(type(other), one), other
        if isinstance(other, Json) and one is not None:
            return one, self._as(type(one), other)
        return one, other

    def _equal(self, one: Known | None, other: Known | None) -> Truth | None:
        match self._alike(one, other):
            case Text() as left, Text() as right:
                return Truth(self._same_text(left, right))
            case Number() as left, Number() as right:
                return self._said(self._numbers.compare("=", left, right), "a comparison of numbers beyond their types")
            case Truth() as left, Truth() as right:
                return self._same_truth(left, right)
            case Moment() as left, Moment() as right if left.is_date == right.is_date:
                return Truth(terms.binary("=", left.node, right.node))
            case (Texts() | Items()) as left, (Texts() | Items()) as right:
                return self._same_list(left, right)
        return None

    def _ordered(self, op: str, one: Known | None, other: Known | None) -> Truth | None:
        match self._alike(one, other):
            case Text() as left, Text() as right:
                return Truth(terms.binary(op, self._binary(left.node), right.node))
            case Number() as left, Number() as right:
                return self._said(self._numbers.compare(op, left, right), "a comparison of numbers beyond their types")
            case Moment() as left, Moment() as right if left.is_date == right.is_date:
                return Truth(terms.binary(op, left.node, right.node))
        return None

    def _computed(self, op: str, one: Known | None, other: Known | None) -> Known | None:
        match self._alike(one, other):
            case Number() as left, Number() as right:
                number = self._numbers.compute(op, left, right)
                if number is None:
                    self._narrow(f"`{op}` of numbers beyond their types")
                return number
            case Text() as left, Text() as right if op == "+":
                length = terms.binary("+", terms.call("LENGTH", left.node), terms.call("LENGTH", right.node))
                fits = terms.binary("<=", length, terms.number(TEXT_LENGTH_MAX))
                return Text(terms.known(fits, terms.binary("||", left.node, right.node)))
        return None

    def _in(self, one: Known | None, other: Known | None) -> Truth | None:
        if one is None or isinstance(one, (Items, Texts)):
            return None
        if isinstance(other, Texts):
            text = self._as(Text, one)
            return Truth(contains(other, text, self._dialect)) if isinstance(text, Text) else None
        if isinstance(other, Json):
            self._narrow("a list within JSON is not searched")
        if not isinstance(other, Items):
            return None
        if isinstance(one, Text) and one.uuid is None and all(isinstance(item, Text) for item in other.items):
            nodes = [item.node for item in other.items if isinstance(item, Text)]
            if nodes:
                return Truth(terms.among(self._binary(one.node), nodes))
        if isinstance(one, Json) and not other.items:
            self._narrow("JSON in an empty list is unknown")
            return None
        if not other.items:
            return Truth(terms.known(terms.is_not_null(one.node), terms.truth(False)))  # noqa: FBT003
        found = [self._equal(one, item) for item in other.items]
        return Truth(terms.either([terms.unknown() if each is None else each.node for each in found]))

    def _same_text(self, left: Text, right: Text) -> Node:
        for one, other in ((left, right), (right, left)):
            if one.uuid is not None and other.constant is not None and is_canonical_uuid(other.constant):
                return terms.binary("=", one.uuid, terms.value(other.constant, "uuid"))
        return terms.binary("=", self._binary(left.node), right.node)

    def _same_truth(self, left: Truth, right: Truth) -> Truth:
        for one, other in ((left, right), (right, left)):
            if other.constant is not None:
                return Truth(one.node if other.constant else terms.negation(one.node))
        return Truth(terms.binary("=", left.node, right.node))

    def _same_list(self, left: Texts | Items, right: Texts | Items) -> Truth | None:
        nodes: list[Node] = []
        for each in (left, right):
            if isinstance(each, Texts):
                nodes.append(each.node)
                continue
            texts = [item.node for item in each.items if isinstance(item, Text) and item.constant is not None]
            if len(texts) < len(each.items):
                self._narrow("a list is compared with lists of constant texts only")
                return None
            nodes.append(list_of(texts, self._dialect))
        return Truth(same_texts(nodes[0], nodes[1], self._dialect))

    def _key_match(self, key: Text, pattern: str) -> Truth:
        prefix, star, _ = pattern.partition("*")
        if not star:
            return Truth(terms.binary("=", self._binary(key.node), terms.value(pattern, "text")))
        if not prefix:
            return Truth(terms.known(terms.is_not_null(key.node), terms.truth(True)))  # noqa: FBT003
        beginning = terms.call("SUBSTR", key.node, 1, len(prefix))
        return Truth(terms.binary("=", self._binary(beginning), terms.value(prefix, "text")))

    def _binary(self, node: Node) -> Node:
        """Returns a text that compares by its code points."""
        collation = self._dialect.binary_collation
        return terms.collated(node, collation) if collation else node

    def _said(self, node: Node | None, what: str) -> Truth | None:
        if node is None:
            self._narrow(f"{what} is unknown")
        return None if node is None else Truth(node)

    def _narrow(self, what: str) -> None:
        self._narrowed.append(what)


def is_canonical_uuid(text: str) -> bool:
    """Tells whether a text is a uuid as engines write one."""
    parts = text.split("-")
    lengths = tuple([len(part) for part in parts])
    return lengths == (8, 4, 4, 4, 12) and set("".join(parts)) <= set("0123456789abcdef")
