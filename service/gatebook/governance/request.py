"""The request that shows how somebody could be allowed: what a witness stands for, put in words of a check.

Owns the way from values of paths to a request. `SELF` becomes the id of the subject.
"""

from __future__ import annotations

from typing import Any, Final

from gatebook.governance.audience import Grant
from gatebook.governance.conditions import SELF
from gatebook.values import AccessRequest, Enforcer, Entity, MaskKind, ObligationKind

ABLE: Final = Enforcer("counterexample", frozenset(MaskKind), frozenset(ObligationKind))
"""An enforcer that can apply whatever it is told."""

SHARE: Final = "share"
"""The action that names whom it reaches: it is asked with the widest audience that the ceiling lets it name."""


def request_of(grant: Grant, enforcer: Enforcer, purpose: str = "") -> tuple[AccessRequest, str]:
    """Returns the request of a grant, and the caller who may state what it states (empty: anybody).

    Without a witness nothing is stated but who, what and why.
    """
    subject, cell = grant.subject, grant.cell
    parts: dict[str, dict[str, Any]] = {"ctx": {}, "row": {}, "sub": {}}
    for names, value in ({} if grant.judged.witness is None else grant.judged.witness.values).items():
        if names[1] in parts:
            parts[names[1]][names[2]] = _own(value, subject.id)
    audience = list(cell.dataset.ceiling.of("read").roles) if cell.action == SHARE else []
    request = AccessRequest(
        subject=Entity(subject.type, subject.id, parts["sub"]),
        action=cell.action,
        action_properties={"audience": audience} if audience else {},
        resource=cell.dataset.id,
        columns=cell.columns,
        purpose=purpose or cell.purposes[0],
        context=parts["ctx"],
        row=parts["row"] or None,
        enforcer=enforcer,
    )
    return request, grant.judged.caller


def _own(value: object, id_: str) -> object:
    if isinstance(value, tuple):
        return [_own(item, id_) for item in value]
    return id_ if value == SELF else value
