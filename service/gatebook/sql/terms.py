"""The pieces of which SQL is built: columns, placeholders, operators, and how they are written down.

Owns the use of sqlglot, and with it three promises: an operand that is more than one piece stands in parentheses, a
name is quoted, and a value is a placeholder. Values are numbered when the whole is written, in the order
in which they stand in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlglot import exp

from gatebook.sql.statement import Parameter

Node = exp.Expr

_VALUE = "gatebook"
_ATOMS = (
    exp.Column,
    exp.Cast,
    exp.Func,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Paren,
    exp.Placeholder,
    exp.Identifier,
)


def column(name: str) -> Node:
    """Returns a column, quoted."""
    return exp.column(name, quoted=True)


def value(content: Parameter, sql_type: str) -> Node:
    """Returns a placeholder of a type, for a value that is bound."""
    placeholder: Node = exp.Placeholder()
    placeholder.meta[_VALUE] = content
    if isinstance(content, str):
        placeholder = cast(placeholder, "text")  # a driver binds by the type that it finds first
        return placeholder if sql_type == "text" else cast(placeholder, sql_type)
    return cast(placeholder, sql_type)


def number(content: int | str) -> Node:
    """Returns a number of our own, such as a length; never one of a policy or request."""
    text = str(content)
    literal = exp.Literal.number(text.removeprefix("-"))
    return exp.Neg(this=literal) if text.startswith("-") else literal


def text(content: str) -> Node:
    """Returns a text of our own, such as the name of a unit; never one of a policy or request."""
    return exp.Literal.string(content)


def truth(content: bool) -> Node:  # noqa: FBT001  # the truth value itself
    """Returns TRUE or FALSE."""
    return exp.true() if content else exp.false()


def unknown(sql_type: str = "boolean") -> Node:
    """Returns the NULL of a type."""
    return cast(exp.null(), sql_type)


def cast(node: Node, sql_type: str) -> Node:
    """Returns a node as another type."""
    return exp.cast(_part(node), sql_type, copy=False)


def call(name: str, *operands: Node | int | str) -> Node:
    """Returns the call of a function as the dialect names it; numbers and texts are our own."""
    nodes = [text(it) if isinstance(it, str) else number(it) if isinstance(it, int) else it for it in operands]
    return exp.Anonymous(this=name, expressions=[node.copy() for node in nodes])


def coalesce(node: Node, otherwise: Node) -> Node:
    """Returns a value, or another where it is null."""
    return exp.Coalesce(this=node.copy(), expressions=[otherwise.copy()])


def case(whens: Sequence[tuple[Node, Node]], otherwise: Node | None = None) -> Node:
    """Returns the value behind the first condition that is true, else `otherwise`, or null."""
    built = exp.case()
    for condition, then in whens:
        built = built.when(condition.copy(), then.copy(), copy=False)
    return built.else_(otherwise.copy(), copy=False) if otherwise is not None else built


def known(condition: Node, node: Node) -> Node:
    """Returns a value where a condition is true, else null."""
    return case([(condition, node)])


def both(nodes: Sequence[Node]) -> Node:
    """Returns the AND of conditions."""
    return _chain(exp.And, nodes)


def either(nodes: Sequence[Node]) -> Node:
    """Returns the OR of conditions."""
    return _chain(exp.Or, nodes)


def negation(node: Node) -> Node:
    """Returns the NOT of a condition."""
    return exp.Not(this=_part(node))


def is_null(node: Node) -> Node:
    """Tells whether a value is null."""
    return exp.Is(this=_part(node), expression=exp.null())


def is_not_null(node: Node) -> Node:
    """Tells whether a value is not null."""
    return negation(is_null(node))


def among(node: Node, items: Sequence[Node]) -> Node:
    """Tells whether a value is one of several."""
    return exp.In(this=_part(node), expressions=[_part(item) for item in items])


def between(node: Node, low: Node, high: Node) -> Node:
    """Tells whether a value lies between two, both included."""
    return exp.Between(this=_part(node), low=_part(low), high=_part(high))


def collated(node: Node, collation: str) -> Node:
    """Returns a text under a collation."""
    return exp.Collate(this=_part(node), expression=exp.to_identifier(collation, quoted=True))


def variable(name: str) -> Node:
    """Returns the variable of a function that is written in place."""
    return exp.to_identifier(name)


def array(items: Sequence[Node]) -> Node:
    """Returns a list that is spelt out."""
    return exp.Array(expressions=[item.copy() for item in items])


def arrow(name: str, body: Node) -> Node:
    """Returns `name -> body`."""
    return exp.Lambda(this=body, expressions=[exp.to_identifier(name)])


def keyword_lambda(name: str, body: Node) -> Node:
    """Returns `LAMBDA name : body`."""
    return exp.Lambda(this=body, expressions=[exp.to_identifier(name)], colon=True)


_BINARY: Mapping[str, type[exp.Binary]] = {
    "=": exp.EQ,
    "<>": exp.NEQ,
    "<": exp.LT,
    "<=": exp.LTE,
    ">": exp.GT,
    ">=": exp.GTE,
    "+": exp.Add,
    "-": exp.Sub,
    "*": exp.Mul,
    "%": exp.Mod,
    "||": exp.DPipe,
}


def binary(op: str, left: Node, right: Node) -> Node:
    """Returns a binary operator with its operands."""
    if op == "/":
        return exp.Div(this=_part(left), expression=_part(right), typed=True, safe=False)
    built: Node = _BINARY[op](this=_part(left), expression=_part(right))
    return built


def written(
    nodes: Sequence[Node], dialect: str, placeholder: Callable[[int], str], first: int = 1
) -> tuple[list[str], list[Parameter]]:
    """Writes expressions in a dialect, with the values of their placeholders in order.

    `placeholder` gives the placeholder with a number; `first` is the number of the first.
    """
    texts: list[str] = []
    values: list[Parameter] = []
    for node in nodes:
        tree: Any = node.copy()
        for found in list(tree.find_all(exp.Placeholder, bfs=False)):
            values.append(found.meta[_VALUE])
            found.replace(exp.Var(this=placeholder(first + len(values) - 1)))
        texts.append(tree.sql(dialect=dialect))
    return texts, values


def _chain(kind: type[exp.Connector], nodes: Sequence[Node]) -> Node:
    first, *others = nodes
    if not others:
        return first
    chained: Node = _part(first)
    for other in others:
        chained = kind(this=chained, expression=_part(other))
    return chained


def _part(node: Node) -> Node:
    """Returns a copy of a node as a part of another."""
    return (
        node.copy() if isinstance(node, _ATOMS) and not isinstance(node, exp.Connector) else exp.Paren(this=node.copy())
    )


def each_of_array(node: Node, apply: Callable[[Node], Node]) -> Node:
    """Returns an array with each item changed, as PostgreSQL says it; null stays null."""
    names = [exp.to_identifier("it"), exp.to_identifier("place")]
    alias = exp.TableAlias(this=exp.to_identifier("items"), columns=names)
    items = exp.Unnest(expressions=[node.copy()], alias=alias, offset=True)
    changed = exp.select(apply(exp.to_identifier("it"))).from_(items).order_by("items.place")
    return known(is_not_null(node), exp.Anonymous(this="ARRAY", expressions=[changed]))
