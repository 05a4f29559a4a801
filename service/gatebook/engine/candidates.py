"""Everybody and everything that a search can find: the entities that a snapshot knows.

Owns the claim that a search is complete. A check can be allowed only for what is listed here, because

1. subjects are those of the directory, resources the datasets of the catalogue; of a plain set they are those
   that it brings, and whoever is not there is denied;
2. actions are those of `gatebook.yaml`, and others are denied; of a plain set without them they are those that
   its rules name, if no rule can allow another: each alternative of the matcher has `r.act == p.act`, and the
   policy effect allows nothing by itself.

Where that does not hold a search is refused, since half an answer to "who may?" is a wrong one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from gatebook.compiler.keys import Form
from gatebook.compiler.split import split
from gatebook.engine.bind import USUAL
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import NotSearchableError
from gatebook.policy.dataset import DATASET_TYPE
from gatebook.policy.entities import Entities


class Kind(enum.Enum):
    """What a search looks for; the value is the name of its call."""

    SUBJECTS = "SearchSubjects"
    RESOURCES = "SearchResources"
    ACTIONS = "SearchActions"


def candidates(snapshot: Snapshot, kind: Kind, type_: str) -> tuple[str, ...]:
    """Returns the ids of a type, or the names of actions, sorted; none of a type that is not known.

    Raises:
        NotSearchableError: the set does not say whom or what it knows.
    """
    match kind:
        case Kind.SUBJECTS:
            return _subjects(snapshot, type_)
        case Kind.RESOURCES:
            return _resources(snapshot, type_)
        case Kind.ACTIONS:
            return _actions(snapshot)


def searchable(snapshot: Snapshot) -> frozenset[Kind]:
    """Returns what can be searched for."""
    if snapshot.governed:
        return frozenset(Kind)
    policy_set = snapshot.policy_set
    able = {
        Kind.SUBJECTS: policy_set.subjects is not None,
        Kind.RESOURCES: policy_set.resources is not None,
        Kind.ACTIONS: bool(policy_set.settings.actions) or _actions_of_rules(snapshot) is not None,
    }
    return frozenset(kind for kind in Kind if able[kind])


def _subjects(snapshot: Snapshot, type_: str) -> tuple[str, ...]:
    if snapshot.directory is not None:
        subjects = snapshot.directory.subjects
        return tuple(sorted(id_ for id_, subject in subjects.items() if subject.type == type_))
    return _known(snapshot, snapshot.policy_set.subjects, type_, "subjects", "directory")


def _resources(snapshot: Snapshot, type_: str) -> tuple[str, ...]:
    catalogue = snapshot.policy_set.catalogue
    if catalogue is not None:
        return tuple(sorted(catalogue.datasets)) if type_ == DATASET_TYPE else ()
    return _known(snapshot, snapshot.policy_set.resources, type_, "resources", "resources")


def _known(snapshot: Snapshot, entities: Entities | None, type_: str, what: str, folder: str) -> tuple[str, ...]:
    if entities is None:
        name = snapshot.policy_set.name
        message = f"policy set `{name}` does not say which {what} there are: give it `{folder}/*.jsonl`"
        raise NotSearchableError(message, policy_set=name)
    return tuple(entities.by_type.get(type_, {}))


def _actions(snapshot: Snapshot) -> tuple[str, ...]:
    named = snapshot.policy_set.settings.actions
    if named:
        return tuple(sorted(named))
    ruled = _actions_of_rules(snapshot)
    if ruled is None:
        name = snapshot.policy_set.name
        message = f"the rules of policy set `{name}` do not name each action: list `actions` in its `gatebook.yaml`"
        raise NotSearchableError(message, policy_set=name)
    return ruled


def _actions_of_rules(snapshot: Snapshot) -> tuple[str, ...] | None:
    """Returns the actions that the rules of a plain set name, or None where a rule may allow another."""
    program, policy_set = snapshot.program, snapshot.policy_set
    bindings: Mapping[str, str] = {**USUAL, **program.bindings}
    tokens = [token for token in program.tokens if bindings.get(token) == "action"]
    sections = program.main.sections
    matcher = program.main.matcher
    if program.effect.allows_by_default or sections != policy_set.model.sections(matcher.key):
        return None
    fields = set()
    for alternative in split(matcher.expression, policy_set.model.roles):
        equal = [
            k.field
            for k in alternative.keys
            if k.form is Form.EQUAL and k.request.names in {(sections.request, t) for t in tokens}
        ]
        if not equal:
            return None
        fields.add(equal[0])
    definition = program.main.names
    positions = [definition.index(field) for field in fields]
    rules = [rule for rule in policy_set.rules if rule.ptype == sections.rules]
    return tuple(sorted({rule.fields[position] for rule in rules for position in positions}))
