"""Patterns are read as Casbin reads them, or refused: with an answer, never with the opposite one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from casbin.util import builtin_operators
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.expression.dialect import PatternError, read
from gatebook.expression.functions import BUILTINS, PATTERN_FUNCTIONS, complaint
from gatebook.expression.patterns import PATTERN_LENGTH_MAX

ORACLES: dict[str, Callable[..., Any]] = {
    "keyMatch2": builtin_operators.key_match2,
    "keyMatch3": builtin_operators.key_match3,
    "keyMatch4": builtin_operators.key_match4,
    "keyMatch5": builtin_operators.key_match5,
    "regexMatch": builtin_operators.regex_match,
    "globMatch": builtin_operators.glob_match,
}
CONTROLS = ["", "\n", "a\n", "aa\n", "a\nb", "/a\n", "\x00", "\x0b", "\x1c", "\x85", "\xa0", " ", "a b", "\ud800"]
FOREIGN = [
    "\u212a",
    "\u0131",
    "\u0130",
    "\u017f",
    "\u00e9",
    "\u0663",
    "\U0001f600",
    "\u00df",
    "\u1e9e",
    "\u03c3",
    "\u03c2",
]
PIECE_WORDS = r"""
a b1 / . .* ^ $ | ( ) (?: * + ? {2} {,4} {0,2} {1,} { } {02} # _ - : , ! & :id {id} {x} /* /:id **  *? ++ i k s I K
\w \d \s \b \W \D \S \B \A \Z \z \pL \Q \E \C \x{61} \x61 \u0061 \1 \. \- \n \t \0 \ \^ \$
(?i) (?U) (?s) (?is) (?m) (?a) (?x) (?<n>a) (?P<n>a) (?i:a) (?=a)
[[:alpha:]] [^\w] [\W_] [^\d\s] [a-c] [^a] []a] [a-] [ ] [a&&b] [a--b] [^k] [z-a] [\b] [k-s]
"""
PIECES = [*CONTROLS, *FOREIGN, "\\\u00e9", "[^\u00e9]", "[\u0430-\u044f]", *PIECE_WORDS.split()]
TEXT_WORDS = "a aa ab1 b1 aaaa 3 _ k K s S i I ss / /a /a/b1 /a/b1/ // a{,4} { [ ] - ^ $ \\ . c & |"
TEXTS = [*CONTROLS, *FOREIGN, "a\u00e9", "/\u00e9/a", *TEXT_WORDS.split()]
GLOB_WORDS = r"""
a b foo . * ** /** **/ ? / / [ab] [!a] [^a] [[:alpha:]] [.] [!.] [a-c] [_a-c] [b-a] [ [! [a- z] - {a,b} {a,b { } ,
{1..3} {1..3,a} {a} {*,a} {a/b,.a} {.a,c} {a,} {a,{b,c}} $ \ \* ! ~ | (a) @(a|b) !(a) <1-2> ^ + * / é {é,a}
"""
GLOB_PIECES = GLOB_WORDS.split()
GLOB_TEXT_WORDS = r"""
a b ab foo .a a.b a/ /a/ / a/b /a/b a/b/foo a//b . .. a/.. ./a /. a,b {a} b,a 1 2 ! ~ | (a) - $ $a $b ^ + a+ \ ] [a A
@a <1-2> } , *
"""
GLOB_TEXTS = [*CONTROLS, "\u00e9", "a/\u00e9", *GLOB_TEXT_WORDS.split()]


def patterns(pieces: list[str]) -> st.SearchStrategy[str]:
    """Draws patterns that are made of telling pieces."""
    return st.lists(st.sampled_from(pieces), min_size=1, max_size=6).map("".join)


def asked(oracle: Callable[..., Any], *arguments: str) -> object:
    """Asks Casbin; what it raises on is no answer."""
    try:
        return oracle(*arguments)
    except Exception:  # noqa: BLE001 - Casbin raises anything
        return None


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_never_the_opposite_of_casbin(name: str) -> None:
    """Whatever pattern and text, a function answers as Casbin does, or not at all; where Casbin raises, not at all."""
    is_glob = name == "globMatch"

    @settings(max_examples=600)
    @given(patterns(GLOB_PIECES if is_glob else PIECES), st.text(max_size=6), st.text(alphabet="a/.b\n", max_size=6))
    def check(pattern: str, drawn: str, path: str) -> None:
        for text in (*(GLOB_TEXTS if is_glob else TEXTS), drawn, path):
            ours = BUILTINS[name].call(text, pattern)
            assert ours is None or asked(ORACLES[name], text, pattern) is ours

    check()


@pytest.mark.parametrize(
    "frame", ["{0}", "\\{0}", "[{0}]", "[\\{0}]", "[^\\{0}]", "(?i){0}", "(?i)[^\\{0}]", "a{0}", "(?{0}a)"]
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_every_character(frame: str) -> None:
    """Each ASCII character, by itself, escaped and in a class, means for each other one what it means in Python."""
    texts = [*map(chr, range(128)), *FOREIGN, "", "a\n", "aa"]
    for number in range(128):
        pattern = frame.format(chr(number))
        for text in texts:
            ours = BUILTINS["regexMatch"].call(text, pattern)
            assert ours is None or asked(builtin_operators.regex_match, text, pattern) is ours, (pattern, text)


@settings(max_examples=600)
@given(patterns(PIECES))
def test_what_is_accepted_is_python_too(pattern: str) -> None:
    """A pattern of the dialect compiles in Python, without a warning that it will mean something else."""
    try:
        read(pattern)
    except PatternError:
        return
    re.compile(pattern)


@settings(max_examples=600)
@given(patterns(PIECES + GLOB_PIECES), st.sampled_from(sorted(PATTERN_FUNCTIONS)))
def test_what_is_refused_has_no_answer(pattern: str, name: str) -> None:
    """A pattern has an answer for a plain text if, and only if, nothing is said against it."""
    ours = BUILTINS[name].call("a", pattern, *["x"] * (BUILTINS[name].arity - 2))
    assert bool(complaint(name, pattern)) is (ours is None)


@pytest.mark.parametrize("name", sorted(PATTERN_FUNCTIONS))
@pytest.mark.parametrize("piece", ["{", "{a}", ":a", "(", "[", "a{1000}", "**/", "{a,b}", "{,", "\\", "/*"])
def test_long_patterns_are_refused_unread(name: str, piece: str) -> None:
    """A pattern of 100 KB is refused for its length, before any work is done on it."""
    pattern = piece * (100_000 // len(piece))
    said = complaint(name, pattern)
    assert f"at most {PATTERN_LENGTH_MAX:,} characters" in said
    assert len(said) < PATTERN_LENGTH_MAX
    assert BUILTINS[name].call("a", pattern, *["x"] * (BUILTINS[name].arity - 2)) is None


def test_the_end_may_be_before_a_line_feed() -> None:
    r"""In Casbin `$` also matches before a last line feed: a text that ends in one is unknown, but not to `\Z`."""
    assert (True, None) == (bool(re.match("^a$", "a\n")), BUILTINS["regexMatch"].call("a\n", "^a$"))
    assert (False, False) == (bool(re.match(r"^a\Z", "a\n")), BUILTINS["regexMatch"].call("a\n", r"^a\Z"))


def test_as_many_alternatives_as_are_multiplied_out() -> None:
    """A glob with the most alternatives has an answer, Casbin's."""
    glob = f"/data/{{{','.join(f's{number}' for number in range(64))}}}"
    for text, expected in (("/data/s7", True), ("/data/s64", False)):
        assert BUILTINS["globMatch"].call(text, glob) is expected is builtin_operators.glob_match(text, glob)


@pytest.mark.parametrize("count", [65, 200])
def test_too_many_alternatives_have_no_answer(count: int) -> None:
    """A glob with too many alternatives is refused and unknown: it is no definite False, which would lift a deny."""
    glob = f"/data/{{{','.join(f's{number}' for number in range(count))}}}"
    assert BUILTINS["globMatch"].call("/data/s7", glob) is None
    assert "more than 64" in complaint("globMatch", glob)
