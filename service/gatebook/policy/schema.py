"""JSON Schemas of the YAML files of a policy set, for editors and for whoever writes such files with a program.

Owns `SCHEMAS`. Promises:

1. a schema is made of the very names, words and limits that the readers use, so that neither changes alone;
2. whatever a reader accepts, its schema accepts; what only other lines can tell (a role that nobody declares, a
   purpose beyond its notice) is left to the reader;
3. every key has a description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Final

from gatebook.policy import names, settings
from gatebook.policy.approval_rules import HOURS_MAX, LOOSENING_LEAST
from gatebook.policy.approval_rules import PEOPLE_MAX as APPROVERS_MAX
from gatebook.policy.catalogue import KEYS as CATALOGUE_KEYS
from gatebook.policy.dataset import COLUMN_TYPES, Sensitivity
from gatebook.policy.dataset_file import (
    COLUMNS_MAX,
    EVERYBODY,
    GROUP_MAX,
    PEOPLE_MAX,
    REQUIRED,
    RETENTION_DAYS_MAX,
)
from gatebook.policy.guardrails import Within
from gatebook.policy.guardrails_file import ANY_MASK
from gatebook.policy.guardrails_file import GROUP_MAX as GUARDED_GROUP_MAX
from gatebook.policy.purposes import ConsentMode
from gatebook.policy.yaml_reader import NAME_CHARACTERS_MAX, TEXT_CHARACTERS_MAX

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SUFFIX: Final = ".schema.json"

Schema = dict[str, Any]


def settings_schema(*, governed: bool = False) -> Schema:
    """Returns the schema of `gatebook.yaml`: of any set, or of one with a catalogue."""
    keys = {
        "name": _named(settings.SET_NAME, "What the set is called in requests. Left out: the folder's name."),
        "owners": _names(settings.OWNER, "Whom to ask about the set."),
        "actions": _names(names.WORD, "What can be done, and nothing else. A set with a catalogue needs it."),
        "roles": _names(names.ROLE, "Every role that rules, ceilings and zones name. A set with a catalogue needs it."),
        "zones": _by_name(
            names.WORD,
            _mapping(
                "Datasets that roles may administer, never beyond their ceilings.",
                {
                    "datasets": _names(settings.ZONE_MEMBER, "Datasets, and namespaces such as `mci.*`."),
                    "administrators": _names(names.ROLE, "The roles that administer them."),
                },
                ("datasets", "administrators"),
            ),
            "Zones of delegated administration, by name.",
        ),
        "approvals": _approvals(),
        "attribute_sources": _by_name(
            settings.CALLER,
            _mapping(
                "What this caller may state; what another states does not count.",
                {
                    "context": _names(names.ATTRIBUTE, "Keys of the context, `r.ctx.KEY` in conditions."),
                    "subject": _names(names.ATTRIBUTE, "Properties of the subject, `r.sub.KEY` in conditions."),
                },
            ),
            "Which caller is believed about what, by its id.",
        ),
        "acknowledged": _list({"enum": list(settings.HAZARDS)}, "Hazards of the model that the owners accept by name."),
    }
    lineage = _mapping(
        "How jobs report datasets of a set with a catalogue (OpenLineage).",
        {
            "namespaces": _by_name(
                settings.NAMESPACE,
                {"type": ["string", "null"], "pattern": _whole(settings.PREFIX)},
                "The namespaces that they use, each with the prefix that names have there.",
            )
        },
        ("namespaces",),
    )
    keys["lineage"] = lineage
    if governed:
        described = "What a set with a catalogue is called, who owns it, and whom it believes."
        return _file("gatebook.yaml of a set with a catalogue", described, keys, ("actions", "roles"))
    keys |= {
        "request": _by_name(
            settings.TOKEN,
            {"type": "string", "pattern": _whole(settings.SOURCE)},
            "Of a set without a catalogue: which part of a request supplies a token of the model.",
        ),
        "matcher": {
            "type": "string",
            "pattern": _whole(settings.MATCHER),
            "description": "Of a set without a catalogue: the matcher that decides. Left out: `m`.",
        },
        "role_patterns": _by_name(
            settings.RELATION,
            _mapping(
                "Which functions match the names, and the domains, of this relation.",
                {
                    "names": {"enum": list(settings.PATTERNS), "description": "Matches names. Left out: equal names."},
                    "domains": {"enum": list(settings.PATTERNS), "description": "Matches domains. Left out: equal."},
                },
            ),
            "Of a set without a catalogue: relations whose names are patterns.",
        ),
        "role_conditions": _by_name(
            settings.RELATION,
            {"enum": list(settings.CONDITIONS)},
            "Of a set without a catalogue: relations whose links hold under a condition.",
        ),
    }
    return _file("gatebook.yaml", "What a policy set is called, who owns it, and whom it believes.", keys)


def catalogue_schema() -> Schema:
    """Returns the schema of `catalogue.yaml`."""
    keys = {
        "datasets": _by_name(names.DATASET, {"$ref": "#/$defs/dataset"}, "Every dataset that may be asked for, by id."),
        "notices": _by_name(names.WORD, {"$ref": "#/$defs/notice"}, "What people were told, by the notice's id."),
        "tags": _by_name(names.TAG, {"$ref": "#/$defs/tag"}, "Kinds of content that columns have, by name."),
    }
    made = _file(
        "catalogue.yaml", "Every dataset that may be asked for, and what is known of it.", keys, CATALOGUE_KEYS[:2]
    )
    audience = {
        "roles": _names(names.ROLE, "The roles whose holders may ever be allowed."),
        "people_max": {
            "oneOf": [_whole_number(0, PEOPLE_MAX, ""), {"const": EVERYBODY}],
            "description": f"How many people may ever be allowed, or `{EVERYBODY}`.",
        },
    }
    ceiling_keys = tuple(audience)
    actions = _by_name(
        names.WORD,
        _mapping("The ceiling for this action.", audience, ceiling_keys),
        "Another ceiling for single actions.",
    )
    made["$defs"] = {
        "dataset": _mapping("A dataset.", _dataset_keys(), REQUIRED),
        "ceiling": _mapping(
            "The largest audience that the dataset may ever have.", {**audience, "actions": actions}, ceiling_keys
        ),
        "column": {
            "description": "The type of a column, or a mapping that says more.",
            "oneOf": [
                _column_type(),
                _mapping(
                    "A column.",
                    {"type": _column_type(), "tags": _tags(), "description": _text("What the column holds.")},
                    ("type",),
                ),
            ],
        },
        "notice": _mapping(
            "A notice.",
            {
                "purposes": _names(names.PURPOSE, "The purposes that people were told of."),
                "effective_time": _moment("Since when the notice is in force, such as `2026-05-01T00:00:00Z`."),
                "end_time": _moment("Until when. Left out: it does not end."),
                "description": _text("What the notice is."),
            },
            ("purposes", "effective_time"),
        ),
        "tag": _or_nothing(
            _mapping(
                "A tag; nothing where its name says all.",
                {
                    "requires_mask": {
                        "type": "boolean",
                        "description": "Whether a column with it is never shown without a mask rule.",
                    },
                    "description": _text("What content it stands for."),
                },
            )
        ),
    }
    return made


def purposes_schema() -> Schema:
    """Returns the schema of `purposes.yaml`."""
    consent = {
        "enum": [mode.value for mode in ConsentMode],
        "description": "Whose consent is needed. Left out: that of the parent; a purpose without a parent must say it.",
    }
    said = {"consent": consent, "description": _text("What the purpose is.")}
    tree = _by_name(
        names.PURPOSE,
        _or_nothing(_mapping("A purpose below another; nothing where its name says all.", said)),
        "Purposes by dotted name: `a.b` is a child of `a`, which must be declared too.",
    )
    roots = {"^[^.]*$": _mapping("A purpose without a parent.", said, ("consent",))}
    keys = {"purposes": {**tree, "patternProperties": roots}}
    return _file("purposes.yaml", "The tree of purposes, and whose consent each needs.", keys, ("purposes",))


def guardrails_schema() -> Schema:
    """Returns the schema of `guardrails.yaml`; which names there are, the reader knows."""
    masked = {
        "oneOf": [{"const": ANY_MASK}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
        "description": f"`{ANY_MASK}`, or the masks with which it may be.",
    }
    unless = {
        "masked": masked,
        "group": _whole_number(1, GUARDED_GROUP_MAX, "The smallest group with which it may be."),
        "own_rows": {"type": "boolean", "description": "Whether people may on rows about themselves."},
    }
    who = {
        "without": _some("Nobody to whom the directory gives one of these roles."),
        "with": _some("Whoever holds one of these roles by any link."),
        "where": _text("A condition over what is known of the subject."),
    }
    form = {
        "who": _mapping("Whom it is about. Left out: anybody.", who),
        "actions": _some("Which actions. Left out: any."),
        "on": _some("Datasets, columns, namespaces and tags (`tag:x`). Left out: anything."),
        "purposes": _some("Which purposes. Left out: any."),
        "purposes_beyond": _some("Any purpose but these."),
        "unless": _mapping("What makes it harmless.", unless),
    }
    within = {"enum": [it.value for it in Within], "description": "Where they never meet. Left out: on one dataset."}
    apart = {key: it for key, it in form.items() if key != "purposes_beyond"} | {"within": within}
    apart["purposes"] = _some("Purposes that never meet.")
    kinds = {
        "never": _mapping("What must never be possible.", form),
        "apart": _mapping("Purposes that never meet.", apart, ("purposes",)),
        "separate": _list(_mapping("One of them.", form), "Accesses that nobody, and no role, has together."),
    }
    one = _mapping("A guardrail.", {"description": _text("What it keeps, as a sentence."), **kinds})
    one["oneOf"] = [{"required": [kind]} for kind in kinds]
    keys = {"guardrails": _by_name(names.WORD, one, "What must never be possible, by name.")}
    return _file("guardrails.yaml", "What must never be possible, proved at each publish.", keys, ("guardrails",))


def _some(description: str) -> Schema:
    return {**_list({"type": "string", "minLength": 1}, description), "minItems": 1, "uniqueItems": True}


def _shipped(name: str) -> Schema:
    read: Schema = json.loads((resources.files("gatebook.policy") / f"schemas/{name}{SUFFIX}").read_text())
    return read


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "gatebook": settings_schema,
    "gatebook_governed": lambda: settings_schema(governed=True),
    "catalogue": catalogue_schema,
    "purposes": purposes_schema,
    "guardrails": guardrails_schema,
    "policy_test": lambda: _shipped("policy_test"),
}
"""The schemas by name; that of a file `x.yaml` is called `x`, that of `tests/*.yaml` `policy_test`."""


def as_text(schema: Schema) -> str:
    """Returns a schema as it is printed and kept in files."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _dataset_keys() -> Schema:
    return {
        "sensitivity": {
            "enum": [level.name.lower() for level in Sensitivity],
            "description": "How sensitive the dataset is, from open to sealed.",
        },
        "subject_keys": _names(
            names.COLUMN, "The columns that say whom a row is about; `[]` where rows are about nobody."
        ),
        "retention_days": _whole_number(1, RETENTION_DAYS_MAX, "How long rows are kept."),
        "ceiling": {"$ref": "#/$defs/ceiling", "description": "The largest audience that the dataset may ever have."},
        "notice": _named(names.WORD, "The notice that governs the dataset, one of `notices`."),
        "columns": {
            **_by_name(names.COLUMN, {"$ref": "#/$defs/column"}, "The columns, by name."),
            "minProperties": 1,
            "maxProperties": COLUMNS_MAX,
        },
        "purposes": _names(names.PURPOSE, "What the dataset is used for. Left out: all purposes of its notice."),
        "group_minimum": _whole_number(2, GROUP_MAX, "Over how many people each row is aggregated at least."),
        "tags": _tags("Tags of every column."),
        "description": _text("What the dataset holds."),
    }


