"""The reading of one dataset of `catalogue.yaml`.

Owns the shape of an entry below `datasets`; every name that it mentions (tags, notices, purposes,
actions, columns) must be known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from gatebook.policy import names
from gatebook.policy.dataset import (
    COLUMN_TYPES,
    SUBJECT_KEY_TYPES,
    Ceiling,
    Column,
    Dataset,
    Notice,
    Sensitivity,
    Tag,
)
from gatebook.policy.purposes import Purposes
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_nodes import Node, Scalar, Table
from gatebook.policy.yaml_reader import UNKNOWN_NAME, WRONG_VALUE, Reader, shown

COLUMNS_MAX = 256
"""As many as one request can name."""
PEOPLE_MAX = 10_000_000
RETENTION_DAYS_MAX = 36_500
GROUP_MAX = 1_000_000
EVERYBODY = "all"

REQUIRED = ("sensitivity", "subject_keys", "retention_days", "ceiling", "notice", "columns")
KEYS = (*REQUIRED, "purposes", "group_minimum", "tags", "description")
CEILING_KEYS = ("roles", "people_max")
COLUMN_KEYS = ("type", "tags", "description")

# What stands in for a ceiling that could not be read: nobody.
_NOBODY = Ceiling((), 0)


class Vocabulary(msgspec.Struct, frozen=True):
    """The names that a dataset may mention. `purposes` or `actions` None: any, they are not known here."""

    tags: Mapping[str, Tag]
    notices: Mapping[str, Notice]
    purposes: Purposes | None
    actions: Collection[str] | None


def read_dataset(reader: Reader, key: Scalar, node: Node, vocabulary: Vocabulary) -> Dataset | None:
    """Reads one dataset; None when its name or shape is wrong."""
    id_ = reader.name(key, "datasets", names.DATASET, "mci.prompts")
    fields = reader.fields(node, f"datasets.{key.text}", KEYS, REQUIRED)
    if id_ is None or fields is None:
        return None
    shared_tags = _tags(reader, fields.get("tags"), f"{id_}.tags", vocabulary)
    columns = _columns(reader, fields.get("columns"), id_, shared_tags, vocabulary)
    notice, purposes = _purposes(reader, fields, id_, vocabulary)
    return Dataset(
        id=id_,
        columns=columns,
        subject_keys=_subject_keys(reader, fields, id_, columns),
        sensitivity=_sensitivity(reader, fields.get("sensitivity"), id_),
        retention_days=_number(reader, fields.get("retention_days"), f"{id_}.retention_days", 1, RETENTION_DAYS_MAX),
        ceiling=_ceiling(reader, fields.get("ceiling"), f"{id_}.ceiling", vocabulary),
        notice=notice,
        purposes=purposes,
        group_minimum=_number(reader, fields.get("group_minimum"), f"{id_}.group_minimum", 2, GROUP_MAX),
        description=_description(reader, fields, id_),
        line=key.line,
    )


def unknown_purpose(purpose: str, where: str, purposes: Purposes) -> str:
    """Returns the message about a purpose that the tree does not know."""
    hint = did_you_mean(purpose, purposes.names) or "; declare it in `purposes.yaml`"
    return f"unknown purpose `{purpose}` in `{where}`{hint}"


def _columns(
    reader: Reader, node: Node | None, dataset: str, shared_tags: tuple[str, ...], vocabulary: Vocabulary
) -> Mapping[str, Column]:
    columns: dict[str, Column] = {}
    for key, value in () if node is None else reader.entries(node, f"{dataset}.columns"):
        name = reader.name(key, f"{dataset}.columns", names.COLUMN, "prompt_text")
        column = _column(reader, key, value, f"{dataset}.{key.text}", shared_tags, vocabulary)
        if name is not None and column is not None:
            columns[name] = column
    if node is not None and not columns:
        reader.refuse(node, WRONG_VALUE, f"`{dataset}` has no column; name at least one")
    if node is not None and len(columns) > COLUMNS_MAX:
        message = f"`{dataset}` has {len(columns)} columns; at most {COLUMNS_MAX} can be asked for, split it into views"
        reader.refuse(node, "TOO_MANY", message)
    return columns


def _column(
    reader: Reader, key: Scalar, node: Node, where: str, shared_tags: tuple[str, ...], vocabulary: Vocabulary
) -> Column | None:
    """Reads `name: type` or `name: {type, tags, description}`."""
    if isinstance(node, Scalar):
        type_ = reader.choice(node, f"{where} type", COLUMN_TYPES)
        return None if type_ is None else Column(key.text, where, type_, shared_tags, line=key.line)
    fields = reader.fields(node, where, COLUMN_KEYS, ("type",))
    if fields is None or "type" not in fields:
        return None
    type_ = reader.choice(fields["type"], f"{where} type", COLUMN_TYPES)
    own_tags = _tags(reader, fields.get("tags"), f"{where}.tags", vocabulary)
    description = _description(reader, fields, where)
    if type_ is None:
        return None
    tags = tuple(dict.fromkeys((*own_tags, *shared_tags)))
    return Column(key.text, where, type_, tags, description, key.line)


def _tags(reader: Reader, node: Node | None, where: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Reads tags into nodes."""
    nodes = []
    for tag, item in () if node is None else reader.names(node, where, names.TAG, "content.prompt"):
        if tag in vocabulary.tags:
            nodes.append(names.tag_node(tag))
        else:
            hint = did_you_mean(tag, vocabulary.tags) or "; declare it under `tags`"
            reader.refuse(item, UNKNOWN_NAME, f"unknown tag `{tag}` in `{where}`{hint}")
    return tuple(nodes)


