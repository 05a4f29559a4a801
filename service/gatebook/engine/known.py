"""What a plain set knows of those that a request names.

Owns the rule that what a set knows outranks what a caller says: where the set brings its subjects, or its
resources, only those exist, and their properties are the set's. Of a subject a caller may add the
properties that `gatebook.yaml` names it as the source of. A set that brings neither believes what is sent.
Where `gatebook.yaml` names actions, there are no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from gatebook.engine.decision import Denial
from gatebook.policy.entities import Entities
from gatebook.policy.policy_set import PolicySet
from gatebook.values import AccessRequest, Entity, Reason


def refuse_unknown(policy_set: PolicySet, request: AccessRequest) -> Denial | None:
    """Refuses a request to a plain set that names somebody or something that the set does not know."""
    subjects, resources, actions = policy_set.subjects, policy_set.resources, policy_set.settings.actions
    if actions and request.action not in actions:
        return Denial(Reason.UNKNOWN_ACTION, f"the actions are {', '.join(sorted(actions))}")
    if resources is not None and resources.find(request.resource_type, request.resource) is None:
        return Denial(Reason.UNCATALOGUED, "the set does not know the resource, or not as this type")
    if subjects is None:
        return None
    for role, entity in (("subject", request.subject), ("actor", request.actor)):
        if entity is not None and subjects.find(entity.type, entity.id) is None:
            return Denial(Reason.UNKNOWN_SUBJECT, f"the set does not know the {role}, or not as this type")
    return None


def as_known(policy_set: PolicySet, request: AccessRequest, caller: str) -> AccessRequest:
    """Returns the request as its rules read it: with the properties that the set knows."""
    subjects, resources = policy_set.subjects, policy_set.resources
    if resources is not None:
        resource = resources.find(request.resource_type, request.resource)
        if resource is not None:
            request = replace(request, resource_type=resource.type, resource_properties=resource.properties)
    if subjects is None:
        return request
    believed = policy_set.settings.believed(caller).subject
    subject = _as_known(subjects, request.subject, believed)
    actor = None if request.actor is None else _as_known(subjects, request.actor, believed)
    return replace(request, subject=subject, actor=actor)


def _as_known(subjects: Entities, entity: Entity, believed: frozenset[str]) -> Entity:
    known = subjects.find(entity.type, entity.id)
    if known is None:
        return entity
    stated: Mapping[str, Any] = {key: value for key, value in entity.properties.items() if key in believed}
    return Entity(known.type, known.id, {**stated, **known.properties})
