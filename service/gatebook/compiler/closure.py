"""Compiles an expression to a Python closure over request tokens and rule fields.

Owns the speed of conditions: a tree is walked once, when it is compiled; no text is ever evaluated.
Promises: a closure gives what `expression.truth.evaluate` gives, for the same tree and values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from gatebook.expression.environment import Named, attribute
from gatebook.expression.operations import STRICT
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.truth import Functions, call, function_of

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}

Tokens = Mapping[str, Any]
Fields = tuple[str, ...]
Closure = Callable[[Tokens, Fields], object]
"""Takes the tokens of a request and the fields of a rule; gives True, False, None (UNKNOWN) or a value."""


def compile_expression(expression: Expression, fields: Mapping[str, int], functions: Functions) -> Closure:
    """Compiles `expression`, in which `p.<name>` (of any rule type) is the field at `fields[name]`."""
    match expression:
        case Literal(value):
            return lambda _tokens, _fields: value
        case Path(names):
            return _path(names, fields)
        case Call("and", operands):
            return _all([compile_expression(operand, fields, functions) for operand in operands])
        case Call("or", operands):
            return _any([compile_expression(operand, fields, functions) for operand in operands])
        case Call("eq", (left, Literal(str() as text))):
            return _equals_text(compile_expression(left, fields, functions), text)
        case Call(op, (left, Literal(int() | float() as number))) if op in _COMPARISONS and not isinstance(
            number, bool
        ):
            return _compares_number(compile_expression(left, fields, functions), op, number)
        case Call(op, operands):
            return _apply(op, [compile_expression(operand, fields, functions) for operand in operands], functions)


def _path(names: tuple[str, ...], fields: Mapping[str, int]) -> Closure:
    match names:
        case (root, name) if root.startswith("p"):
            position = fields[name]
            return lambda _tokens, fields: fields[position]
        case (_, name):
            return lambda tokens, _fields: tokens.get(name)
        case (_, name, inner):
            return _attribute(name, inner)
        case (_, name, *inner):
            return _deep_attribute(name, tuple(inner))
    return lambda _tokens, _fields: None


def _attribute(name: str, inner: str) -> Closure:
    def read(tokens: Tokens, _fields: Fields) -> object:
        value = tokens.get(name)
        if type(value) is Named:
            return value.attributes.get(inner)
        return attribute(value, inner)

    return read


def _deep_attribute(name: str, inner: tuple[str, ...]) -> Closure:
    def read(tokens: Tokens, _fields: Fields) -> object:
        value: object = tokens.get(name)
        for part in inner:
            value = attribute(value, part)
        return value

    return read


def _all(operands: list[Closure]) -> Closure:
    def conjunction(tokens: Tokens, fields: Fields) -> bool | None:
        result: bool | None = True
        for operand in operands:
            value = operand(tokens, fields)
            if value is False:
                return False
            if value is not True:
                result = None
        return result

    return conjunction


def _any(operands: list[Closure]) -> Closure:
    def disjunction(tokens: Tokens, fields: Fields) -> bool | None:
        result: bool | None = False
        for operand in operands:
            value = operand(tokens, fields)
            if value is True:
                return True
            if value is not False:
                result = None
        return result

    return disjunction


def _equals_text(operand: Closure, text: str) -> Closure:
    def equals(tokens: Tokens, fields: Fields) -> bool | None:
        value = operand(tokens, fields)
        return value == text if isinstance(value, str) else None

    return equals


def _compares_number(operand: Closure, op: str, number: float) -> Closure:
    compare, general = _COMPARISONS[op], STRICT[op]

    def compares(tokens: Tokens, fields: Fields) -> object:
        value = operand(tokens, fields)
        return compare(value, number) if type(value) is int else general(value, number)

    return compares


def _apply(op: str, operands: list[Closure], functions: Functions) -> Closure:
    if op == "list":
        return lambda tokens, fields: tuple(operand(tokens, fields) for operand in operands)
    operation = STRICT.get(op)
    if operation is None:
        function = function_of(op, len(operands), functions)
        return lambda tokens, fields: call(function, [operand(tokens, fields) for operand in operands])
    if len(operands) == 1:
        (only,) = operands
        return lambda tokens, fields: operation(only(tokens, fields))
    left, right = operands
    return lambda tokens, fields: operation(left(tokens, fields), right(tokens, fields))
