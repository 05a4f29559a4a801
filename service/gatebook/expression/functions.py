"""The functions that matchers and conditions may call.

Owns their names, arities and meaning, which is that of pycasbin 2.8, with these differences:

1. they are total: arguments that pycasbin would raise on give UNKNOWN (None);
2. patterns are RE2 (linear time, no look-around or back-references), anchored at their start like
   `re.match`; `$` matches only at the very end;
3. `timeMatch` is not among them: it reads a local clock;
4. `keyGet`, `keyGet2` and `keyGet3`, which other Casbins have, are.

Role functions (`g`, `g2`, ...) and `eval` belong to a model, not here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
import re2

from gatebook.expression.globs import to_regex

_CACHED_PATTERNS = 4_096
_PATTERN_LENGTH_MAX = 2_048
_TEXT_LENGTH_MAX = 65_536
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False

_COLON_NAME = re.compile(r"(.*?):[^\/]+(.*?)")
_BRACE_NAME = re.compile(r"(.*?){[^\/]+?}(.*?)")
_BRACE_REPEATED = re.compile(r"{([^/]+)}")
# RE2 takes a repeated anchor for no anchor at all; Casbin has an error there.
_ANCHOR_REPEATED = re.compile(r"(?<![\\\[])\^(?:[*+?]|\{\d)")


class Function(msgspec.Struct, frozen=True):
    """A function: how many strings it takes, and what it makes of them (None: unknown)."""

    arity: int
    call: Callable[..., bool | str | None]


def key_match(key: str, pattern: str) -> bool:
    """Tells whether `key` begins with the part of `pattern` before its first `*`, or equals it."""
    star = pattern.find("*")
    if star == -1:
        return key == pattern
    if len(key) > star:
        return key[:star] == pattern[:star]
    return key == pattern[:star]


def key_match2(key: str, pattern: str) -> bool | None:
    """Matches paths: `*` after a slash is anything, `:name` is one segment."""
    translated = _COLON_NAME.sub(r"\g<1>[^\/]+\g<2>", pattern.replace("/*", "/.*"))
    return regex_match(key, "^(.*)$" if translated == "*" else f"^{translated}$")


def key_match3(key: str, pattern: str) -> bool | None:
    """Matches paths: `*` after a slash is anything, `{name}` is one segment."""
    translated = _BRACE_NAME.sub(r"\g<1>[^\/]+\g<2>", pattern.replace("/*", "/.*"))
    return regex_match(key, f"^{translated}$")


def key_match4(key: str, pattern: str) -> bool | None:
    """Matches as `keyMatch3`; what stands for the same `{name}` twice must be the same."""
    names = _BRACE_REPEATED.findall(pattern)
    compiled = _compile(f"^{_BRACE_REPEATED.sub('([^/]+)', pattern.replace('/*', '/.*'))}$")
    match = _match(compiled, key)
    if not match:
        return None if match is None else False
    values: tuple[str, ...] = match.groups()
    if len(values) != len(names):
        return None
    return len(set(zip(names, values, strict=True))) == len(set(names))


def key_match5(key: str, pattern: str) -> bool | None:
    """Matches as `keyMatch3`, but for what follows a `?` in `key`."""
    translated = re.sub(r"{[^/]+}", "[^/]+", pattern.replace("/*", "/.*"))
    return regex_match(key.partition("?")[0], f"^{translated}$")


def key_get(key: str, pattern: str) -> str:
    """Returns what stands for the `*` of a `keyMatch`, or nothing."""
    star = pattern.find("*")
    return key[star:] if star != -1 and len(key) > star and key[:star] == pattern[:star] else ""


def key_get2(key: str, pattern: str, name: str) -> str | None:
    """Returns what stands for `:name` in a `keyMatch2`, or nothing."""
    prepared = pattern.replace("/*", "/.*")
    names = [found[1:] for found in re.findall(r":[^/]+", prepared)]
    translated = _COLON_NAME.sub(r"\g<1>([^\/]+)\g<2>", prepared)
    return _named_group(key, "^(.*)$" if translated == "*" else f"^{translated}$", names, name)


def key_get3(key: str, pattern: str, name: str) -> str | None:
    """Returns what stands for `{name}` in a `keyMatch3`, or nothing."""
    prepared = pattern.replace("/*", "/.*")
    names = [found[1:-1] for found in re.findall(r"{[^/]+?}", prepared)]
    translated = _BRACE_NAME.sub(r"\g<1>([^/]+?)\g<2>", prepared)
    return _named_group(key, f"^{translated}$", names, name)


def regex_match(text: str, pattern: str) -> bool | None:
    """Tells whether `text` begins with a match of `pattern`; unknown where that is no pattern."""
    match = _match(_compile(pattern), text)
    return None if match is None else bool(match)


def ip_match(address: str, network: str) -> bool | None:
    """Tells whether an IP address is in a network or equals an address; unknown where it is none."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return None


def glob_match(text: str, pattern: str) -> bool | None:
    """Matches a path with `*`, `?`, `[...]`, `{a,b}` and `**`; see `globs`."""
    return regex_match(text, to_regex(pattern))


@lru_cache(maxsize=_CACHED_PATTERNS)
def _compile(pattern: str) -> Any:  # noqa: ANN401 - re2 has no types
    if len(pattern) > _PATTERN_LENGTH_MAX or _ANCHOR_REPEATED.search(pattern):
        return None
    try:
        return re2.compile(pattern, _OPTIONS)
    except (re2.error, UnicodeEncodeError):
        return None


def _match(compiled: Any, text: str) -> Any:  # noqa: ANN401 - re2 has no types
    """Returns the match, False where there is none, None where that is unknown."""
    if compiled is None or len(text) > _TEXT_LENGTH_MAX:
        return None
    try:
        return compiled.match(text) or False
    except UnicodeEncodeError:
        return None


def _named_group(key: str, pattern: str, names: list[str], name: str) -> str | None:
    match = _match(_compile(pattern), key)
    if not match:
        return None if match is None else ""
    groups: tuple[str, ...] = match.groups()
    return next((value for found, value in zip(names, groups, strict=False) if found == name), "")


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
ARITIES: Mapping[str, frozenset[int]] = {name: frozenset({it.arity}) for name, it in BUILTINS.items()}
