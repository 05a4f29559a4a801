"""Reads from a request which values the key of an index may have.

Owns the request's side of an index: a text for an equality, all that a name inherits for a role, of
which only those count that some rule has. A value that is null, missing or no text is UNKNOWN, and so
is what depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gatebook.compiler.closure import Tokens
from gatebook.compiler.roles import Roles
from gatebook.compiler.split import Key
from gatebook.expression.environment import attribute
from gatebook.expression.tree import Literal, Path

Values = frozenset[str] | None
"""What the field of a rule may be; None where that is unknown."""

Lookup = Callable[[Tokens], Values]
_NONE: frozenset[str] = frozenset()


def lookup(key: Key, roles: Mapping[str, Roles], used: frozenset[str]) -> Lookup:
    """Returns what reads the values of one key, of which only those in `used` matter."""
    read = read_path(key.request)
    if not key.role:
        alone = {value: frozenset((value,)) for value in used}
        return lambda tokens: alone.get(value, _NONE) if isinstance(value := read(tokens), str) else None
    closure = roles[key.role].closure_within(used)
    if key.domain is None:
        return lambda tokens: closure(value) if isinstance(value := read(tokens), str) else None
    read_domain = _domain(key.domain)

    def inherited(tokens: Tokens) -> Values:
        value, domain = read(tokens), read_domain(tokens)
        return closure(value, domain) if isinstance(value, str) and isinstance(domain, str) else None

    return inherited


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


def _domain(domain: Path | Literal) -> Callable[[Tokens], object]:
    if isinstance(domain, Path):
        return read_path(domain)
    value = domain.value
    return lambda _tokens: value
