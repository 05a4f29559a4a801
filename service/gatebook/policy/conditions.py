"""What is wrong with the text of a matcher or of a condition, beyond its grammar.

Owns the hazards within expressions: whatever Casbin would rewrite, cut or misread. Casbin edits the
text before it evaluates it, so that these change their meaning there and are refused here:

1. `&&`, `||` and `!` are replaced by words also inside strings, and without spaces around them;
2. `r.x` becomes `r_x` also inside strings and inside longer paths (`r.sub.r.x`), and only for the
   first of several request or rule types;
3. `eval(...)` is found by pattern and takes one rule field, written without spaces;
4. a line of `policy.csv` is cut at commas and brackets, also inside strings;
5. `x in ('a')` and `x in p.field` test for a substring.

`expression.parse` owns the grammar; where it refuses a text, the hazards are still reported.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from gatebook.expression.functions import ARITIES
from gatebook.expression.moments import TIME_MATCH
from gatebook.expression.parse import parse
from gatebook.expression.residual import reads_row
from gatebook.expression.tokens import ParseError, Token, tokenize
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.policy.model import POLICY_KEY, walk
from gatebook.policy.source import Remark

_REWRITTEN = re.compile(r"\b[rp][0-9]*\.")
_OPERATOR = re.compile(r"&&|\|\||!(?!=)")
_SPLITTER = re.compile(r"[,()\[\]]")
_EVAL = re.compile(r"\beval\(")
_EVAL_OF_FIELD = re.compile(r"eval\(p[0-9]*\.[A-Za-z_]\w*\)")
_TYPE_NAME = re.compile(r"[rp][0-9]*")
_FOREIGN_CONSTANTS = {
    "true": "True",
    "TRUE": "True",
    "false": "False",
    "FALSE": "False",
    "null": "None",
    "nil": "None",
    "NULL": "None",
}
_KEYWORDS = frozenset(keyword.kwlist)
_VALUE_OPERATORS = frozenset(("add", "sub", "mul", "div", "mod", "neg", "list"))


class Scope(msgspec.Struct, frozen=True):
    """What an expression may speak of: tokens by root (`r`, `p2`) and arguments by function.

    `in_rule` says that the text is a field of a rule, not a matcher. Of `given` functions nothing is known, and where
    it `awaits` more, of no other name either.
    """

    requests: Mapping[str, tuple[str, ...]]
    policies: Mapping[str, tuple[str, ...]]
    role_arities: Mapping[str, int]
    in_rule: bool = False
    given: frozenset[str] = frozenset()
    awaits: bool = False


def check(text: str, scope: Scope) -> tuple[Expression | None, tuple[Remark, ...]]:
    """Returns the tree of a matcher or condition, and everything that is wrong with it."""
    if not text:
        return None, (Remark(0, "EMPTY_CONDITION", "an empty condition is an error in Casbin; write `True`"),)
    try:
        tokens = tokenize(text)
    except ParseError as err:
        return None, (Remark(err.offset, "MALFORMED_EXPRESSION", err.message),)
    remarks = [remark for rule in TEXT_RULES for remark in rule(text, tokens, scope)]
    try:
        tree = parse(text)
    except ParseError as err:
        if not any(remark.offset == err.offset for remark in remarks):
            remarks.append(Remark(err.offset, _parse_invariant(err), err.message))
        return None, tuple(remarks)
    remarks += [remark for tree_rule in TREE_RULES for remark in tree_rule(tree, scope)]
    return tree, tuple(remarks)


def _parse_invariant(err: ParseError) -> str:
    return "SUBSTRING_IN" if "`in` needs a list" in err.message else "MALFORMED_EXPRESSION"


def _operators_in_strings(_: str, tokens: list[Token], __: Scope) -> Iterator[Remark]:
    for token, match in _in_strings(tokens, _OPERATOR):
        message = f"Casbin replaces `{match.group()}` by a word also inside quotes; compare with a text that has none"
        yield Remark(token.start + match.start(), "OPERATOR_IN_STRING", message)


def _rewritten_in_strings(_: str, tokens: list[Token], __: Scope) -> Iterator[Remark]:
    for token, match in _in_strings(tokens, _REWRITTEN):
        message = f"Casbin rewrites `{match.group()}` also inside quotes; compare with a text that does not contain it"
        yield Remark(token.start + match.start(), "REWRITTEN_IN_STRING", message)


def _separators_in_strings(_: str, tokens: list[Token], scope: Scope) -> Iterator[Remark]:
    if scope.in_rule:
        for token, match in _in_strings(tokens, _SPLITTER):
            message = f"Casbin cuts the line at `{match.group()}` also inside quotes; compare with a text that has none"
            yield Remark(token.start + match.start(), "SEPARATOR_IN_STRING", message)


def _eval_in_strings(_: str, tokens: list[Token], __: Scope) -> Iterator[Remark]:
    for token, match in _in_strings(tokens, _EVAL):
        message = "Casbin runs `eval(...)` also inside quotes; compare with a text that does not contain it"
        yield Remark(token.start + match.start(), "EVAL_MISREAD", message)


def _glued_operators(text: str, tokens: list[Token], _: Scope) -> Iterator[Remark]:
    for token in tokens:
        if token.kind == "symbol" and token.text in ("&&", "||"):
            around = text[max(token.start - 1, 0) : token.start] + text[token.span.end : token.span.end + 1]
            if any(character.isalnum() or character == "_" for character in around):
                message = f"Casbin glues `{token.text}` to the word beside it; put a space on each side"
                yield Remark(token.start, "GLUED_OPERATOR", message)


def _foreign_constants(text: str, tokens: list[Token], _: Scope) -> Iterator[Remark]:
    for token in tokens:
        if token.kind == "name" and token.text in _FOREIGN_CONSTANTS and text[token.start - 1 : token.start] != ".":
            written = _FOREIGN_CONSTANTS[token.text]
            yield Remark(token.start, "FOREIGN_CONSTANT", f"Casbin does not know `{token.text}`; write `{written}`")


def _eval_spelling(text: str, tokens: list[Token], scope: Scope) -> Iterator[Remark]:
    for position, token in enumerate(tokens):
        if token.text != "eval" or token.kind != "name" or tokens[position + 1].text != "(":
            continue
        if scope.in_rule:
            yield Remark(token.start, "EVAL_MISREAD", "a condition cannot call `eval`; write the condition itself")
        elif not _EVAL_OF_FIELD.match(text, token.start):
            message = "Casbin's `eval` takes one field of the rule, without spaces; write `eval(p.field)`"
            yield Remark(token.start, "EVAL_MISREAD", message)


def _keyword_attributes(text: str, tokens: list[Token], _: Scope) -> Iterator[Remark]:
    for token in tokens:
        if token.kind == "name" and text[token.start - 1 : token.start] == ".":
            if token.text in _KEYWORDS:
                yield Remark(
                    token.start, "KEYWORD_ATTRIBUTE", f"Casbin cannot read an attribute named `{token.text}`; rename it"
                )
            elif token.text.startswith(("_", "func_")):
                message = f"Casbin refuses attributes that begin like `{token.text}`; rename it"
                yield Remark(token.start, "KEYWORD_ATTRIBUTE", message)


TextRule = Callable[[str, list[Token], Scope], Iterator[Remark]]
TEXT_RULES: tuple[TextRule, ...] = (
    _operators_in_strings,
    _rewritten_in_strings,
    _separators_in_strings,
    _eval_in_strings,
    _glued_operators,
    _foreign_constants,
    _eval_spelling,
    _keyword_attributes,
)


def _unknown_names(tree: Expression, scope: Scope) -> Iterator[Remark]:
    known = {**scope.requests, **scope.policies}
    for path in _paths(tree):
        root, written = path.names[0], ".".join(path.names)
        if root in _FOREIGN_CONSTANTS:
            continue
        if root not in known:
            yield Remark(path.span.start, "UNKNOWN_NAME", f"unknown name `{written}`: {_known_names(known)}")
        elif len(path.names) == 1 or path.names[1] not in known[root]:
            yield Remark(
                path.span.start, "UNKNOWN_NAME", f"unknown name `{written}`: {_known_names({root: known[root]})}"
            )
        elif root in scope.policies and len(path.names) > 2:  # noqa: PLR2004  # a root and a field
            message = f"`{written}` asks for an attribute, but `{root}.{path.names[1]}` is a text"
            yield Remark(path.span.start, "UNKNOWN_NAME", message)


def _rewritten_paths(tree: Expression, _: Scope) -> Iterator[Remark]:
    for path in _paths(tree):
        inner = [name for name in path.names[1:-1] if _TYPE_NAME.fullmatch(name)]
        if inner:
            message = f"Casbin rewrites `{inner[0]}.` also inside `{'.'.join(path.names)}`; rename the attribute"
            yield Remark(path.span.start, "REWRITTEN_PATH", message)


def _mixed_types(tree: Expression, _: Scope) -> Iterator[Remark]:
    for letter in "rp":
        keys: list[str] = []
        for path in _paths(tree):
            root = path.names[0]
            if root[0] == letter and _TYPE_NAME.fullmatch(root) and root not in keys:
                keys.append(root)
                if len(keys) > 1:
                    message = f"Casbin reads only `{keys[0]}` here, not also `{root}`; write one type per expression"
                    yield Remark(path.span.start, "MIXED_TYPES", message)


def _functions(tree: Expression, scope: Scope) -> Iterator[Remark]:
    arities = {**ARITIES, **{key: frozenset((arity,)) for key, arity in scope.role_arities.items()}}
    for call in _calls(tree):
        if call.op == "eval" or call.op in _OPERATOR_NAMES or call.op in scope.given:
            continue
        counts = arities.get(call.op)
        if counts is None and scope.awaits:
            continue
        if counts is None:
            yield Remark(
                call.span.start, "UNKNOWN_FUNCTION", f"unknown function `{call.op}`: {_known_functions(arities)}"
            )
        elif len(call.operands) not in counts:
            wanted = " or ".join(str(count) for count in sorted(counts))
            message = f"`{call.op}` takes {wanted} arguments, not {len(call.operands)}"
            yield Remark(call.span.start, "WRONG_ARITY", message)


def _times_of_rows(tree: Expression, _: Scope) -> Iterator[Remark]:
    for call in _calls(tree):
        if call.op == TIME_MATCH and any(map(reads_row, call.operands)):
            message = "the times of a row cannot be left to who reads it; compare them with a value of the context"
            yield Remark(call.span.start, "TIME_OF_ROW", message)


def _substring_in(tree: Expression, _: Scope) -> Iterator[Remark]:
    for call in _calls(tree):
        right = call.operands[1] if call.op == "in" else None
        is_field = isinstance(right, Path) and POLICY_KEY.fullmatch(right.names[0])
        if right is not None and (is_field or (isinstance(right, Literal) and isinstance(right.value, str))):
            message = "`in` a text tests for a substring; write a list, such as `('a', 'b')`, or one rule per value"
            yield Remark(right.span.start, "SUBSTRING_IN", message)


def _untruthful(tree: Expression, _: Scope) -> Iterator[Remark]:
    """Finds texts, numbers and lists where a truth value must stand; Casbin takes most for true."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Call) and node.op in ("and", "or", "not"):
            pending.extend(node.operands)
        elif (isinstance(node, Literal) and not isinstance(node.value, bool)) or (
            isinstance(node, Call) and node.op in _VALUE_OPERATORS
        ):
            message = "this is not a comparison, and Casbin may take it for true; write a comparison, or `True`"
            yield Remark(node.span.start, "NOT_A_CONDITION", message)