def _approvals() -> Schema:
    one_of = {**_names(names.ROLE, "One of those who approve has one of these roles."), "minItems": 1}

    def demand(description: str, least: int, *required: str) -> Schema:
        people = _whole_number(least, APPROVERS_MAX, "How many people approve; whoever proposed it is none of them.")
        return _mapping(description, {"people": people, "one_of": one_of}, ("people", *required))

    approvers = {**_names(names.ROLE, "People of the directory with one of these roles may approve."), "minItems": 1}
    return _mapping(
        "Which approvals the next revision needs.",
        {
            "approvers": approvers,
            "loosening": demand("Of a change that may let somebody do more.", LOOSENING_LEAST, "one_of"),
            "tightening": demand("Of a change that lets nobody do more.", 1),
            "expire_hours": _whole_number(1, HOURS_MAX, "When a proposal ends, with its approvals."),
        },
        ("approvers", "loosening"),
    )


def _file(title: str, description: str, keys: Schema, required: tuple[str, ...] = ()) -> Schema:
    return {"$schema": DIALECT, "title": f"{title} of Gatebook", **_mapping(description, keys, required)}


def _mapping(description: str, keys: Schema, required: tuple[str, ...] = ()) -> Schema:
    made = {"description": description, "type": "object", "additionalProperties": False, "properties": keys}
    return {**made, "required": list(required)} if required else made


