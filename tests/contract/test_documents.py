"""What README and docs say to type is typed here, and what they show is what comes out."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.document_session import Session
from tests.documents import DOCUMENTS, ROOT, Snippet, commands, hidden_commands, prose, shows, snippets, tidy

from gatebook.cli import main
from gatebook.rpc.status import CODES
from gatebook.values import Reason

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
_INLINE = re.compile(r"`((?:gatebook|make) [^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"#{1,6} +(.*)")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A reader, whose server and witnesses must end well."""
    reader = Session(tmp_path / "reader")
    yield reader
    try:
        reader.stop_server()
    finally:
        reader.stop_witnesses()


@every_document
@pytest.mark.timeout(240)
def test_document_holds_when_followed(document: Path, session: Session) -> None:
    """Every snippet of a document does what is shown, from top to bottom, in a folder of its own."""
    follow(document, session)


def follow(document: Path, session: Session) -> None:
    """Does everything that a document says."""
    program: tuple[Snippet, str] | None = None
    for snippet in snippets(document):
        match snippet.language:
            case "console":
                follow_console(snippet, session)
            case "python" if not snippet.made:
                printed, code = session.run_python(snippet.body)
                assert code == 0, f"{snippet.place}: the program ends with {code}:\n{printed}"
                program = (snippet, printed)
            case "output":
                assert program is not None, f"{snippet.place}: no program stands above this output"
                require_shown(snippet.body.splitlines(), program[1], snippet.place)
            case "mermaid":
                assert re.match(r"flowchart |sequenceDiagram\n", snippet.body), f"{snippet.place}: no known diagram"
            case "text":
                assert not re.search(r"^(\$ |gatebook |make )", snippet.body, re.MULTILINE), (
                    f"{snippet.place}: commands"
                )
            case _:
                follow_data(snippet, session)


def follow_console(snippet: Snippet, session: Session) -> None:
    """Types the commands of a console."""
    for command in commands(snippet):
        place = f"{snippet.document.relative_to(ROOT)}:{command.line}"
        if session.leaves_out(command.text):
            continue
        printed, code = session.run(command.text)
        assert command.exit_code == code, f"{place}: `{command.text}` ends with {code}:\n{printed}"
        if command.shown:
            require_shown(command.shown, printed, place)


def follow_data(snippet: Snippet, session: Session) -> None:
    """Makes the reader's file, or holds an excerpt against the file that it is from."""
    if snippet.made:
        session.write(snippet.made, snippet.body)
        return
    lines = (ROOT / snippet.taken_from).read_text(encoding="utf-8").splitlines()
    for line in snippet.body.splitlines():
        if line and line != "...":
            assert line in lines, f"{snippet.place}: `{snippet.taken_from}` has no further line `{line}`"
            del lines[: lines.index(line) + 1]


def require_shown(shown: list[str], printed: str, place: str) -> None:
    """Requires that what was printed is what is shown."""
    if not shows(shown, printed):
        difference = difflib.unified_diff(shown, tidy(printed).splitlines(), "shown", "printed", lineterm="")
        pytest.fail(f"{place}: another output than shown:\n" + "\n".join(difference), pytrace=False)


@every_document
def test_no_command_stands_where_nothing_runs_it(document: Path) -> None:
    """Commands stand in fences, which are run, and not in indented blocks, which are not."""
    assert [] == hidden_commands(document)


@every_document
def test_commands_within_sentences_exist(document: Path) -> None:
    """A command in a sentence names a command, options and a target that exist."""
    for number, line in prose(document):
        for command in _INLINE.findall(line):
            assert exists(shlex.split(command)), f"{document.relative_to(ROOT)}:{number}: `{command}`"


def exists(words: list[str]) -> bool:
    """Tells whether a command and each of its options exist."""
    program, *rest = words
    if program == "make":
        return all(re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for word in rest)
    found: click.Command | None = main
    while rest and isinstance(found, click.Group) and not rest[0].startswith("-"):
        found = found.get_command(click.Context(found), rest.pop(0))
    if found is None:
        return False
    known = {"-h", "--help", "--version"}.union(*(option.opts for option in found.params))
    return all(word.partition("=")[0] in known for word in rest if word.startswith("-"))


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    """A link within the repository leads to a file, and to a heading in it."""
    for number, line in prose(document):
        for link in _LINK.findall(line):
            path, _, anchor = link.partition("#")
            if "://" not in link:
                target = (document.parent / path).resolve() if path else document
                place = f"{document.relative_to(ROOT)}:{number}: {link}"
                assert target.exists(), place
                assert not anchor or anchor in anchors(target), place


def anchors(document: Path) -> set[str]:
    """Returns the anchors of the headings of a document, as GitHub makes them."""
    headings = (found[1] for _, line in prose(document) if (found := _HEADING.fullmatch(line)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_shows_the_help_in_full(session: Session) -> None:
    """The README holds the output of `gatebook --help`, to the letter."""
    consoles = (snippet for snippet in snippets(ROOT / "README.md") if snippet.language == "console")
    typed = [command for snippet in consoles for command in commands(snippet)]
    shown = [command.shown for command in typed if command.text == "gatebook --help"]
    printed, _ = session.run("gatebook --help")
    assert [tidy(printed).splitlines()] == shown


def test_tables_of_reasons_are_those_of_the_code() -> None:
    """The tables of errors and of reasons name every one that is ever sent, and an error's gRPC code."""
    errors = dict(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)`", page("errors.md"), re.MULTILINE))
    assert {reason: code.name for reason, code in CODES.items()} == errors
    reasons = re.findall(r"^\| `([A-Z_]+)` \| ", page("semantics.md"), re.MULTILINE)
    assert {reason.name for reason in Reason} - {"UNSPECIFIED"} == set(reasons)


def page(name: str) -> str:
    """Returns a page of the docs."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_index_of_the_docs_names_every_page() -> None:
    """Whoever opens `docs/` finds every page of it from its index."""
    index = page("README.md")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set() == {page for page in pages if f"({page})" not in index}


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        ("```sh\ngatebook check\n```\n", "`sh` is not one of"),
        ("```\ngatebook check\n```\n", "`` is not one of"),
        ("```yaml\na: 1\n```\n", "data, and only data"),
        ("```console file=x\n$ true\n```\n", "data, and only data"),
        ("```console\n$ true\n", "is not closed"),
    ],
)
def test_unknown_snippet_is_refused(content: str, refused: str, tmp_path: Path) -> None:
    """No snippet is passed over in silence: what the notation does not know fails."""
    document = tmp_path / "page.md"
    document.write_text(content)
    with pytest.raises(ValueError, match=re.escape(refused)):
        list(snippets(document))


def test_console_without_a_command_is_refused() -> None:
    """A console that shows output and no command proves nothing, so it fails."""
    with pytest.raises(ValueError, match="begins with"):
        commands(Snippet(ROOT / "README.md", 1, "console", "allowed\n"))
