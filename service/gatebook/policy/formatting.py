"""The one form of the files of a policy set, so that a change shows what changed and nothing else.

Owns `formatted`. Rules:

1. rule files: one space after each comma, none at the ends of lines, single empty lines; nothing is reordered, since
   order can decide, and no text within a field is touched;
2. `model.conf`: one space around `=` and after the commas of definitions, an empty line before each section; matchers
   and effects stay as they are written;
3. YAML: two spaces for each level, four for the items of a list, lines of at most 120 characters where they can be
   broken; the order of keys, quotes and comments stay;
4. each file means afterwards what it meant before, holds the same comments in the same order, and formatting it again
   changes nothing. Where a form does not keep that, the next plainer one is taken, and at last the file as it is.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tokens import CommentToken

from gatebook.policy.bundle import MODEL_FILE, rule_files
from gatebook.policy.model_file import SECTIONS
from gatebook.policy.rules_file import split_fields
from gatebook.policy.yaml_nodes import Listing, Node, Scalar, Table, parse_yaml

WIDTH = 120
_COMMAS = frozenset("rpg")
"""The sections whose values are lists."""
_MANY_EMPTY = re.compile(r"\n{3,}")
_Form = Callable[[str], str]


def formatted(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the files of a set that loads, those that are formatted otherwise in their one form."""
    rules = frozenset(rule_files(files))
    return {path: _in_form(content, _forms(path, rules)) for path, content in files.items()}


def _forms(path: str, rules: frozenset[str]) -> tuple[tuple[_Form, ...], Callable[[str], object]]:
    """Returns the forms of a file, the best first, and what must stay of it."""
    if path in rules:
        return (_rules, _tidy), _read_rules
    if path == MODEL_FILE:
        return (_model, _tidy), _read_model
    if path.endswith(".yaml"):
        return (_yaml_spaced, _yaml, _tidy), _read_yaml
    return (), str


def _in_form(content: bytes, how: tuple[tuple[_Form, ...], Callable[[str], object]]) -> bytes:
    forms, meaning = how
    text = content.decode()
    meant = meaning(text) if forms else None
    for form in forms:
        made = form(text)
        if meaning(made) == meant and form(made) == made:
            return made.encode()
    return content


def _tidy(text: str) -> str:
    """Returns a text without spaces at the ends of lines, and with one line feed at its end."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n") + "\n" if any(lines) else ""


def _spaced(text: str) -> str:
    return _MANY_EMPTY.sub("\n\n", _tidy(text))


def _rules(text: str) -> str:
    return _spaced("\n".join(_rule(line.strip()) for line in text.split("\n")))


def _rule(line: str) -> str:
    return line if not line or line.startswith("#") else ", ".join(_fields(line))


def _fields(line: str) -> list[str]:
    spans, remarks = split_fields(line)
    return [line] if remarks else [line[start:end] for start, end in spans]


def _read_rules(text: str) -> object:
    lines = [line.strip() for line in text.split("\n")]
    return [line if line.startswith("#") else _fields(line) for line in lines if line]


def _model(text: str) -> str:
    lines: list[str] = []
    letter, goes_on = "", False
    for line in (line.strip() for line in text.split("\n")):
        if goes_on or line.startswith(("#", ";")) or not line:
            lines.append(f"    {line}" if goes_on else line)
        elif line.startswith("["):
            letter = SECTIONS.get(line.strip("[]"), "")
            lines += [*_before_section(lines), line]
        else:
            lines.append(_option(letter, line))
        goes_on = line.endswith("\\") and not line.startswith(("#", ";"))
    return _spaced("\n".join(lines))


def _before_section(lines: list[str]) -> list[str]:
    """Takes the comments right above a section off, and returns them with an empty line before."""
    comments: list[str] = []
    while lines and lines[-1].startswith(("#", ";")):
        comments.insert(0, lines.pop())
    return ["", *comments]


def _option(letter: str, line: str) -> str:
    key, equals, value = line.partition("=")
    if not equals:
        return line
    value = value.strip()
    if letter in _COMMAS and "(" not in value:
        value = ", ".join(part.strip() for part in value.split(","))
    return f"{key.strip()} = {value}"


def _read_model(text: str) -> object:
    """Returns sections, options and comments of a model, without the spaces that Casbin does not read."""
    read: list[object] = []
    letter, whole = "", ""
    for line in (line.strip() for line in text.split("\n")):
        if not line or line.startswith(("#", ";")):
            read += [line] if line else []
        elif line.startswith("["):
            letter = SECTIONS.get(line.strip("[]"), "")
            read.append(line)
        elif line.endswith("\\"):
            whole += line[:-1].strip() + " "
        else:
            key, _, value = (whole + line).partition("=")
            parts = value.split(",") if letter in _COMMAS else [value]
            read.append((key.strip(), [part.strip() for part in parts]))
            whole = ""
    return read


def _yaml(text: str) -> str:
    """Returns a YAML text as ruamel.yaml writes it, which keeps comments, quotes and the order of keys."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    written = io.StringIO()
    try:
        yaml.dump(yaml.load(text), written)
    except (YAMLError, ValueError, AttributeError, TypeError):
        return text  # what it cannot write stays as it is
    return _tidy(written.getvalue())


def _yaml_spaced(text: str) -> str:
    return _spaced(_yaml(text))


def _read_yaml(text: str) -> object:
    root, findings = parse_yaml(text, "")
    return None if root is None else _plain(root), len(findings), _comments(text)


def _plain(node: Node) -> object:
    """Returns a node without where it stands."""
    match node:
        case Scalar():
            return type(node.value), node.value, node.text
        case Listing():
            return [_plain(item) for item in node.items]
        case Table():
            return [(key.text, _plain(value)) for key, value in node.entries]


def _comments(text: str) -> list[str]:
    """Returns the comments of a YAML text, in their order."""
    try:
        return [
            line.strip()
            for token in YAML().scan(text)
            for comment in _of_token(token)
            for line in comment.value.split("\n")
            if line.strip()
        ]
    except (YAMLError, ValueError):
        return []


def _of_token(token: object) -> list[CommentToken]:
    """Returns the comments that the scanner hung upon a token."""
    pending = [getattr(token, "comment", None), token if isinstance(token, CommentToken) else None]
    found: list[CommentToken] = []
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += reversed(part)
        elif isinstance(part, CommentToken):
            found.append(part)
    return found
