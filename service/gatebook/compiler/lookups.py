"""Reads from a request which values the key of an index may have.

Owns the request's side of an index: of what a key finds only what some rule has counts. A value that is
null, missing or no text is UNKNOWN, and so is what depends on it; where a key that only narrows cannot tell, it says
`EVERY`, and its part is asked of every rule of the level.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Literal as Only

from gatebook.compiler.closure import Tokens
from gatebook.compiler.keys import Domain, Form, Key
from gatebook.compiler.loose_roles import LooseRoles
from gatebook.compiler.roles import Names, Roles
from gatebook.expression.environment import attribute
from gatebook.expression.prefixes import is_plain
from gatebook.expression.tree import Path
from gatebook.pace import Pause, no_pause, paced


class Every(enum.Enum):
    """Says that a key does not narrow."""

    EVERY = "every"


EVERY: Only[Every.EVERY] = Every.EVERY

Values = Names | Only[Every.EVERY] | None
"""What the field of a rule may be: one of these, whatever it is, or None where that is unknown."""

Graph = Roles | LooseRoles

Lookup = Callable[[Tokens], Values]
_NONE: Names = ()


def lookup(key: Key, roles: Mapping[str, Graph], used: frozenset[str], pause: Pause = no_pause) -> Lookup:
    """Returns what reads the values of one key, of which only those in `used` matter."""
    read = read_path(key.request)
    match key.form:
        case Form.EQUAL:
            alone = {value: (value,) for value in paced(used, pause)}
            return lambda tokens: alone.get(value, _NONE) if isinstance(value := read(tokens), str) else None
        case Form.MEMBER:
            return _members(read, used)
        case Form.PREFIX:
            return _prefixes(key.role, read, used)
    graph = roles[key.role]
    closure: Callable[..., Names]
    if key.form is Form.ROLE or isinstance(graph, LooseRoles):
        closure = graph.within(used, pause)
    else:
        closure = graph.heirs_within(used, pause)
    if not key.domains:
        return lambda tokens: closure(value) if isinstance(value := read(tokens), str) else None
    return _within_domains(read, closure, key)


def read_path(path: Path) -> Callable[[Tokens], object]:
    """Returns what reads one path of a request."""
    _, token, *names = path.names
    if not names:
        return lambda tokens: tokens.get(token)

    def read(tokens: Tokens) -> object:
        value: object = tokens.get(token)
        for name in names:
            value = attribute(value, name)
        return value

    return read


def _within_domains(read: Callable[[Tokens], object], closure: Callable[..., Names], key: Key) -> Lookup:
    domains = [_domain(domain) for domain in key.domains]
    exact = key.exact

    def inherited(tokens: Tokens) -> Values:
        value = read(tokens)
        if not isinstance(value, str):
            return None
        texts = [str.__str__(it) for domain in domains if isinstance(it := domain(tokens), str)]
        if len(texts) == len(domains):
            return closure(value, *texts)
        return None if exact else EVERY

    return inherited


def _domain(domain: Domain) -> Callable[[Tokens], object]:
    if isinstance(domain, Path):
        return read_path(domain)
    value = domain.value
    return lambda _tokens: value


def _members(read: Callable[[Tokens], object], used: frozenset[str]) -> Lookup:
    def members(tokens: Tokens) -> Values:
        values = read(tokens)
        if not isinstance(values, list | tuple):
            return None
        texts = [str.__str__(value) for value in values if isinstance(value, str)]
        return used.intersection(texts) if len(texts) == len(values) else EVERY

    return members


def _prefixes(function: str, read: Callable[[Tokens], object], used: frozenset[str]) -> Lookup:
    lengths = sorted({len(prefix) for prefix in used})

    def prefixes(tokens: Tokens) -> Values:
        text = read(tokens)
        if not isinstance(text, str):
            return None
        if not is_plain(function, text):
            return EVERY
        size = len(text)
        return frozenset([it for length in lengths if length <= size and (it := text[:length]) in used])

    return prefixes
