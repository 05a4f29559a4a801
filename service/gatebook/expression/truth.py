"""Evaluates an expression under an environment, in three-valued logic.

Owns the meaning of a whole tree; `operations` says what each operator does. Promises: it never
raises and always ends, whatever the values; what cannot be known is UNKNOWN (None).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gatebook.expression.environment import Environment, lookup
from gatebook.expression.functions import BUILTINS
from gatebook.expression.given import Given
from gatebook.expression.operations import STRICT, conjunction, disjunction
from gatebook.expression.tree import Call, Expression, Literal, Path

TRUE: Final = True
FALSE: Final = False
UNKNOWN: Final = None

Functions = Mapping[str, Callable[..., Any]]
"""Further functions by name: role functions such as `g`, which take texts, and `Given` ones."""

NO_FUNCTIONS: Functions = {}


def evaluate(expression: Expression, environment: Environment, functions: Functions = NO_FUNCTIONS) -> object:
    """Returns TRUE, FALSE, UNKNOWN or the value of the expression; a function nobody knows is UNKNOWN."""
    match expression:
        case Literal(value):
            return value
        case Path(names):
            return lookup(environment, names)
        case Call("and", operands):
            return conjunction(evaluate(operand, environment, functions) for operand in operands)
        case Call("or", operands):
            return disjunction(evaluate(operand, environment, functions) for operand in operands)
        case Call(op, operands):
            return apply(op, [evaluate(operand, environment, functions) for operand in operands], functions)


def apply(op: str, values: Sequence[object], functions: Functions = NO_FUNCTIONS) -> object:
    """Applies any operator or function but `and` and `or` to values."""
    if op == "list":
        return tuple(values)
    operation = STRICT.get(op)
    if operation is not None:
        return operation(*values)
    return call(function_of(op, len(values), functions), values)


def function_of(name: str, count: int, functions: Functions) -> Callable[..., Any] | None:
    """Finds a function by its name and number of arguments."""
    if name in functions:
        return functions[name]
    builtin = BUILTINS.get(name)
    return builtin.call if builtin is not None and builtin.arity == count else None


def call(function: Callable[..., Any] | None, values: Sequence[object]) -> object:
    """Calls a function on texts, or a given one on any values; anything else is UNKNOWN."""
    if type(function) is Given:
        return function(*values)
    if function is None or not all(isinstance(value, str) for value in values):
        return UNKNOWN
    return function(*values)
