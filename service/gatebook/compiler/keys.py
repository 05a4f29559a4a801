"""Tells which part of a matcher can be looked up, and how.

Owns the forms of a key. A key names a field of the rule and a value of the request; rules are found by what
their field is, and rules that it does not find are those for which the part is False:

    r.act == p.act                      EQUAL    the field is the value
    g(r.sub, p.sub), g(r.sub, p.sub, r.dom)   ROLE     the field is what the value inherits
    g(p.sub, r.sub)                     HEIR     the field is what inherits the value
    p.act in r.acts                     MEMBER   the field is one of the values
    keyMatch(r.obj, p.obj)              PREFIX   the value begins with what the field's pattern begins with

An exact key says all that its part says. Another only narrows: its part is still asked of the rules found.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from gatebook.compiler.timed import is_time
from gatebook.expression.prefixes import PREFIXED
from gatebook.expression.residual import reads_row
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.policy.model import POLICY_KEY, RoleDefinition

_FIELD_PARTS = 2

Domain = Path | Literal


class Form(enum.IntEnum):
    """How the field of a rule is found from a value of the request; the most selective stand first."""

    EQUAL = 0
    MEMBER = 1
    ROLE = 2
    HEIR = 3
    PREFIX = 4


class Key(msgspec.Struct, frozen=True):
    """One lookup: the rule's `field` by the value of `request`.

    `part` is the part of the matcher that says so. `role` is the relation, in `domains`, or the function of a PREFIX.
    """

    part: Expression
    field: str
    request: Path
    form: Form = Form.EQUAL
    role: str = ""
    domains: tuple[Domain, ...] = ()
    exact: bool = True


class Known(msgspec.Struct, frozen=True):
    """What is known of functions: the relations by key, those that are `loose_roles`, and the names that were given."""

    roles: Mapping[str, RoleDefinition]
    loose: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()


def key_of(part: Expression, known: Known, equal: Mapping[str, Path]) -> Key | None:
    """Returns how a part can be looked up, or None.

    `equal` names the fields that the same alternative wants equal to a value of the request.
    """
    if reads_row(part):
        return None
    match part:
        case Call("eq", (Path() as left, Path() as right)):
            left, right = (right, left) if is_field(left) else (left, right)
            return Key(part, right.names[1], left) if is_request(left) and is_field(right) else None
        case Call("in", (Path() as field, Path() as request)) if is_field(field) and is_request(request):
            return Key(part, field.names[1], request, Form.MEMBER, exact=False)
        case Call(op, (Path() as text, Path() as field)) if op in PREFIXED and op not in known.given:
            if is_request(text) and is_field(field):
                return Key(part, field.names[1], text, Form.PREFIX, op, exact=False)
        case Call(op, (Path() as child, Path() as parent, *rest)) if op in known.roles and op not in known.given:
            domains = [it for it in rest if not is_time(it)]
            if len(domains) + 2 == known.roles[op].arity:
                return _role_key(part, op, (child, parent), tuple(domains), equal, loose=op in known.loose)
    return None


def is_field(path: Path) -> bool:
    """Tells whether a path is a field of the rule."""
    return POLICY_KEY.fullmatch(path.names[0]) is not None and len(path.names) == _FIELD_PARTS


def is_request(path: Path) -> bool:
    """Tells whether a path is a value of the request."""
    return POLICY_KEY.fullmatch(path.names[0]) is None and len(path.names) > 1


def _role_key(
    part: Expression,
    op: str,
    names: tuple[Path, Path],
    domains: tuple[Expression, ...],
    equal: Mapping[str, Path],
    *,
    loose: bool,
) -> Key | None:
    child, parent = names
    read = tuple(_domain(domain, equal) for domain in domains)
    known = tuple(domain for domain in read if domain is not None)
    exact = known == domains and not loose
    if len(known) < len(domains):
        return None
    if is_request(child) and is_field(parent):
        return Key(part, parent.names[1], child, Form.ROLE, op, known, exact)
    if is_field(child) and is_request(parent) and not loose:
        return Key(part, child.names[1], parent, Form.HEIR, op, known, exact)
    return None


def _domain(domain: Expression, equal: Mapping[str, Path]) -> Domain | None:
    """Returns where a domain can be read: of the request, where a field of the rule must be equal to it."""
    match domain:
        case Literal(str()):
            return domain
        case Path() if is_request(domain):
            return domain
        case Path(names) if is_field(domain):
            return equal.get(names[1])
    return None
