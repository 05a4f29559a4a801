"""Tags that people may take off a column: which, and what their approval is bound to.

Owns the conditions. A tag can be taken off where the column inherited it, does not have it by itself, and a step masks
it on every way. An approval is bound to the set, the column, the tag and all steps by which the column came to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from gatebook.errors import InvalidRequestError
from gatebook.governance.change import Change, Direction
from gatebook.governance.descent import Descent
from gatebook.governance.lineage import Lineage, Reclassification
from gatebook.policy import names
from gatebook.policy.policy_set import PolicySet

TAKEN_OFF = "TAG_TAKEN_OFF"
_DIGEST_TAG = "gatebook reclassification v1"


def reclassification(declared: PolicySet, lineage: Lineage, dataset: str, column: str, tag: str) -> Reclassification:
    """Returns what takes a tag off a column.

    Raises:
        InvalidRequestError: it cannot be taken off, or there is no such column.
    """
    descent, node, place = Descent(declared, lineage), names.tag_node(tag), (dataset, column)
    known = descent.declared(dataset)
    if column not in descent.columns(dataset):
        raise InvalidRequestError("column", f"`{dataset}` has no column `{column}`, declared or derived")
    if known is not None and column in known.columns and node in known.columns[column].tags:
        message = f"`{dataset}.{column}` has `{tag}` by its declaration: change `catalogue.yaml`"
        raise InvalidRequestError("tag", message)
    reaches = descent.tags(place)
    if node not in reaches:
        raise InvalidRequestError(
            "tag", f"`{dataset}.{column}` inherits no tag `{tag}`: `gatebook lineage show {dataset}`"
        )
    if reaches[node]:
        message = f"`{tag}` reaches `{dataset}.{column}` on a way on which no step masks it, and stays"
        raise InvalidRequestError("tag", message)
    return Reclassification(declared.name, dataset, column, node, descent.basis(place))


def digest_of(one: Reclassification) -> str:
    """Returns what an approval is bound to."""
    told = (_DIGEST_TAG, one.policy_set, one.dataset, one.column, one.tag, one.basis.hex())
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def find(declared: PolicySet, lineage: Lineage, digest: str) -> Reclassification | None:
    """Returns the reclassification of a digest; None where what it is bound to is no more."""
    return next((one for one in _all(declared, lineage) if digest_of(one) == digest), None)


def _all(declared: PolicySet, lineage: Lineage) -> Iterator[Reclassification]:
    descent = Descent(declared, lineage)
    for dataset in descent.derivations:
        known = descent.declared(dataset)
        for column in descent.columns(dataset):
            own = () if known is None or column not in known.columns else known.columns[column].tags
            masked = [tag for tag, clear in descent.tags((dataset, column)).items() if not clear and tag not in own]
            basis = descent.basis((dataset, column)) if masked else b""
            for tag in masked:
                yield Reclassification(declared.name, dataset, column, tag, basis)


def change_of(one: Reclassification) -> Change:
    """Returns what a reclassification changes, for those who approve it."""
    tag = one.tag.removeprefix(names.TAG_PREFIX)
    message = f"takes `{tag}` off `{one.dataset}.{one.column}`, which inherited it, always masked on its way"
    node = f"{one.dataset}.{one.column}"
    return Change("", 0, TAKEN_OFF, message, Direction.LOOSENS, node=node, dataset=one.dataset)