TreeRule = Callable[[Expression, Scope], Iterator[Remark]]
TREE_RULES: tuple[TreeRule, ...] = (
    _unknown_names,
    _rewritten_paths,
    _mixed_types,
    _functions,
    _times_of_rows,
    _substring_in,
    _untruthful,
)
_OPERATOR_NAMES = _VALUE_OPERATORS | {"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "in"}


def _paths(tree: Expression) -> Iterator[Path]:
    return (node for node in walk(tree) if isinstance(node, Path))


def _calls(tree: Expression) -> Iterator[Call]:
    return (node for node in walk(tree) if isinstance(node, Call))


def _in_strings(tokens: list[Token], pattern: re.Pattern[str]) -> Iterator[tuple[Token, re.Match[str]]]:
    for token in tokens:
        if token.kind == "string":
            yield from ((token, match) for match in pattern.finditer(token.text))


def _known_names(known: Mapping[str, tuple[str, ...]]) -> str:
    names = [f"{root}.{token}" for root, tokens in known.items() for token in tokens]
    return f"known are {', '.join(f'`{name}`' for name in names)}" if names else "none is known"


def _known_functions(arities: Mapping[str, frozenset[int]]) -> str:
    return f"known are {', '.join(f'`{name}`' for name in sorted(arities))}"
