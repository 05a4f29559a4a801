"""`gatebook.yaml`: what a policy set is called, who owns it, and whom it believes.

Owns the settings of one policy set:

    name                what the set is called in requests
    owners              whom to ask
    actions             what can be done, and nothing else: required in a governed set
    roles               who can be spoken of: every role that its rules, ceilings and zones name
    zones               which datasets a role may administer: its people publish rules about them, and nothing else
    approvals           which approvals a publish needs (`approval_rules`)
    attribute_sources   which caller may state which context keys and subject properties; what another
                        caller states does not count (design section 5.11)
    request             of a plain set: which part of a request supplies which token of the model
    matcher             of a plain set: the matcher that decides, with the request and rules that it speaks of; else `m`
    role_patterns       of a plain set: which of Casbin's functions match the names, or the domains, of a relation
    role_conditions     of a plain set: which function of a link's parameters says whether the link holds
    lineage             of a governed set: the `namespaces` in which jobs report its datasets, and the prefixes there
    acknowledged        hazards of the model that the owners accept by name

Every key may be left out, except that a governed set needs its actions and roles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gatebook.expression.moments import TIME_MATCH
from gatebook.policy import names
from gatebook.policy.approval_rules import ApprovalRules, read_approvals
from gatebook.policy.yaml_nodes import Node, Scalar
from gatebook.policy.yaml_reader import MISSING_KEY, WRONG_VALUE, Reader
from gatebook.values import Finding

ALLOW_BY_DEFAULT: Final = "allow-by-default"
HAZARDS: Final = (ALLOW_BY_DEFAULT,)
"""The hazards that can be acknowledged: a policy effect that allows what no rule mentions."""

KEYS: Final = (
    "name",
    "owners",
    "actions",
    "roles",
    "zones",
    "approvals",
    "attribute_sources",
    "request",
    "matcher",
    "role_patterns",
    "role_conditions",
    "lineage",
    "acknowledged",
)
PATTERNS: Final = ("keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "regexMatch", "globMatch")
CONDITIONS: Final = (TIME_MATCH,)
REQUEST_SOURCES: Final = ("subject", "actor", "resource", "action", "purpose", "context.KEY")

SET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]*")
CALLER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RELATION = re.compile(r"g([2-9]|[1-9][0-9])?")
MATCHER = re.compile(r"m([2-9]|[1-9][0-9])?")
SOURCE = re.compile(r"subject|actor|resource|action|purpose|context\.[A-Za-z_][A-Za-z0-9_]*")
NAMESPACE = re.compile(r"[!-~]+")
PREFIX = re.compile(r"[A-Za-z0-9_.-]*")
_ZONE_KEYS = ("datasets", "administrators")
ZONE_MEMBER = re.compile(f"{names.NAMESPACE.pattern}|{names.DATASET.pattern}")


class AttributeSource(msgspec.Struct, frozen=True):
    """What one caller may state: keys of the context, properties of the subject."""

    context: frozenset[str] = frozenset()
    subject: frozenset[str] = frozenset()


NOTHING_BELIEVED: Final = AttributeSource()


class Zone(msgspec.Struct, frozen=True):
    """Datasets and namespaces that a role may administer, never beyond their ceilings."""

    name: str
    datasets: tuple[str, ...]
    administrators: tuple[str, ...]


class NamedPatterns(msgspec.Struct, frozen=True):
    """Which functions match the names, and the domains, of one relation; empty: they are compared."""

    names: str = ""
    domains: str = ""


class Settings(msgspec.Struct, frozen=True):
    """The settings of one policy set. The empty ones are those of a set without `gatebook.yaml`."""

    name: str = ""
    owners: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    zones: Mapping[str, Zone] = {}
    attribute_sources: Mapping[str, AttributeSource] = {}
    request: Mapping[str, str] = {}
    acknowledged: frozenset[str] = frozenset()
    matcher: str = "m"
    role_patterns: Mapping[str, NamedPatterns] = {}
    role_conditions: Mapping[str, str] = {}
    approvals: ApprovalRules | None = None
    lineage: Mapping[str, str] = {}
    """The namespaces in which jobs report datasets of this set, each with the prefix of names there; empty: any."""

    @property
    def allow_by_default(self) -> bool:
        """Tells whether an effect that allows by default is acknowledged."""
        return ALLOW_BY_DEFAULT in self.acknowledged

    def believed(self, caller: str) -> AttributeSource:
        """Returns what the caller may state; nothing, unless it is named."""
        return self.attribute_sources.get(caller, NOTHING_BELIEVED)


def is_set_name(name: str) -> bool:
    """Tells whether a policy set can be called so."""
    return SET_NAME.fullmatch(name) is not None


def parse_settings(text: str, file: str, *, governed: bool | None = None) -> tuple[Settings | None, list[Finding]]:
    """Reads `gatebook.yaml`.

    Args:
        text: The content of the file.
        file: Its path within the policy set.
        governed: Whether the set has a catalogue; None leaves out what depends on it.

    Returns:
        The settings, or None when there is a finding, and all findings by line and column.
    """
    reader = Reader(file)
    root = reader.root(text)
    found = None if root is None else reader.fields(root, file, KEYS)
    if root is None or found is None:
        return None, reader.sorted_findings()
    settings = Settings(
        name=_set_name(reader, found.get("name")),
        owners=_listed(reader, found.get("owners"), "owners", OWNER, "privacy-office"),
        actions=_listed(reader, found.get("actions"), "actions", names.WORD, "read"),
        roles=_listed(reader, found.get("roles"), "roles", names.ROLE, "role:researcher"),
        zones=_zones(reader, found.get("zones")),
        attribute_sources=_sources(reader, found.get("attribute_sources")),
        request=_bindings(reader, found.get("request")),
        acknowledged=_acknowledged(reader, found.get("acknowledged")),
        role_patterns=_role_patterns(reader, found.get("role_patterns"), governed=governed),
        role_conditions=_role_conditions(reader, found.get("role_conditions"), governed=governed),
        lineage=_lineage(reader, found.get("lineage"), governed=governed),
        matcher=_matcher(reader, found.get("matcher"), governed=governed),
        approvals=read_approvals(reader, found.get("approvals")),
    )
    if governed and "actions" not in found:
        reader.refuse(root, MISSING_KEY, "a set with a catalogue needs `actions`, such as `[read, export, share]`")
    if governed and "roles" not in found:
        reader.refuse(root, MISSING_KEY, "a set with a catalogue needs `roles`, such as `[role:employee]`")
    if governed and "request" in found:
        message = "`request` binds the tokens of a plain set; this set has a catalogue"
        reader.refuse(found["request"], WRONG_VALUE, message)
    return None if reader.failed else settings, reader.sorted_findings()


def _set_name(reader: Reader, node: Node | None) -> str:
    return "" if node is None else reader.name(node, "name", SET_NAME, "telemetry") or ""


def _listed(reader: Reader, node: Node | None, where: str, pattern: re.Pattern[str], example: str) -> tuple[str, ...]:
    if node is None:
        return ()
    return tuple(name for name, _ in reader.names(node, where, pattern, example))


def _zones(reader: Reader, node: Node | None) -> Mapping[str, Zone]:
    zones: dict[str, Zone] = {}
    for key, value in () if node is None else reader.entries(node, "zones"):
        name = reader.name(key, "zones", names.WORD, "mci")
        fields = reader.fields(value, f"zones.{key.text}", _ZONE_KEYS, _ZONE_KEYS)
        if name is None or fields is None:
            continue
        where = f"zones.{name}"
        datasets = _listed(reader, fields.get("datasets"), f"{where}.datasets", ZONE_MEMBER, "mci.*")
        roles = _listed(reader, fields.get("administrators"), f"{where}.administrators", names.ROLE, "role:mci_owner")
        zones[name] = Zone(name, datasets, roles)
    return zones


def _sources(reader: Reader, node: Node | None) -> Mapping[str, AttributeSource]:
    sources: dict[str, AttributeSource] = {}
    for key, value in () if node is None else reader.entries(node, "attribute_sources"):
        caller = reader.name(key, "attribute_sources", CALLER, "svc-trino")
        fields = reader.fields(value, f"attribute_sources.{key.text}", ("context", "subject"))
        if caller is None or fields is None:
            continue
        stated = {
            part: _listed(reader, fields.get(part), f"attribute_sources.{caller}.{part}", names.ATTRIBUTE, "network")
            for part in ("context", "subject")
        }
        for reserved in names.RESERVED_ATTRIBUTES.intersection(stated["subject"]):
            reader.refuse(value, WRONG_VALUE, f"`{reserved}` of a subject comes from the request itself; leave it out")
        sources[caller] = AttributeSource(frozenset(stated["context"]), frozenset(stated["subject"]))
    return sources


def _bindings(reader: Reader, node: Node | None) -> Mapping[str, str]:
    bindings: dict[str, str] = {}
    for key, value in () if node is None else reader.entries(node, "request"):
        token = reader.name(key, "request", TOKEN, "dom")
        if not isinstance(value, Scalar) or not SOURCE.fullmatch(value.text):
            known = ", ".join(f"`{source}`" for source in REQUEST_SOURCES)
            reader.refuse(value, WRONG_VALUE, f"`request.{key.text}` must be one of {known}")
        elif token is not None:
            bindings[token] = value.text
    return bindings


def _role_patterns(reader: Reader, node: Node | None, *, governed: bool | None) -> Mapping[str, NamedPatterns]:
    patterns: dict[str, NamedPatterns] = {}
    if node is not None and governed:
        reader.refuse(node, WRONG_VALUE, "the relations of a set with a catalogue have no patterns; leave it out")
    for key, value in () if node is None else reader.entries(node, "role_patterns"):
        relation = reader.name(key, "role_patterns", RELATION, "g")
        where = f"role_patterns.{key.text}"
        fields = reader.fields(value, where, ("names", "domains"))
        if relation is None or fields is None:
            continue
        chosen = {part: reader.choice(found, f"{where}.{part}", PATTERNS) for part, found in fields.items()}
        patterns[relation] = NamedPatterns(chosen.get("names") or "", chosen.get("domains") or "")
    return patterns


def _role_conditions(reader: Reader, node: Node | None, *, governed: bool | None) -> Mapping[str, str]:
    conditions: dict[str, str] = {}
    if node is not None and governed:
        reader.refuse(node, WRONG_VALUE, "the links of a set with a catalogue have no conditions; leave it out")
    for key, value in () if node is None else reader.entries(node, "role_conditions"):
        relation = reader.name(key, "role_conditions", RELATION, "g")
        chosen = reader.choice(value, f"role_conditions.{key.text}", CONDITIONS)
        if relation is not None and chosen is not None:
            conditions[relation] = chosen
    return conditions


def _lineage(reader: Reader, node: Node | None, *, governed: bool | None) -> Mapping[str, str]:
    """Reads `namespaces`: what jobs call the place of the set's datasets, and the prefix of their names there."""
    prefixes: dict[str, str] = {}
    if node is not None and governed is False:
        reader.refuse(node, WRONG_VALUE, "a set without a catalogue has no tables; leave it out")
    fields = None if node is None else reader.fields(node, "lineage", ("namespaces",), ("namespaces",))
    for key, value in () if not fields else reader.entries(fields["namespaces"], "lineage.namespaces"):
        namespace = reader.name(key, "lineage.namespaces", NAMESPACE, "postgres://db:5432")
        if isinstance(value, Scalar) and (value.value is None or PREFIX.fullmatch(value.text)):
            prefixes[namespace or ""] = "" if value.value is None else value.text
        else:
            message = f"`lineage.namespaces.{key.text}` is the prefix of names there, such as `warehouse`, or nothing"
            reader.refuse(value, WRONG_VALUE, message)
    return prefixes


def _matcher(reader: Reader, node: Node | None, *, governed: bool | None) -> str:
    if node is None:
        return "m"
    if governed:
        reader.refuse(node, WRONG_VALUE, "of a set with a catalogue, `m`, `m2` and `m3` decide together; leave it out")
    if isinstance(node, Scalar) and MATCHER.fullmatch(node.text):
        return node.text
    reader.refuse(node, WRONG_VALUE, "`matcher` names the matcher that decides, such as `m2`")
    return "m"


def _acknowledged(reader: Reader, node: Node | None) -> frozenset[str]:
    if node is None:
        return frozenset()
    chosen = (reader.choice(item, "acknowledged", HAZARDS) for item in reader.items(node, "acknowledged"))
    return frozenset(hazard for hazard in chosen if hazard is not None)