def _purposes(
    reader: Reader, fields: Mapping[str, Node], dataset: str, vocabulary: Vocabulary
) -> tuple[str, tuple[str, ...]]:
    """Reads the notice and the purposes, which never go beyond it."""
    node = fields.get("notice")
    if node is None:
        return "", ()
    if not isinstance(node, Scalar) or node.text not in vocabulary.notices:
        hint = did_you_mean(node.text, vocabulary.notices) if isinstance(node, Scalar) else ""
        reader.refuse(
            node, UNKNOWN_NAME, f"`{dataset}.notice` must name a notice of this file, not {shown(node)}{hint}"
        )
        return "", ()
    notice = vocabulary.notices[node.text]
    if "purposes" not in fields:
        return notice.id, notice.purposes
    chosen = []
    for purpose, item in reader.names(fields["purposes"], f"{dataset}.purposes", names.PURPOSE, "model_training"):
        if vocabulary.purposes is not None and purpose not in vocabulary.purposes:
            reader.refuse(item, UNKNOWN_NAME, unknown_purpose(purpose, f"{dataset}.purposes", vocabulary.purposes))
        elif any(purpose == told or purpose.startswith(f"{told}.") for told in notice.purposes):
            chosen.append(purpose)
        else:
            hint = did_you_mean(purpose, notice.purposes) or "; people were not told of it"
            reader.refuse(item, UNKNOWN_NAME, f"the purpose `{purpose}` is not in the notice `{notice.id}`{hint}")
    return notice.id, tuple(chosen)


def _subject_keys(
    reader: Reader, fields: Mapping[str, Node], dataset: str, columns: Mapping[str, Column]
) -> tuple[str, ...]:
    node, declared = fields.get("subject_keys"), fields.get("columns")
    if node is None:
        return ()
    # A column that could not be read has its own finding, and is not unknown.
    known = {key.text for key, _ in declared.entries} if isinstance(declared, Table) else set()
    keys = []
    for key, item in reader.names(node, f"{dataset}.subject_keys", names.COLUMN, "subject_id"):
        if key not in known:
            hint = did_you_mean(key, known)
            reader.refuse(item, UNKNOWN_NAME, f"the subject key `{key}` is no column of `{dataset}`{hint}")
        elif key in columns and columns[key].type not in SUBJECT_KEY_TYPES:
            message = f"the subject key `{key}` has type `{columns[key].type}`, which identifies nobody"
            reader.refuse(item, WRONG_VALUE, message)
        else:
            keys.append(key)
    return tuple(keys)


def _sensitivity(reader: Reader, node: Node | None, dataset: str) -> Sensitivity:
    words = {level.name.lower(): level for level in Sensitivity}
    word = None if node is None else reader.choice(node, f"{dataset}.sensitivity", tuple(words))
    return Sensitivity.SEALED if word is None else words[word]


def _ceiling(reader: Reader, node: Node | None, where: str, vocabulary: Vocabulary) -> Ceiling:
    fields = None if node is None else reader.fields(node, where, (*CEILING_KEYS, "actions"), CEILING_KEYS)
    if fields is None:
        return _NOBODY
    actions: dict[str, Ceiling] = {}
    for key, value in reader.entries(fields["actions"], f"{where}.actions") if "actions" in fields else ():
        if vocabulary.actions is not None and key.text not in vocabulary.actions:
            hint = did_you_mean(key.text, vocabulary.actions) or "; it is not in `gatebook.yaml`"
            reader.refuse(key, UNKNOWN_NAME, f"unknown action `{key.text}` in `{where}.actions`{hint}")
        inner = reader.fields(value, f"{where}.actions.{key.text}", CEILING_KEYS, CEILING_KEYS)
        if inner is not None:
            actions[key.text] = _audience(reader, inner, f"{where}.actions.{key.text}")
    audience = _audience(reader, fields, where)
    return Ceiling(audience.roles, audience.people_max, actions)


def _audience(reader: Reader, fields: Mapping[str, Node], where: str) -> Ceiling:
    roles: tuple[str, ...] = ()
    if "roles" in fields:
        found = reader.names(fields["roles"], f"{where}.roles", names.ROLE, "role:mci_researcher")
        roles = tuple(role for role, _ in found)
    people = fields.get("people_max")
    if isinstance(people, Scalar) and people.text == EVERYBODY:
        return Ceiling(roles, None)
    if people is None:
        return Ceiling(roles, 0)
    return Ceiling(roles, _number(reader, people, f"{where}.people_max", 0, PEOPLE_MAX, f" or `{EVERYBODY}`"))


def _number(reader: Reader, node: Node | None, where: str, least: int, most: int, otherwise: str = "") -> int:
    return (0 if node is None else reader.integer(node, where, least, most, otherwise)) or 0


def _description(reader: Reader, fields: Mapping[str, Node], where: str) -> str:
    if "description" not in fields:
        return ""
    return reader.text(fields["description"], f"{where}.description") or ""
