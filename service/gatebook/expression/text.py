"""Writes an expression as text that parses back into it.

Owns the written form: Casbin's operators, single quotes, brackets only where they are needed.
"""

from __future__ import annotations

from gatebook.expression.operations import IN_TEXT
from gatebook.expression.tree import Call, Expression, Literal, Path, Value

_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _MINUS, _ATOM = range(1, 9)
_BINARY = {
    "eq": ("==", _COMPARISON),
    "ne": ("!=", _COMPARISON),
    "lt": ("<", _COMPARISON),
    "le": ("<=", _COMPARISON),
    "gt": (">", _COMPARISON),
    "ge": (">=", _COMPARISON),
    "in": ("in", _COMPARISON),
    IN_TEXT: ("in", _COMPARISON),
    "add": ("+", _SUM),
    "sub": ("-", _SUM),
    "mul": ("*", _PRODUCT),
    "div": ("/", _PRODUCT),
    "mod": ("%", _PRODUCT),
}
_CHAINS = {"and": (" && ", _AND), "or": (" || ", _OR)}
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def to_text(expression: Expression) -> str:
    """Writes `expression`; parsing the answer gives the same tree, but for its spans."""
    return _write(expression)[0]


def _write(expression: Expression) -> tuple[str, int]:
    """Returns the text and how tightly its outermost operator binds."""
    match expression:
        case Path(names):
            return ".".join(names), _ATOM
        case Literal(value):
            return _constant(value), _ATOM
        case Call("not", (Call("in" | "in text", (left, right)),)):
            return f"{_bracketed(left, _SUM)} not in {_bracketed(right, _SUM)}", _COMPARISON
        case Call("not", (operand,)):
            return f"!{_bracketed(operand, _MINUS)}", _NOT
        case Call("neg", (operand,)):
            return f"-{_bracketed(operand, _MINUS)}", _MINUS
        case Call("list", items):
            return f"[{', '.join(to_text(item) for item in items)}]", _ATOM
        case Call(op, operands) if op in _CHAINS:
            symbol, binds = _CHAINS[op]
            return symbol.join(_bracketed(operand, binds + 1) for operand in operands), binds
        case Call(op, (left, right)) if op in _BINARY:
            symbol, binds = _BINARY[op]
            left_binds = binds + 1 if binds == _COMPARISON else binds
            return f"{_bracketed(left, left_binds)} {symbol} {_bracketed(right, binds + 1)}", binds
        case Call(op, operands):
            return f"{op}({', '.join(to_text(operand) for operand in operands)})", _ATOM


def _bracketed(expression: Expression, level: int) -> str:
    text, binds = _write(expression)
    return text if binds >= level else f"({text})"


def _constant(value: Value) -> str:
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPES)}'"
    if isinstance(value, tuple):
        comma = "," if len(value) == 1 else ""
        return f"({', '.join(_constant(item) for item in value)}{comma})"
    return repr(value)
