r"""Reads the regular expressions that policies may use: what Python's `re` and RE2 understand alike.

Owns the dialect, because a policy must mean here what it means in pycasbin, which uses `re`, while
RE2 matches in linear time. One pass refuses whatever the two read differently, and writes the rest
for RE2. What remains different depends on the text that is matched, and is named in the `Reading`:

1. `\d`, `\w`, `\s`, `\b` and `(?i)` know Unicode in `re` only, and each Unicode in its own version,
   so they are written for ASCII, and another text has no answer;
2. `$` also matches before a last line feed in `re`, so a text that ends in one has no answer.

Accepted are: characters, `.`, `^`, `$`, `\A`, `\Z`, `\b`, classes without `[` in them, `(...)`,
`(?:...)`, `|`, `*`, `+`, `?`, `{2}`, `{2,}`, `{2,8}` and each with a `?`; at the very start `(?i)` and `(?s)`.
"""

from __future__ import annotations

import re
from typing import NoReturn

import msgspec

from gatebook.errors import GatebookError

DEPTH_MAX = 32
COUNT_MAX = 1_000
"""How often RE2 repeats at most."""

_FLAGS = re.compile(r"\(\?(is?|si?)\)")
_COUNT = re.compile(r"\{(0|[1-9][0-9]{0,3})(?:(,)(0|[1-9][0-9]{0,3})?)?\}")
_ANCHORS = {"^": "^", "$": r"\z", "A": r"\A", "Z": r"\z"}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
# The ASCII part of what the letters mean in Python; RE2 has fewer spaces.
_SETS = {
    "d": r"0-9",
    "D": r"\x00-\x2f\x3a-\x7f",
    "w": r"0-9A-Z_a-z",
    "W": r"\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f",
    "s": r"\x09-\x0d\x1c-\x20",
    "S": r"\x00-\x08\x0e-\x1b\x21-\x7f",
}
_FIRST_SURROGATE, _LAST_SURROGATE = "\ud800", "\udfff"


class PatternError(GatebookError):
    """A text is no pattern of the dialect; the message says what to write instead."""

    reason = "POLICY_SET_REFUSED"


class Reading(msgspec.Struct, frozen=True):
    """A pattern, written for RE2.

    `ascii_only`: it answers for texts of ASCII only. `ends`: not for texts that end in a line feed.
    `plain`: it is a mere sequence, without groups or alternatives.
    """

    written: str
    ascii_only: bool
    ends: bool
    plain: bool


def read(pattern: str) -> Reading:
    """Reads a pattern, in time linear in its length.

    Raises:
        PatternError: it is malformed, or means something else in Python than in RE2.
    """
    return _Scanner(pattern).read()


def literal(character: str) -> str:
    """Writes one character for RE2, so that it stands for itself, also within a class."""
    return character if character.isascii() and character.isalnum() else f"\\x{{{ord(character):x}}}"


