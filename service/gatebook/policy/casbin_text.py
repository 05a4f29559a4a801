"""Reads matchers and conditions as pycasbin rewrites them: for sets that are read leniently.

Owns the way from pycasbin's text to the expression tree. pycasbin replaces operators by words and `r.sub` by `r_sub`,
also within quotes, and has Python's own grammar read the rest; so does this, by `ast`, and nothing is ever evaluated.
What it reads beyond our grammar is put into our words: chained comparisons, sets, `x['name']`; `in` also tests for a
part of a text. What has no words here is refused: methods, comprehensions, `is`, powers, formatted texts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from gatebook.expression.operations import IN_TEXT
from gatebook.expression.parse import DEPTH_MAX, LENGTH_MAX, OPERATORS
from gatebook.expression.tokens import ParseError
from gatebook.expression.tree import Call, Expression, Literal, Path

Names = Mapping[str, tuple[str, str]]
"""The root and token of each name, such as `r_sub`."""

_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.In: IN_TEXT,
}
_CALCULATIONS: Mapping[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Mod: "mod",
}
_SIGNS: Mapping[type[ast.unaryop], str] = {ast.Not: "not", ast.USub: "neg"}
_EVAL = re.compile(r"\beval\(([^)]*)\)")
_NOT = re.compile(r"!(?!=)")


def read_text(text: str, names: Names) -> Expression:
    """Reads an expression whose names pycasbin has rewritten.

    Raises:
        ParseError: Python cannot read it, or it has no words here, or is too long or too deep.
    """
    if len(text) > LENGTH_MAX:
        raise ParseError(f"an expression has at most {LENGTH_MAX} characters", LENGTH_MAX)
    for match in _EVAL.finditer(text):
        if match[1] not in names:
            raise ParseError("Casbin's `eval` takes one field of the rule, without spaces", match.start())
    python = _NOT.sub("not ", text.replace("&&", "and").replace("||", "or")).strip()
    try:
        tree = ast.parse(python, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise ParseError("Casbin cannot read this, since it is no expression of Python's", 0) from err
    return _Reader(names).read(tree.body, 0)


class _Reader:
    """Puts Python's tree into our words. Lives for one expression."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def read(self, node: ast.expr, depth: int) -> Expression:
        """Reads one node and what is below it."""
        _limit(depth, node)
        match node:
            case ast.Constant(value) if value is None or isinstance(value, str | int | float):
                return Literal(value)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return Path(self._path(node, depth))
            case ast.BoolOp(op, values):
                return self._call("and" if isinstance(op, ast.And) else "or", values, depth)
            case ast.UnaryOp(op, operand) if type(op) in _SIGNS:
                return self._call(_SIGNS[type(op)], [operand], depth)
            case ast.BinOp(left, op, right) if type(op) in _CALCULATIONS:
                return self._call(_CALCULATIONS[type(op)], [left, right], depth)
            case ast.Compare(left, operators, others):
                return self._comparisons(left, operators, others, depth)
            case ast.Tuple(items) | ast.List(items) | ast.Set(items):
                return self._list(items, depth)
            case ast.Call(ast.Name(name), arguments, []) if name not in OPERATORS:
                return self._call(name, arguments, depth)
        raise ParseError(f"`{ast.unparse(node)}` has no meaning here", node.col_offset)

    def _call(self, op: str, operands: list[ast.expr], depth: int) -> Call:
        return Call(op, tuple(self.read(operand, depth + 1) for operand in operands))

    def _comparisons(
        self, left: ast.expr, operators: list[ast.cmpop], others: list[ast.expr], depth: int
    ) -> Expression:
        compared = []
        for operator, right in zip(operators, others, strict=True):
            negated = isinstance(operator, ast.NotIn)
            op = IN_TEXT if negated else _COMPARISONS.get(type(operator))
            if op is None:
                raise ParseError("`is` has no meaning here: compare with `==`", left.col_offset)
            call = self._call(op, [left, right], depth)
            compared.append(Call("not", (call,)) if negated else call)
            left = right
        return compared[0] if len(compared) == 1 else Call("and", tuple(compared))

    def _list(self, items: list[ast.expr], depth: int) -> Expression:
        read = [self.read(item, depth + 1) for item in items]
        constants = [item.value for item in read if isinstance(item, Literal)]
        return Literal(tuple(constants)) if len(constants) == len(read) else Call("list", tuple(read))

    def _path(self, node: ast.expr, depth: int) -> tuple[str, ...]:
        _limit(depth, node)
        match node:
            case ast.Name(name) if name in self._names:
                return self._names[name]
            case ast.Attribute(value, name) | ast.Subscript(value, ast.Constant(str() as name)):
                return (*self._path(value, depth + 1), name)
        raise ParseError(f"unknown name `{ast.unparse(node)}`", node.col_offset)


def _limit(depth: int, node: ast.expr) -> None:
    if depth > DEPTH_MAX:
        raise ParseError(f"an expression is nested at most {DEPTH_MAX} deep", node.col_offset)
