"""The typed expression tree that matchers and conditions are parsed into.

Owns the node types. A tree is closed (there are no other nodes), immutable, and carries the
source span of each node, so that every later pass can point at the characters it speaks of.
"""

from __future__ import annotations

import msgspec

Value = str | int | float | bool | None | tuple["Value", ...]
"""What an expression can evaluate to; a list is a tuple."""


class Span(msgspec.Struct, frozen=True):
    """Where a node stands in its source text: character offsets, `end` exclusive."""

    start: int
    end: int


NOWHERE = Span(0, 0)


class Literal(msgspec.Struct, frozen=True, tag=True):
    """A constant."""

    value: Value
    span: Span = NOWHERE


class Path(msgspec.Struct, frozen=True, tag=True):
    """A request token or its attribute, `r.sub.level`, or a field of a rule, `p.cond`.

    `names` holds the parts from the root on: `("r", "sub", "level")`.
    """

    names: tuple[str, ...]
    span: Span = NOWHERE


class Call(msgspec.Struct, frozen=True, tag=True):
    """An operator or function with its operands.

    Operators: `and or not eq ne lt le gt ge in add sub mul div mod neg list`; any other `op` is
    the name of a function as it stands in the source (`g`, `g2`, `keyMatch`, `eval`, ...).
    """

    op: str
    operands: tuple[Expression, ...]
    span: Span = NOWHERE


Expression = Literal | Path | Call
