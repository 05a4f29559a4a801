"""Parses matchers and conditions into the typed expression tree.

Owns the grammar, which is the part of Python's (and so of pycasbin's) that policies need:

1. from loosest to tightest: `|| or`, `&& and`, `! not`, comparisons and `in`, `+ -`, `* / %`, minus;
   as in pycasbin, `!a == b` is `!(a == b)`;
2. comparisons do not chain, and `in` has a list on its right, never a string (that would be a
   substring test);
3. attributes are `r.sub.level`; there are no subscripts, methods, lambdas or keyword arguments;
4. chains of `&&` and `||` become one call each, and a list of constants one constant;
5. length and depth are limited, so that later passes may recurse.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatebook.expression.operations import STRICT
from gatebook.expression.tokens import ParseError, Token, number, string, tokenize
from gatebook.expression.tree import Call, Expression, Literal, Path, Span

__all__ = ["ParseError", "parse"]

LENGTH_MAX = 16_384
DEPTH_MAX = 64

_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _MINUS = range(1, 8)
_BINARY = {
    "||": (_OR, "or"),
    "or": (_OR, "or"),
    "&&": (_AND, "and"),
    "and": (_AND, "and"),
    "==": (_COMPARISON, "eq"),
    "!=": (_COMPARISON, "ne"),
    "<": (_COMPARISON, "lt"),
    "<=": (_COMPARISON, "le"),
    ">": (_COMPARISON, "gt"),
    ">=": (_COMPARISON, "ge"),
    "in": (_COMPARISON, "in"),
    "not": (_COMPARISON, "in"),  # of `not in`
    "+": (_SUM, "add"),
    "-": (_SUM, "sub"),
    "*": (_PRODUCT, "mul"),
    "/": (_PRODUCT, "div"),
    "%": (_PRODUCT, "mod"),
}
_CONSTANTS: Mapping[str, bool | None] = {"True": True, "False": False, "None": None}
_RESERVED = frozenset({"and", "or", "not", "in", "is", "if", "else", "lambda", "for", "await"})
OPERATORS = frozenset(("and", "or", "list", *STRICT))


def parse(text: str) -> Expression:
    """Parses `text`; whether its names mean anything is for its reader to say.

    Raises:
        ParseError: the text is no expression, or is too long or too deep.
    """
    if len(text) > LENGTH_MAX:
        raise ParseError(f"an expression has at most {LENGTH_MAX} characters", LENGTH_MAX)
    parser = _Parser(tokenize(text))
    expression = parser.expression(_OR)
    parser.expect_end()
    _limit_depth(expression)
    return expression


class _Parser:
    """Climbs the precedences over a list of tokens. Lives for one call of `parse`."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._nesting = 0

    def expression(self, level: int) -> Expression:
        """Parses operators that bind at least as tightly as `level`."""
        self._nesting += 1
        if self._nesting > DEPTH_MAX:
            raise _too_deep(self._peek().start)
        left = self._operand(level)
        compared = False
        while (operator := self._binary(level)) is not None:
            binds, op, negated = operator
            if binds == _COMPARISON:
                if compared:
                    message = "comparisons do not chain: write `a < b && b < c`"
                    raise ParseError(message, self._peek().start)
                compared = True
                left = self._comparison(left, op, negated=negated)
            elif binds in (_AND, _OR):
                left = self._chain(left, op, binds)
            else:
                self._next()
                left = _call(op, left, self.expression(binds + 1))
        self._nesting -= 1
        return left

    def expect_end(self) -> None:
        """Refuses anything after the expression."""
        token = self._peek()
        if token.kind != "end":
            raise ParseError(f"unexpected `{token.text}`", token.start)

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._position + ahead, len(self._tokens) - 1)]

    def _next(self) -> Token:
        token = self._peek()
        self._position += 1
        return token

    def _accept(self, symbol: str) -> Token | None:
        token = self._peek()
        if token.kind == "symbol" and token.text == symbol:
            return self._next()
        return None

    def _binary(self, level: int) -> tuple[int, str, bool] | None:
        """Says which binary operator comes next, if it binds tightly enough, without taking it."""
        token = self._peek()
        if token.kind not in ("symbol", "name") or token.text not in _BINARY:
            return None
        negated = token.text == "not"
        if negated and self._peek(1).text != "in":
            return None
        binds, op = _BINARY[token.text]
        return (binds, op, negated) if binds >= level else None

    def _chain(self, first: Expression, op: str, binds: int) -> Expression:
        operands = [first]
        while (operator := self._binary(binds)) is not None and operator[1] == op:
            self._next()
            operands.append(self.expression(binds + 1))
        return _call(op, *operands)

    def _comparison(self, left: Expression, op: str, *, negated: bool) -> Expression:
        self._next()
        if negated:
            self._next()
        start = self._peek().start
        right = self.expression(_SUM)
        if op == "in" and isinstance(right, Literal) and not isinstance(right.value, tuple):
            message = "`in` needs a list on its right: write `('a',)` for a list of one"
            raise ParseError(message, start)
        call = _call(op, left, right)
        return Call("not", (call,), call.span) if negated else call

    def _operand(self, level: int) -> Expression:
        token = self._next()
        match token.kind, token.text:
            case ("symbol", "!") | ("name", "not"):
                if level > _NOT:
                    raise ParseError(f"`{token.text}` cannot stand here: put it into brackets", token.start)
                operand = self.expression(_NOT)
                return Call("not", (operand,), Span(token.start, operand.span.end))
            case "symbol", "-":
                return self._negative(token)
            case "symbol", ("(" | "[") as opening:
                return self._bracket(token, ")" if opening == "(" else "]")
            case "number", _:
                return Literal(number(token), token.span)
            case "string", _:
                return Literal(string(token), token.span)
            case "name", name if name in _CONSTANTS:
                return Literal(_CONSTANTS[name], token.span)
            case "name", name if name not in _RESERVED:
                return self._name(token)
        raise ParseError(f"unexpected `{token.text}`" if token.text else "unexpected end", token.start)

    def _negative(self, minus: Token) -> Expression:
        if self._peek().kind == "number":
            token = self._next()
            return Literal(-number(token), Span(minus.start, token.span.end))
        operand = self.expression(_MINUS)
        return Call("neg", (operand,), Span(minus.start, operand.span.end))

    def _bracket(self, opening: Token, closing: str) -> Expression:
        items, is_list, end = self._items(closing)
        if closing == ")" and len(items) == 1 and not is_list:
            return items[0]
        span = Span(opening.start, end)
        constants = [item.value for item in items if isinstance(item, Literal)]
        if len(constants) == len(items):
            return Literal(tuple(constants), span)
        return Call("list", tuple(items), span)

    def _items(self, closing: str) -> tuple[list[Expression], bool, int]:
        """Parses up to `closing`; tells the items, whether any comma stood there, and the end."""
        items: list[Expression] = []
        comma: Token | None = None
        is_list = False
        while (end := self._accept(closing)) is None:
            if items and comma is None:
                token = self._peek()
                raise ParseError(f"expected `,` or `{closing}`, found `{token.text or 'the end'}`", token.start)
            items.append(self.expression(_OR))
            comma = self._accept(",")
            is_list = is_list or comma is not None
        return items, is_list, end.span.end

    def _name(self, first: Token) -> Expression:
        names, last = [first.text], first
        while self._accept("."):
            last = self._next()
            if last.kind != "name":
                raise ParseError(f"expected a name after `.`, found `{last.text or 'the end'}`", last.start)
            names.append(last.text)
        if self._accept("("):
            return self._function(first, names)
        if (bracket := self._accept("[")) is not None:
            raise ParseError("subscripts are not supported: write an attribute", bracket.start)
        return Path(tuple(names), Span(first.start, last.span.end))

    def _function(self, first: Token, names: list[str]) -> Expression:
        if len(names) > 1:
            message = f"`{'.'.join(names)}` is no function: values have no methods; call one of Casbin's"
            raise ParseError(message, first.start)
        if first.text in OPERATORS:
            raise ParseError(f"`{first.text}` is no function", first.start)
        operands, _, end = self._items(")")
        return Call(first.text, tuple(operands), Span(first.start, end))


def _call(op: str, *operands: Expression) -> Call:
    return Call(op, operands, Span(operands[0].span.start, operands[-1].span.end))


def _too_deep(offset: int) -> ParseError:
    return ParseError(f"an expression is nested at most {DEPTH_MAX} deep", offset)


def _limit_depth(expression: Expression) -> None:
    """Refuses a tree deeper than the limit; chains such as `1 + 1 + 1` nest without brackets."""
    level: list[Expression] = [expression]
    for _ in range(DEPTH_MAX):
        level = [operand for node in level if isinstance(node, Call) for operand in node.operands]
        if not level:
            return
    raise _too_deep(level[0].span.start)
