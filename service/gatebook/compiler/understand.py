"""Tells what in a matcher or condition the compiler does not understand.

Owns the compiler's side of a promise: nothing is compiled that speaks of what the model does not
define. The loader's findings say more; these stand behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gatebook.compiler.split import EVAL
from gatebook.expression.functions import ARITIES, BUILTINS, complaint
from gatebook.expression.moments import TIME_MATCH
from gatebook.expression.parse import OPERATORS
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.truth import Functions
from gatebook.policy.model import POLICY_KEY, Model, Sections, walk

Trouble = tuple[int, str]
"""An offset in the text, and what is wrong there."""


def not_understood(
    expression: Expression, model: Model, sections: Sections, given: Functions, *, in_rule: bool
) -> Iterator[Trouble]:
    """Yields every name and function that has no meaning in a matcher (or condition) of these sections."""
    policy_key = sections.rules
    tokens = {
        sections.request: model.requests[sections.request].tokens,
        policy_key: model.policies[policy_key].tokens,
    }
    arities = {**ARITIES, **{key: frozenset({role.arity}) for key, role in model.roles.items()}}
    for node in walk(expression):
        match node:
            case Path(names, span):
                if len(names) == 1 or names[1] not in tokens.get(names[0], ()):
                    yield span.start, f"unknown name `{'.'.join(names)}`"
                elif names[0] == policy_key and len(names) > 2:  # noqa: PLR2004 - a root and a field
                    yield span.start, f"the field `{names[0]}.{names[1]}` is a text and has no attributes"
            case Call(op, operands, span) if op == EVAL:
                if in_rule or len(operands) != 1 or not _is_field(operands[0], policy_key):
                    yield (
                        span.start,
                        f"`eval` takes one field of the rule: write `eval({policy_key}.cond)` in the matcher",
                    )
            case Call(op, operands, span) if op not in OPERATORS and op not in given:
                yield from _misused(op, len(operands), span.start, arities)
                yield from _malformed(op, operands)
            case Call() | Literal():
                pass


def pattern_fields(matcher: Expression, given: Functions) -> Iterator[tuple[str, str]]:
    """Yields the functions that take a field of the rule for their pattern, with the field."""
    for node in walk(matcher):
        match node:
            case Call("timeMatch", operands) if TIME_MATCH not in given:
                fields = (it.names for it in operands if isinstance(it, Path))
                yield from ((TIME_MATCH, field) for root, field, *_ in fields if POLICY_KEY.fullmatch(root))
            case Call(op, (_, Path((root, field)), *_)) if op in BUILTINS and op not in given:
                if POLICY_KEY.fullmatch(root):
                    yield op, field


def _malformed(name: str, operands: tuple[Expression, ...]) -> Iterator[Trouble]:
    match operands:
        case operands if name == TIME_MATCH:
            for operand in operands:
                text = operand.value if isinstance(operand, Literal) else None
                if isinstance(text, str) and (wrong := complaint(name, text)):
                    yield operand.span.start, wrong
        case (_, Literal(str() as text, span), *_) if name in BUILTINS and len(operands) == BUILTINS[name].arity:
            if wrong := complaint(name, text):
                yield span.start, wrong


def _is_field(expression: Expression, policy_key: str) -> bool:
    return isinstance(expression, Path) and expression.names[0] == policy_key


def _misused(name: str, count: int, offset: int, arities: Mapping[str, frozenset[int]]) -> Iterator[Trouble]:
    wanted = arities.get(name)
    if wanted is None:
        yield offset, f"unknown function `{name}`: known are {', '.join(f'`{known}`' for known in sorted(arities))}"
    elif count not in wanted:
        yield offset, f"`{name}` takes {' or '.join(map(str, sorted(wanted)))} arguments, not {count}"