def _by_name(pattern: re.Pattern[str], value: Schema, description: str) -> Schema:
    key = {"pattern": _whole(pattern), "maxLength": NAME_CHARACTERS_MAX}
    return {"description": description, "type": "object", "propertyNames": key, "additionalProperties": value}


def _or_nothing(schema: Schema) -> Schema:
    return {**schema, "type": ["object", "null"]}


def _named(pattern: re.Pattern[str], description: str) -> Schema:
    return {**_word(pattern), "description": description}


def _names(pattern: re.Pattern[str], description: str) -> Schema:
    return {**_list(_word(pattern), description), "uniqueItems": True}


def _list(item: Schema, description: str) -> Schema:
    return {"description": description, "type": "array", "items": item}


def _word(pattern: re.Pattern[str]) -> Schema:
    """Returns the schema of a name: as it is written, so that YAML may take `true` or `7` for no text."""
    text = {"type": "string", "pattern": _whole(pattern), "maxLength": NAME_CHARACTERS_MAX}
    others = {"true": {"type": "boolean"}, "7": {"type": "number", "minimum": 0}}
    taken = [schema for example, schema in others.items() if pattern.fullmatch(example)]
    return {"anyOf": [text, *taken]} if taken else text


def _whole(pattern: re.Pattern[str]) -> str:
    return f"^(?:{pattern.pattern})$"


def _text(description: str) -> Schema:
    return {"type": "string", "pattern": r"\S", "maxLength": TEXT_CHARACTERS_MAX, "description": description}


def _moment(description: str) -> Schema:
    return {"type": "string", "pattern": r"^\d{4}-?[\dW].*(?:Z|[+-]\d\d[\d:.]*)$", "description": description}


def _whole_number(least: int, most: int, description: str) -> Schema:
    made = {"type": "integer", "minimum": least, "maximum": most}
    return {**made, "description": description} if description else made


def _column_type() -> Schema:
    return {"enum": list(COLUMN_TYPES), "description": "The type of its values."}


def _tags(description: str = "Tags of the column.") -> Schema:
    return _names(names.TAG, description)
