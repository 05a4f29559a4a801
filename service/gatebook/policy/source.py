"""The way from the bytes of a policy file to lines whose every character is what it looks like.

Owns decoding and positions. Rules:

1. A file is UTF-8 without a byte-order mark; lines end in LF or CR LF.
2. Control characters, invisible characters and unusual spaces are refused: Casbin would keep
   them in a name, where nobody sees them.
3. Lines and columns count from 1; columns are characters, not bytes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import msgspec

from gatebook.pace import Pause
from gatebook.values import Finding, Severity

LINE_CHARACTERS_MAX = 16_384
SUSPECTS_MAX = 100
"""How many odd characters of one file are reported."""

PIECE_BYTES = 4_096
"""How much of a file is looked at without a pause."""

_PLAIN = b"\t\n" + bytes(range(0x20, 0x7F))
_BYTE_ORDER_MARK = "\ufeff"
_SUSPECT = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"
    r"\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U000e0000-\U000e0fff]"
)


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a file, without its end."""

    number: int
    text: str


class Remark(msgspec.Struct, frozen=True):
    """One thing wrong with a text, before it is known where the text stands."""

    offset: int
    invariant: str
    message: str
    severity: Severity = Severity.ERROR


class Passage(msgspec.Struct, frozen=True):
    """A text put together from pieces of a file, which knows where its characters stand.

    `pieces` holds `(offset, line, column)` of each piece, by rising offset, the first at 0.
    """

    file: str
    text: str
    pieces: tuple[tuple[int, int, int], ...]

    def place(self, offset: int) -> tuple[int, int]:
        """Returns the line and column of the character at an offset of the text."""
        start, line, column = next(piece for piece in reversed(self.pieces) if piece[0] <= max(offset, 0))
        return line, column + max(offset, 0) - start

    def finding(self, remark: Remark) -> Finding:
        """Returns the remark as a finding of the file."""
        line, column = self.place(remark.offset)
        return Finding(self.file, line, column, remark.invariant, remark.message, remark.severity)

    def slice(self, start: int, end: int) -> Passage:
        """Returns the part from `start` to `end`."""
        line, column = self.place(start)
        later = tuple((at - start, *rest) for at, *rest in self.pieces if start < at < end)
        return Passage(self.file, self.text[start:end], ((0, line, column), *later))  # type: ignore[arg-type]  # the star loses the width of the tuple


def read_text(file: str, content: bytes) -> tuple[str | None, list[Finding]]:
    """Returns the text of a file and what is wrong with its characters; None when it is not UTF-8."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as err:
        before = content[: err.start].decode("utf-8")
        return None, [_at(file, before, len(before), "NOT_UTF8", "this byte is not UTF-8; save the file as UTF-8")]
    findings = []
    if text.startswith(_BYTE_ORDER_MARK):
        message = (
            "the file starts with a byte-order mark, which Casbin takes as part of the first word; save it without"
        )
        findings.append(Finding(file, 1, 1, "BYTE_ORDER_MARK", message))
        text = text[1:]
    matches = itertools.islice(_SUSPECT.finditer(text), SUSPECTS_MAX)
    return text, findings + [_suspect(file, text, match) for match in matches]


def read_lines(file: str, content: bytes) -> tuple[tuple[Line, ...], list[Finding]]:
    """Returns the lines of a file and what is wrong with its characters.

    A file that is not UTF-8 has no lines, and one that is too long is left out: nothing more is done with it.
    """
    text, findings = read_text(file, content)
    if text is None:
        return (), findings
    lines = [Line(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1)]
    message = f"the line has more than {LINE_CHARACTERS_MAX} characters; split it"
    findings += [
        Finding(file, line.number, 0, "LINE_TOO_LONG", message)
        for line in lines
        if len(line.text) > LINE_CHARACTERS_MAX
    ]
    return tuple(line for line in lines if len(line.text) <= LINE_CHARACTERS_MAX), findings


def walk_lines(file: str, content: bytes, findings: list[Finding], pause: Pause) -> Iterator[Line]:
    """Yields what `read_lines` returns, but for an empty last line, and never holds all of them.

    What is wrong with the characters of the file is in `findings` before the first line comes.
    """
    if not all(_is_clean(piece) for piece in _pieces(content, pause)):
        lines, wrong = read_lines(file, content)
        findings += wrong
        yield from lines
        return
    numbers = itertools.count(1)
    for piece in _pieces(content, pause):
        for text in piece.removesuffix(b"\n").decode().split("\n"):
            yield Line(next(numbers), text.removesuffix("\r"))


def _pieces(content: bytes, pause: Pause) -> Iterator[bytes]:
    """Yields the content in pieces of whole lines."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + PIECE_BYTES) + 1 or len(content)
        yield content[start:end]
        start = end
        pause()


def _is_clean(piece: bytes) -> bool:
    """Tells whether nothing can be wrong with the characters of whole lines."""
    if max(map(len, piece.split(b"\n"))) > LINE_CHARACTERS_MAX:
        return False
    if not piece.translate(None, _PLAIN):
        return True
    try:
        return _SUSPECT.search(piece.decode()) is None
    except UnicodeDecodeError:
        return False


def _suspect(file: str, text: str, match: re.Match[str]) -> Finding:
    character = match.group()
    if character == "\r":
        return _at(
            file, text, match.start(), "CARRIAGE_RETURN", "a carriage return without a line feed; end lines with LF"
        )
    message = f"the invisible character U+{ord(character):04X} would become part of a name; delete it"
    return _at(file, text, match.start(), "INVISIBLE_CHARACTER", message)


def _at(file: str, text: str, offset: int, invariant: str, message: str) -> Finding:
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return Finding(file, line, column, invariant, message)
