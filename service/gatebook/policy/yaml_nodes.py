"""YAML read into nodes that remember where they stand.

Owns the strict reading of every YAML file of a policy set. Rules:

1. YAML 1.2 core schema (YAML 1.2.2 s10.3): `no`, `on` and dates are text, `010` is ten;
2. one document; no directives, tags, anchors or aliases, so that a file says what it shows;
3. a mapping's keys are text and differ; a repeated key is a finding, never "the last one wins";
4. size, depth and number of nodes are limited; nothing here recurses over the input.

Parsing yields events (ruamel.yaml, safe and pure), which are folded into nodes without recursion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from gatebook.values import Finding

TEXT_BYTES_MAX = 1024 * 1024
"""About 1,000 tables; reading it takes some seconds."""
DEPTH_MAX = 32
NODES_MAX = 500_000
FINDINGS_MAX = 1_000

SYNTAX: Final = "YAML_SYNTAX"
DUPLICATE_KEY: Final = "DUPLICATE_KEY"

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]{1,40}\Z")
_BASED_INT = re.compile(r"0(?:o[0-7]{1,40}|x[0-9a-fA-F]{1,40})\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


class Scalar(msgspec.Struct, frozen=True):
    """A single value; `text` is as written, without quotes. Line and column count from 1."""

    value: str | int | float | bool | None
    text: str
    line: int
    column: int


class Listing(msgspec.Struct, frozen=True):
    """A sequence of nodes."""

    items: tuple[Node, ...]
    line: int
    column: int


class Table(msgspec.Struct, frozen=True):
    """A mapping; its keys are scalars of text and differ from each other."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int


Node = Scalar | Listing | Table


class _Refused(Exception):  # noqa: N818  # carries a finding out of the fold; never leaves this module
    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


class _Open(msgspec.Struct):
    """A collection whose end has not been reached; owned by the fold."""

    is_mapping: bool
    line: int
    column: int
    children: list[Node]


def parse_yaml(text: str, file: str) -> tuple[Node | None, list[Finding]]:
    """Reads one YAML document into nodes.

    Returns:
        The root node, or None when the text is no YAML of the strict kind, and the findings.
    """
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        return None, [Finding(file, 1, 1, SYNTAX, f"the file is over {TEXT_BYTES_MAX:,} bytes; split the policy set")]
    duplicates: list[Finding] = []
    try:
        root = _fold(_events(text), duplicates, file)
    except _Refused as refused:
        return None, [*duplicates, Finding(file, refused.line, refused.column, SYNTAX, refused.message)]
    return root, duplicates


def _events(text: str) -> Iterator[Event]:
    """Yields the parser's events; turns its errors into one kind."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _Refused(line, column, f"no valid YAML: {err.problem or err.context}") from err
    except ReaderError as err:
        line = text.count("\n", 0, err.position) + 1
        column = err.position - (text.rfind("\n", 0, err.position) + 1) + 1
        raise _Refused(line, column, "a control or surrogate character is not allowed") from err
    except (YAMLError, ValueError) as err:
        raise _Refused(1, 1, "no valid YAML") from err


def _fold(events: Iterator[Event], duplicates: list[Finding], file: str) -> Node | None:
    """Folds events into the root node; collections that are still open stand on a stack."""
    root: Node | None = None
    documents = nodes = 0
    stack: list[_Open] = []
    for event in events:
        if isinstance(event, DocumentStartEvent):
            documents += 1
            _check_document(event, documents)
        done = _complete(event, stack, duplicates, file)
        if done is None:
            continue
        nodes += 1
        if nodes > NODES_MAX:
            raise _at(event, f"more than {NODES_MAX:,} values; split the policy set")
        if stack:
            stack[-1].children.append(done)
        else:
            root = done
    return root


def _complete(event: Event, stack: list[_Open], duplicates: list[Finding], file: str) -> Node | None:
    """Returns the node that an event completes; opens and closes collections."""
    match event:
        case ScalarEvent():
            _check_unadorned(event)
            value = resolve_scalar(event.value) if event.implicit[0] else event.value
            return Scalar(value, event.value, *_position(event))
        case CollectionStartEvent():
            _check_unadorned(event)
            if len(stack) == DEPTH_MAX:
                raise _at(event, f"nested deeper than {DEPTH_MAX} levels")
            stack.append(_Open(isinstance(event, MappingStartEvent), *_position(event), []))
        case CollectionEndEvent():
            return _close(stack.pop(), duplicates, file)
        case AliasEvent():
            raise _at(event, f"the alias `*{event.anchor}` is not allowed; write the value out")
    return None


def _close(collection: _Open, duplicates: list[Finding], file: str) -> Node:
    """Makes the node of a collection whose end was reached; notes repeated keys."""
    if not collection.is_mapping:
        return Listing(tuple(collection.children), collection.line, collection.column)
    entries: dict[str, tuple[Scalar, Node]] = {}
    for key, value in zip(collection.children[::2], collection.children[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise _Refused(key.line, key.column, "a key must be text, not a list or a mapping")
        first = entries.setdefault(key.text, (key, value))[0]
        if first is not key and len(duplicates) < FINDINGS_MAX:
            message = f"the key `{key.text}` repeats the one of line {first.line}; keep one of them"
            duplicates.append(Finding(file, key.line, key.column, DUPLICATE_KEY, message))
    return Table(tuple(entries.values()), collection.line, collection.column)


def _check_document(event: DocumentStartEvent, documents: int) -> None:
    if documents > 1:
        raise _at(event, "a second document begins here; keep one document in a file")
    if event.version is not None or event.tags:
        raise _at(event, "a `%` directive is not allowed; the file is read as YAML 1.2")


def _check_unadorned(event: ScalarEvent | CollectionStartEvent) -> None:
    if event.anchor is not None:
        raise _at(event, f"the anchor `&{event.anchor}` is not allowed; write the value out where it is needed")
    if event.tag is not None:
        raise _at(event, "a tag such as `!x` is not allowed; write a plain value")


def _at(event: Event, message: str) -> _Refused:
    return _Refused(*_position(event), message)


def _position(event: Event) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """Returns what an unquoted scalar means in the core schema (YAML 1.2.2 s10.3.2).

    `.inf`, `.nan` and what is beyond a double stay text: nothing in a policy set is infinite.
    """
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text in {"true", "True", "TRUE"}
    if _INT.match(text):
        return int(text)
    if _BASED_INT.match(text):
        return int(text, 0)
    if _FLOAT.match(text) and math.isfinite(float(text)):
        return float(text)
    return text
