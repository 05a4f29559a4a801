"""The built-in functions are those of Casbin, where Casbin answers at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from casbin import util
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.expression.functions import BUILTINS, complaint

PATTERN_PIECES = ("a", "b1", "/", "/", "*", "/*", ":id", ":id/", "{id}", "{x}", "{id}/", ".", "-", "?q=1", "a+")
SEGMENTS = ("a", "b1", "b1/c", "")
TEXTS = (
    *(f"{start}{segment}" for start in ("", "/") for segment in SEGMENTS),
    *(f"{start}{one}/{two}" for start in ("", "/") for one in SEGMENTS for two in SEGMENTS),
    *("/a?q=1", "/a/b1?x", "*", "/*", "/:id"),
)
GLOB_PIECES = ("a", "b", "*", "/**", "**/", "?", "/", "[ab]", "[!a]", "{a,b}", ".", "/", "foo")
GLOB_SEGMENTS = ("a", "foo", ".a", "a.b", "ab")
ORACLES: dict[str, Callable[..., Any]] = {
    "keyMatch": util.key_match_func,
    "keyMatch2": util.key_match2_func,
    "keyMatch3": util.key_match3_func,
    "keyMatch4": util.key_match4_func,
    "keyMatch5": util.key_match5_func,
    "regexMatch": util.regex_match_func,
    "keyGet": util.key_get,
}


def patterns(pieces: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Draws patterns that are made of telling pieces."""
    return st.lists(st.sampled_from(pieces), min_size=1, max_size=6).map("".join)


def asked(oracle: Callable[..., Any], *arguments: str) -> Any:  # noqa: ANN401 - whatever Casbin answers
    """Asks Casbin; what it raises on is None, as it is unknown to us."""
    try:
        return oracle(*arguments)
    except Exception:  # noqa: BLE001 - Casbin raises anything
        return None


@pytest.mark.parametrize("name", ORACLES)
def test_equal_casbin(name: str) -> None:
    """A function answers what Casbin's does, or unknown; where Casbin raises, it is unknown or False."""

    @settings(max_examples=100)
    @given(patterns(PATTERN_PIECES))
    def check(pattern: str) -> None:
        for text in TEXTS:
            ours = BUILTINS[name].call(text, pattern)
            assert ours is None or (asked(ORACLES[name], text, pattern) or False) == (ours or False)

    check()


@pytest.mark.parametrize(("name", "oracle"), [("keyGet2", util.key_get2), ("keyGet3", util.key_get3)])
def test_named_parts_equal_casbin(name: str, oracle: Callable[..., Any]) -> None:
    """What stands for a name in a path is what Casbin finds there."""

    @settings(max_examples=100)
    @given(patterns(PATTERN_PIECES))
    def check(pattern: str) -> None:
        for text, part in itertools.product(TEXTS, ("id", "x")):
            ours = BUILTINS[name].call(text, pattern, part)
            assert ours is None or (asked(oracle, text, pattern, part) or "") == ours

    check()


@settings(max_examples=300)
@given(patterns(GLOB_PIECES).filter(lambda pattern: not complaint("globMatch", pattern)))
def test_globs_equal_casbin(pattern: str) -> None:
    """A glob that is accepted matches what Casbin's does."""
    for parts in itertools.product(GLOB_SEGMENTS, repeat=2):
        for text in ("/".join(parts), "/" + "/".join(parts), parts[0], f"/{parts[0]}"):
            assert util.glob_match_func(text, pattern) is BUILTINS["globMatch"].call(text, pattern)


@pytest.mark.parametrize(
    ("address", "network", "expected"),
    [
        ("192.168.2.123", "192.168.2.0/24", True),
        ("192.168.3.1", "192.168.2.0/24", False),
        ("192.168.2.1", "192.168.2.77/24", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db8::1", "10.0.0.0/8", False),
        ("10.0.0.1", "ten", None),
        ("localhost", "127.0.0.0/8", None),
        ("", "", None),
    ],
)
def test_ip_match(address: str, network: str, expected: bool | None) -> None:
    """An address is in a network as Casbin says; what is no address is unknown, not an error."""
    assert expected is BUILTINS["ipMatch"].call(address, network)
    assert expected in (None, asked(util.ip_match_func, address, network))


@pytest.mark.parametrize("pattern", ["(", "[", "a{2,1}", "(?=a)", r"(a)\1", "a" * 5_000, "\ud800"])
def test_no_pattern_is_unknown(pattern: str) -> None:
    """A malformed pattern, one that needs backtracking, and one that is too long are unknown."""
    assert BUILTINS["regexMatch"].call("a", pattern) is None


def test_patterns_take_linear_time() -> None:
    """A pattern that takes a backtracking matcher exponential time is answered at once."""
    assert BUILTINS["regexMatch"].call("a" * 50_000 + "!", "^(a+)+$") is False
