"""The subjects in the files of a directory: JSON lines and CSV.

Owns the two formats.

    JSON lines   one object in a line: `type`, `id`, and if need be `attributes` (an object of texts,
                 numbers, truth values and lists of texts) and `groups` (a list of roles)
    CSV          a header `type,id,groups,level:int,country,...`: `groups` holds roles separated by
                 spaces; every further column is an attribute, of type text, int, number or bool; an empty
                 cell means that the subject does not have the attribute

An attribute that is not there is unknown to every condition, and so is one that is null.
"""

from __future__ import annotations

import csv
import keyword
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gatebook.policy import names
from gatebook.policy.json_lines import INTEGER_MAX, WrongLineError, is_text, read_objects
from gatebook.policy.source import Line
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_reader import cut
from gatebook.values import Finding

ID_BYTES_MAX = 256
TYPE_CHARACTERS_MAX = 64
GROUPS_MAX = 1_000
ATTRIBUTES_MAX = 64
LIST_ITEMS_MAX = 256
FINDINGS_MAX = 1_000

KEYS: Final = ("type", "id", "attributes", "groups")

_WHOLE = re.compile(r"-?[0-9]{1,19}")
_DECIMAL = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")

AttributeValue = str | int | float | bool | tuple[str, ...]


class Subject(msgspec.Struct, frozen=True):
    """One person, service or agent, as the directory knows it."""

    type: str
    id: str
    attributes: Mapping[str, AttributeValue] = {}
    groups: tuple[str, ...] = ()
    file: str = ""
    line: int = 0


def read_json_lines(file: str, lines: Sequence[Line], findings: list[Finding]) -> Iterator[Subject]:
    """Yields the subject of each line; a line that holds none adds a finding."""
    return read_objects(
        file,
        lines,
        findings,
        lambda record, line: _subject(record, file, line.number),
        keys=KEYS,
        hint="attributes stand under `attributes`",
    )


def read_csv(file: str, lines: Sequence[Line], findings: list[Finding]) -> Iterator[Subject]:
    """Yields the subject of each line below the header; a line that holds none adds a finding."""
    filled = [line for line in lines if line.text.strip()]
    if not filled:
        findings.append(Finding(file, 1, 1, "MISSING_KEY", "the file is empty; it begins with `type,id,groups`"))
        return
    header, *rest = filled
    try:
        columns = _header(_cells(header))
    except WrongLineError as wrong:
        findings.append(wrong.finding(file, header, wrong.near))
        return
    for line in rest:
        try:
            yield _subject(_record(columns, _cells(line)), file, line.number)
        except WrongLineError as wrong:
            findings.append(wrong.finding(file, line, wrong.near))


def _subject(record: Mapping[str, Any], file: str, line: int) -> Subject:
    return Subject(
        _type(record.get("type")),
        _id(record.get("id")),
        _attributes(record.get("attributes", {})),
        _groups(record.get("groups", [])),
        file,
        line,
    )


def _type(value: object) -> str:
    if not isinstance(value, str) or len(value) > TYPE_CHARACTERS_MAX or not names.WORD.fullmatch(value):
        raise WrongLineError("MALFORMED_NAME", "`type` must be a word such as `user`, `service` or `agent`", "type")
    return value


