"""README and docs as data: their snippets, and what running one must show.

Owns the notation of the documents (docs/README.md, "How these pages are kept true"):

1. a fence is `console`, `python`, `output` (what the program above it prints), data (`yaml`, `csv`, `ini`, `json`,
   `proto`, and programs in `go` and `js`), `mermaid`, or `text` for what is no command; nothing else;
2. in a console, `$ ` begins a command, a backslash at its end continues it, and what follows is all that it
   prints, if anything is shown;
3. `...` stands for anything within a line, and alone on a line for any lines; `# exits 1` says how a command ends;
4. data says behind its language what it is: `file=PATH`, a file that the reader makes, or `from=PATH`, lines of a
   file of this repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))
DATA = frozenset({"yaml", "json", "csv", "ini", "proto", "go", "js"})
LANGUAGES = DATA | {"console", "python", "output", "mermaid", "text"}

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,}) *([^`]*)")
_EXITS = re.compile(r" +# exits (\d+)$")
_LOOKS_LIKE_A_COMMAND = re.compile(r"(?: {4,}|\t)\s*(?:\$ |gatebook |make |pip |python |curl |git )")


@dataclass(frozen=True)
class Snippet:
    """One fenced block; `line` is where its fence opens."""

    document: Path
    line: int
    language: str
    body: str
    made: str = ""
    taken_from: str = ""

    @property
    def place(self) -> str:
        """Names the place as editors take it."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass
class Command:
    """One command of a console and the lines shown below it; `exit_code` is what the document says."""

    text: str
    line: int
    exit_code: int = 0
    shown: list[str] = field(default_factory=list)


def snippets(document: Path) -> Iterator[Snippet]:
    """Yields the snippets of a document, in order.

    Raises:
        ValueError: a fence is not closed, or has a language or an attribute that the notation does not know.
    """
    opened: tuple[int, str, str] | None = None
    body: list[str] = []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.fullmatch(line)
        if opened is None and fence is not None:
            opened, body = (number, fence[2], fence[3].strip()), []
        elif opened is not None and line.strip() == opened[1]:
            yield _snippet(document, opened[0], opened[2], "".join(f"{text}\n" for text in body))
            opened = None
        elif opened is not None:
            body.append(line)
    if opened is not None:
        raise ValueError(f"{document}:{opened[0]}: the fence is not closed")


def _snippet(document: Path, line: int, title: str, body: str) -> Snippet:
    language, _, attribute = title.partition(" ")
    key, _, path = attribute.partition("=")
    if language not in LANGUAGES:
        raise ValueError(f"{document}:{line}: `{language}` is not one of {', '.join(sorted(LANGUAGES))}")
    is_program = language == "python" and key == "file"  # to be run by a command below
    if (language in DATA or is_program) != (key in {"file", "from"} and bool(path)):
        raise ValueError(f"{document}:{line}: `{title}`: data, and only data, says `file=PATH` or `from=PATH`")
    made, taken_from = (path, "") if key == "file" else ("", path)
    return Snippet(document, line, language, body, made, taken_from)


def prose(document: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a document that stand in no fence, with their numbers."""
    fenced = ""
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.fullmatch(line)
        if fenced:
            fenced = "" if line.strip() == fenced else fenced
        elif fence is not None:
            fenced = fence[2]
        else:
            yield number, line


def hidden_commands(document: Path) -> list[str]:
    """Returns the lines that look like a command and stand in an indented block, where nothing runs them."""
    return [f"{document}:{number}: {line}" for number, line in prose(document) if _LOOKS_LIKE_A_COMMAND.match(line)]


def commands(snippet: Snippet) -> list[Command]:
    """Returns the commands of a console.

    Raises:
        ValueError: the first line is no command.
    """
    found: list[Command] = []
    continued = False
    for number, line in enumerate(snippet.body.splitlines(), start=snippet.line + 1):
        if continued:
            found[-1].text += f"\n{line}"
        elif line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), number))
        elif found:
            found[-1].shown.append(line)
        else:
            raise ValueError(f"{snippet.place}: a console begins with `$ `")
        continued = line.endswith("\\") and not found[-1].shown
    for command in found:
        ends = _EXITS.search(command.text)
        if ends is not None:
            command.exit_code, command.text = int(ends[1]), command.text[: ends.start()]
    return found


def shows(shown: list[str], printed: str) -> bool:
    """Tells whether what was printed is what a document shows, but for spaces at the ends of lines."""
    lines = [r"(?:.*\n)*?" if line == "..." else _line_pattern(line) for line in shown]
    return re.fullmatch("".join(lines), tidy(printed)) is not None


def _line_pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.rstrip().split("...")) + r"\n"


def tidy(printed: str) -> str:
    """Returns what was printed without spaces at the ends of lines and blank lines at the end."""
    lines = [line.rstrip() for line in printed.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)
