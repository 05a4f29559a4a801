"""The known entities of a plain set: who there is, and what there is, each with its properties.

Owns the files `directory/*.jsonl` (subjects) and `resources/*.jsonl` that a plain set may bring. Rules:

1. a line is one object: `type`, `id`, and if need be `properties`, an object of any JSON;
2. type and id together name one entity, once in all files of its kind;
3. a kind that a set brings is closed: what is not there does not exist. That is what lets a search be complete;
4. the properties of a known entity are those that stand here, whatever a caller says of it;
5. the files are part of the set and of its digest.

A governed set has neither: its subjects are in a directory of its own, its resources in the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gatebook.policy import names
from gatebook.policy.bundle import DIRECTORY_FOLDER, RESOURCES_FOLDER, entity_files
from gatebook.policy.json_lines import INTEGER_MAX, WrongLineError, is_text, read_objects
from gatebook.policy.source import Line, read_lines
from gatebook.values import Finding

ID_BYTES_MAX: Final = {DIRECTORY_FOLDER: 256, RESOURCES_FOLDER: 512}
TYPE_CHARACTERS_MAX = 64
NAME_CHARACTERS_MAX = 128
PROPERTIES_MAX = 64
DEPTH_MAX = 8
FINDINGS_MAX = 1_000
KEYS: Final = ("type", "id", "properties")
OWN_PROPERTIES: Final = ("id", "type")
"""What a request itself says of an entity, and no property may hide."""


class KnownEntity(msgspec.Struct, frozen=True):
    """One subject or resource, as the set knows it."""

    type: str
    id: str
    properties: Mapping[str, Any] = {}
    file: str = ""
    line: int = 0


class Entities(msgspec.Struct, frozen=True):
    """All entities of one kind, by type and then by id, both sorted."""

    by_type: Mapping[str, Mapping[str, KnownEntity]]

    def find(self, type_: str, id_: str) -> KnownEntity | None:
        """Returns the entity of this type and id; without a type, the only one of this id."""
        if type_:
            return self.by_type.get(type_, {}).get(id_)
        same = [found for entities in self.by_type.values() if (found := entities.get(id_)) is not None]
        return same[0] if len(same) == 1 else None


def read_entities(files: Mapping[str, bytes], folder: str) -> tuple[Entities | None, list[Finding]]:
    """Returns the entities in a folder of a set, or None where it brings none, and all findings."""
    paths = entity_files(files, folder)
    if not paths:
        return None, []
    findings: list[Finding] = []
    found: dict[tuple[str, str], KnownEntity] = {}
    for file in paths:
        lines, unreadable = read_lines(file, files[file])
        findings += unreadable

        def make(record: Mapping[str, Any], line: Line, file: str = file) -> KnownEntity:
            return KnownEntity(
                _type(record.get("type")),
                _id(record.get("id"), ID_BYTES_MAX[folder]),
                _properties(record.get("properties", {})),
                file,
                line.number,
            )

        hint = "what the rules read of it stands under `properties`"
        for entity in read_objects(file, lines, findings, make, keys=KEYS, hint=hint):
            first = found.setdefault((entity.type, entity.id), entity)
            if first is not entity:
                where = f"line {first.line} of `{first.file}`"
                message = f"the {entity.type} `{entity.id}` stands in {where} already; keep one of them"
                findings.append(Finding(file, entity.line, 1, "DUPLICATE_NAME", message))
            if len(findings) > FINDINGS_MAX:
                return None, findings
    by_type: dict[str, dict[str, KnownEntity]] = {}
    for (type_, id_), entity in sorted(found.items(), key=lambda item: item[0]):
        by_type.setdefault(type_, {})[id_] = entity
    return Entities(by_type), findings


def _type(value: object) -> str:
    if not isinstance(value, str) or len(value) > TYPE_CHARACTERS_MAX or not names.WORD.fullmatch(value):
        raise WrongLineError("MALFORMED_NAME", "`type` must be a word such as `user` or `record`", "type")
    return value


def _id(value: object, bytes_max: int) -> str:
    if not isinstance(value, str) or not value:
        raise WrongLineError("MISSING_KEY", "`id` must be a text that names the entity", "id")
    # `isprintable` keeps out surrogates and what nobody sees, such as a zero-width space.
    if not value.isprintable() or len(value.encode()) > bytes_max:
        raise WrongLineError("MALFORMED_NAME", f"an id has at most {bytes_max} bytes and nothing invisible", "id")
    return value


def _properties(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > PROPERTIES_MAX:
        message = f"`properties` must be an object of at most {PROPERTIES_MAX} properties"
        raise WrongLineError("WRONG_VALUE", message, "properties")
    for name in OWN_PROPERTIES:
        if name in value:
            message = f"the property `{name}` would hide the entity's own `{name}`; choose another"
            raise WrongLineError("NODE_COLLISION", message, name)
    checked: Mapping[str, Any] = _value(value, "properties", DEPTH_MAX)
    return checked


def _value(value: object, near: str, levels: int) -> Any:  # noqa: ANN401  # any JSON
    match value:
        case bool() | None:
            return value
        case str() if is_text(value):
            return value
        case int() if -INTEGER_MAX <= value < INTEGER_MAX:
            return value
        case float() if math.isfinite(value):
            return value
        case list() if levels:
            return tuple([_value(item, near, levels - 1) for item in value])
        case dict() if levels:
            return {_name(name): _value(item, name, levels - 1) for name, item in value.items()}
    message = f"a value under `{near}` must be JSON of at most {DEPTH_MAX} levels, with numbers of 64 bits"
    raise WrongLineError("WRONG_VALUE", message, near)


def _name(name: str) -> str:
    if not name or not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        message = f"the name of a property has 1 to {NAME_CHARACTERS_MAX} characters and nothing invisible"
        raise WrongLineError("MALFORMED_NAME", message, "properties")
    return name