class _Scanner:
    """One pass over one pattern. `_nullable` holds, by depth, what can match nothing: any alternative, this one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._written: list[str] = []
        self._nullable: list[list[bool]] = [[False, True]]
        self._ascii_only = False
        self._ends = False
        self._folds = False
        self._plain = True
        self._written_set = ""

    def read(self) -> Reading:
        flags = _FLAGS.match(self._text)
        if flags:
            self._at = flags.end()
            self._folds = self._ascii_only = "i" in flags.group(1)
            self._written.append(flags.group())
        while self._at < len(self._text):
            self._piece(self._text[self._at])
        if len(self._nullable) > 1:
            self._refuse("a `(` is not closed: close it, or write `\\(`")
        return Reading("".join(self._written), self._ascii_only, self._ends, self._plain)

    def _piece(self, character: str) -> None:
        self._at += 1
        match character:
            case "(":
                self._open()
            case ")":
                self._close()
            case "|":
                self._plain = False
                self._alternative_ends()
                self._nullable[-1][1] = True
                self._written.append("|")
            case "^" | "$":
                self._ends |= character == "$"
                self._written.append(_ANCHORS[character])
            case "[":
                self._atom(self._class())
            case ".":
                self._atom(".")
            case "\\":
                self._escape()
            case "*" | "+" | "?" | "{":
                self._refuse(
                    f"`{character}` has nothing here that it could repeat: write `\\{character}` for the character"
                )
            case _:
                self._atom(self._literal(character))

    def _open(self) -> None:
        if self._text.startswith("?", self._at) and not self._text.startswith("?:", self._at):
            self._refuse("of `(?` only `(?:` is supported, and `(?i)` and `(?s)` at the very start: rewrite it")
        if len(self._nullable) > DEPTH_MAX:
            self._refuse(f"groups nest at most {DEPTH_MAX} deep: write it more plainly")
        inside = 2 if self._text.startswith("?:", self._at) else 0
        self._written.append("(?:" if inside else "(")
        self._at += inside
        self._plain = False
        self._nullable.append([False, True])

    def _close(self) -> None:
        if len(self._nullable) == 1:
            self._refuse("a `)` closes nothing: write `\\)` for the character")
        self._alternative_ends()
        nullable = self._nullable.pop()[0]
        self._atom(")", nullable=nullable)

    def _alternative_ends(self) -> None:
        self._nullable[-1][0] |= self._nullable[-1][1]

    def _escape(self) -> None:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter in ("A", "Z"):
            self._written.append(_ANCHORS[letter])
        elif letter == "b":
            self._ascii_only = True
            self._written.append(r"\b")
        else:
            named = self._escaped(letter)
            self._atom(f"[{_SETS[letter]}]" if named is None else self._literal(named))

    def _atom(self, written: str, *, nullable: bool = False) -> None:
        """Writes what may be repeated, with the repetition that follows, if any."""
        self._written.append(written)
        repetition = self._repetition()
        if repetition:
            if nullable:
                self._refuse(f"`{repetition}` repeats what can match nothing: rewrite what stands before it")
            nullable = repetition in ("*", "?") or repetition.startswith("{0")
            self._at += len(repetition)
            self._written.append(repetition)
            if self._text.startswith("?", self._at):
                self._at += 1
                self._written.append("?")
        if not nullable:
            self._nullable[-1][1] = False

    def _repetition(self) -> str:
        character = self._text[self._at : self._at + 1]
        if character != "{":
            return character if character in ("*", "+", "?") else ""
        count = _COUNT.match(self._text, self._at)
        if count is None:
            self._refuse("repetitions are `{2}`, `{2,}`, `{2,8}` and `{0,8}`: write `\\{` for the character")
        least, most = int(count.group(1)), int(count.group(3) or count.group(1))
        if not least <= most <= COUNT_MAX:
            self._refuse(f"`{count.group()}` is no repetition: write numbers that rise, up to {COUNT_MAX:,}")
        return count.group()

    def _class(self) -> str:
        negated = self._text.startswith("^", self._at)
        self._at += negated
        start = self._at
        items: list[str] = []
        while not self._text.startswith("]", self._at):
            item = self._member(first=self._at == start)
            if item is not None and self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._member(first=False, ends_range=True)
                if last is None or last < item:
                    self._refuse("a range in `[...]` rises from a character to another: write `\\-` for the character")
                items.append(f"{self._literal(item)}-{self._literal(last)}")
            else:
                items.append(self._written_set if item is None else self._literal(item))
        if not items:
            self._refuse("`[...]` holds nothing: write `\\]` for the character in it, `\\[` for one outside")
        self._at += 1
        return f"[{'^' if negated else ''}{''.join(items)}]"

    def _member(self, *, first: bool, ends_range: bool = False) -> str | None:
        r"""Reads one character of a class; None for a set such as `\d`, which is `_written_set` then."""
        character = self._text[self._at : self._at + 1]
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 1
        if not character:
            self._refuse("a `[` is not closed: close it, or write `\\[`")
        if character == "\\":
            self._at += 1
            self._written_set = _SETS.get(following, "")
            return self._escaped(following)
        if character == "[" or (character in "&|~" and character == following):
            self._refuse(f"`{character}` has other meanings in `[...]`: write `\\{character}` for the character")
        if character == "-" and (ends_range or not (first or following == "]")):
            self._refuse("`-` stands at the start or end of `[...]`: write `\\-` for the character")
        return character

    def _escaped(self, letter: str) -> str | None:
        """Returns the character that an escape means; None for a set."""
        if letter in _SETS:
            self._ascii_only = True
            return None
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if not letter or not letter.isascii() or not letter.isprintable() or letter.isalnum():
            self._refuse(
                f"`\\{letter}` is not supported: there are `\\d \\w \\s` and their capitals, `\\b \\A \\Z` outside "
                "classes, `\\t \\n \\r \\f \\v`, and `\\` before punctuation"
            )
        return letter

    def _literal(self, character: str) -> str:
        if self._folds and not character.isascii():
            self._refuse(f"`(?i)` is for patterns of ASCII: write `{character}` in a class, with its other cases")
        if _FIRST_SURROGATE <= character <= _LAST_SURROGATE:
            self._refuse("half of a surrogate pair is no character: remove it")
        return literal(character)

    def _refuse(self, message: str) -> NoReturn:
        raise PatternError(message)