def _id(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise WrongLineError("MISSING_KEY", "`id` must be a text that names the subject", "id")
    if names.looks_like_a_node(value):
        message = f"the id `{cut(value)}` could be taken for a role, tag or namespace; choose another"
        raise WrongLineError("NODE_COLLISION", message, value)
    # `isprintable` keeps out surrogates and what nobody sees, such as a zero-width space.
    if not value.isprintable() or not names.SUBJECT.fullmatch(value) or len(value.encode()) > ID_BYTES_MAX:
        message = f'an id has at most {ID_BYTES_MAX} bytes, none of `, " #`, no space at an end and nothing invisible'
        raise WrongLineError("MALFORMED_NAME", message, "id")
    return value


def _groups(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > GROUPS_MAX:
        raise WrongLineError("WRONG_VALUE", f"`groups` must be a list of at most {GROUPS_MAX:,} roles", "groups")
    for group in value:
        if not isinstance(group, str) or not names.ROLE.fullmatch(group) or len(group) > ID_BYTES_MAX:
            near = group if isinstance(group, str) else ""
            message = f"the group `{cut(str(group))}` is no role; it looks like `role:employee`"
            raise WrongLineError("MALFORMED_NAME", message, near)
        if value.count(group) > 1:
            raise WrongLineError("DUPLICATE_NAME", f"the group `{group}` stands twice", group)
    return tuple(value)


def _attributes(value: object) -> Mapping[str, AttributeValue]:
    if not isinstance(value, dict) or len(value) > ATTRIBUTES_MAX:
        message = f"`attributes` must be an object of at most {ATTRIBUTES_MAX} attributes"
        raise WrongLineError("WRONG_VALUE", message, "attributes")
    return {_attribute(name): _value(name, item) for name, item in value.items() if item is not None}


def _attribute(name: str) -> str:
    if not names.ATTRIBUTE.fullmatch(name) or len(name) > TYPE_CHARACTERS_MAX or keyword.iskeyword(name):
        raise WrongLineError(
            "MALFORMED_NAME", f"`{cut(name)}` cannot be read as `r.sub.{cut(name)}`; choose a plain word", name
        )
    if name in names.RESERVED_ATTRIBUTES:
        raise WrongLineError(
            "NODE_COLLISION", f"the attribute `{name}` would hide the subject's own `{name}`; choose another", name
        )
    return name


def _value(name: str, value: object) -> AttributeValue:
    if isinstance(value, bool) or is_text(value):
        return value
    if isinstance(value, int) and -INTEGER_MAX <= value < INTEGER_MAX:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list) and len(value) <= LIST_ITEMS_MAX and all(is_text(item) for item in value):
        return tuple(value)
    message = f"the attribute `{name}` must be a text, a number of 64 bits, a truth value or a list of at most"
    raise WrongLineError("WRONG_VALUE", f"{message} {LIST_ITEMS_MAX} texts", name)


def _cells(line: Line) -> list[str]:
    try:
        return next(csv.reader([line.text], strict=True))
    except csv.Error as err:
        raise WrongLineError("CSV_SYNTAX", f"no valid CSV: {err}") from err


def _header(cells: Sequence[str]) -> tuple[tuple[str, Callable[[str], Any] | None], ...]:
    """Returns the name of each column and, for an attribute, how its cells are read."""
    columns: dict[str, Callable[[str], Any] | None] = {}
    for cell in cells:
        name, _, type_ = cell.partition(":")
        if name in columns:
            raise WrongLineError("DUPLICATE_KEY", f"the column `{name}` stands twice", cell)
        if name in {"type", "id", "groups"} and not type_:
            columns[name] = None
        elif (type_ or "text") in _CELL_TYPES:
            columns[_attribute(name)] = _CELL_TYPES[type_ or "text"]
        else:
            hint = did_you_mean(type_, _CELL_TYPES) or f"; known are {', '.join(f'`{known}`' for known in _CELL_TYPES)}"
            raise WrongLineError(
                "UNKNOWN_NAME", f"unknown type `{cut(type_)}` of the attribute `{cut(name)}`{hint}", cell
            )
    for name in ("type", "id"):
        if name not in columns:
            raise WrongLineError("MISSING_KEY", f"the header lacks `{name}`; it begins with `type,id,groups`")
    return tuple(columns.items())


def _record(columns: Sequence[tuple[str, Callable[[str], Any] | None]], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise WrongLineError("WRONG_VALUE", f"the line has {len(cells)} cells, the header {len(columns)}")
    record: dict[str, Any] = {"attributes": {}}
    for (name, read), cell in zip(columns, cells, strict=True):
        if read is not None:
            if cell:
                record["attributes"][name] = _read_cell(name, read, cell)
        elif name == "groups":
            record[name] = cell.split()
        else:
            record[name] = cell
    return record


def _read_cell(name: str, read: Callable[[str], Any], cell: str) -> AttributeValue:
    try:
        value: AttributeValue = read(cell)
    except (ValueError, KeyError) as err:
        raise WrongLineError("WRONG_VALUE", f"`{cut(cell)}` is no value of the attribute `{name}`", cell) from err
    return value


def _matching(pattern: re.Pattern[str], read: Callable[[str], Any]) -> Callable[[str], Any]:
    def read_matching(cell: str) -> int | float:
        if not pattern.fullmatch(cell):
            raise ValueError(cell)
        number: int | float = read(cell)
        return number

    return read_matching


_CELL_TYPES: Final[Mapping[str, Callable[[str], Any]]] = {
    "text": str,
    "int": _matching(_WHOLE, int),
    "number": _matching(_DECIMAL, float),
    "bool": lambda cell: {"true": True, "false": False}[cell],
}
