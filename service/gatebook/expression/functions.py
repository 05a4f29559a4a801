"""The functions that matchers and conditions may call.

Owns their names, arities and meaning, which is that of pycasbin 2.8, with these differences:

1. they are total: arguments that pycasbin would raise on give UNKNOWN (None);
2. patterns are those that `re` and RE2 understand alike (see `dialect`), anchored at their start
   like `re.match`; for texts on which the two could differ the answer is unknown;
3. `timeMatch` is asked with the time of the decision, in UTC, and reads no clock (see `moments`);
4. `keyGet`, `keyGet2` and `keyGet3`, which other Casbins have, are.

Role functions (`g`, `g2`, ...) and `eval` belong to a model, not here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from gatebook.expression.globs import is_path
from gatebook.expression.moments import TIME_MATCH, time_complaint
from gatebook.expression.patterns import pattern_of, refusal

_ADDRESS = "0.0.0.0"  # noqa: S104 - an address to match, not to bind


class Function(msgspec.Struct, frozen=True):
    """A function: how many strings it takes, and what it makes of them (None: unknown)."""

    arity: int
    call: Callable[..., bool | str | None]


def prefix_pattern(pattern: str) -> tuple[str, bool]:
    """Returns what a text that `keyMatch` matches begins with, and whether it is the whole text."""
    prefix, star, _ = pattern.partition("*")
    return prefix, not star


def key_match(key: str, pattern: str) -> bool:
    """Tells whether `key` begins with the part of `pattern` before its first `*`, or equals it."""
    prefix, whole = prefix_pattern(pattern)
    return key == prefix if whole else key.startswith(prefix)


def key_match2(key: str, pattern: str) -> bool | None:
    """Matches paths: `*` after a slash is anything, `:name` is one segment."""
    return _matches("keyMatch2", key, pattern)


def key_match3(key: str, pattern: str) -> bool | None:
    """Matches paths: `*` after a slash is anything, `{name}` is one segment."""
    return _matches("keyMatch3", key, pattern)


def key_match4(key: str, pattern: str) -> bool | None:
    """Matches as `keyMatch3`; what stands for the same `{name}` twice must be the same."""
    parts = _parts("keyMatch4", key, pattern)
    if parts is None or parts is False:
        return parts
    return len(set(parts)) == len({name for name, _ in parts})


def key_match5(key: str, pattern: str) -> bool | None:
    """Matches as `keyMatch3`, but for what follows a `?` in `key`."""
    return _matches("keyMatch5", key.partition("?")[0], pattern)


def key_get(key: str, pattern: str) -> str:
    """Returns what stands for the `*` of a `keyMatch`, or nothing."""
    star = pattern.find("*")
    return key[star:] if star != -1 and len(key) > star and key[:star] == pattern[:star] else ""


def key_get2(key: str, pattern: str, name: str) -> str | None:
    """Returns what stands for `:name` in a `keyMatch2`, or nothing."""
    return _part("keyGet2", key, pattern, f":{name}")


def key_get3(key: str, pattern: str, name: str) -> str | None:
    """Returns what stands for `{name}` in a `keyMatch3`, or nothing."""
    return _part("keyGet3", key, pattern, f"{{{name}}}")


def regex_match(text: str, pattern: str) -> bool | None:
    """Tells whether `text` begins with a match of `pattern`; unknown where that is no pattern."""
    return _matches("regexMatch", text, pattern)


def ip_match(address: str, network: str) -> bool | None:
    """Tells whether an IP address is in a network or equals an address; unknown where it is none."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return None


def glob_match(text: str, pattern: str) -> bool | None:
    """Matches a path with `*`, `?`, `[...]`, `{a,b}` and `**`; see `globs`."""
    return _matches("globMatch", text, pattern) if is_path(text) else None


def _matches(function: str, text: str, pattern: str) -> bool | None:
    prepared = pattern_of(function, pattern)
    found = None if prepared is None else prepared.match(text)
    return None if found is None else bool(found)


def _parts(function: str, text: str, pattern: str) -> tuple[tuple[str, str], ...] | Literal[False] | None:
    """Returns the names of a path pattern, and what stands for each; False where the text does not match."""
    prepared = pattern_of(function, pattern)
    found = None if prepared is None else prepared.match(text)
    if prepared is None or not found:
        return None if found is None else False
    return tuple(zip(prepared.names, found.groups(), strict=False))


def _part(function: str, text: str, pattern: str, name: str) -> str | None:
    parts = _parts(function, text, pattern)
    if parts is None:
        return None
    return next((value for found, value in parts or () if found == name), "")


BUILTINS: Mapping[str, Function] = {
    "keyMatch": Function(2, key_match),
    "keyMatch2": Function(2, key_match2),
    "keyMatch3": Function(2, key_match3),
    "keyMatch4": Function(2, key_match4),
    "keyMatch5": Function(2, key_match5),
    "keyGet": Function(2, key_get),
    "keyGet2": Function(3, key_get2),
    "keyGet3": Function(3, key_get3),
    "regexMatch": Function(2, regex_match),
    "ipMatch": Function(2, ip_match),
    "globMatch": Function(2, glob_match),
}
ARITIES: Mapping[str, frozenset[int]] = {
    **{name: frozenset({it.arity}) for name, it in BUILTINS.items()},
    TIME_MATCH: frozenset({2}),
}
PATTERN_FUNCTIONS = frozenset(
    ("keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "keyGet2", "keyGet3", "regexMatch", "globMatch")
)
"""The functions whose second argument is a pattern that may be refused."""

_SHOWN = 60


def complaint(function: str, pattern: str) -> str:
    """Returns what is wrong with the second argument of a function, and what to write; nothing where all is well.

    Of `timeMatch`, both arguments are times.
    """
    why = ""
    if function == TIME_MATCH:
        return time_complaint(pattern)
    if function in PATTERN_FUNCTIONS:
        why = refusal(function, pattern)
    elif function == "ipMatch" and ip_match(_ADDRESS, pattern) is None:
        why = "write an IP address or a network, such as `10.0.0.0/8`"
    shown = pattern if len(pattern) <= _SHOWN else f"{pattern[:_SHOWN]}..."
    return why and f"`{shown}` is no pattern of `{function}`: {why}"
