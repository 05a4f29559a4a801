"""Whether a draft stays within the zones that its publisher administers.

Owns delegated administration: who has the administrators' role of a zone in the directory may publish drafts all of
whose changes are rules about datasets of that zone. Ceilings, tags, purposes, links between roles, settings and the
tests stay what they are, and nobody gains anything elsewhere. The zones are those of the revision that is active.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from gatebook.governance.change import Change
from gatebook.policy import names
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Finding

OUTSIDE_ZONE = "OUTSIDE_ZONE"
WITHIN = frozenset(
    f"{what}_{how}" for what in ("ALLOW", "DENY", "MASK", "GROUP") for how in ("ADDED", "REMOVED")
) | frozenset(("MASK_STRICTER", "MASK_WEAKER", "GROUP_RAISED", "GROUP_LOWERED", "SOMEBODY_GAINS"))
"""The changes that can lie within a zone."""


def zone_findings(base: PolicySet | None, roles: Collection[str], changes: Iterable[Change]) -> Iterator[Finding]:
    """Yields a finding for each change beyond the zones that somebody with these roles administers."""
    zones = (
        []
        if base is None
        else [it for it in base.settings.zones.values() if not set(it.administrators).isdisjoint(roles)]
    )
    nodes = frozenset(node for zone in zones for node in zone.datasets)
    told = ", ".join(f"`{zone.name}`" for zone in zones)
    where = f"outside the zones that you administer ({told})" if told else "you administer no zone of this set"
    for change in changes:
        if change.what in WITHIN and change.node and _lies_in(change.node, base, nodes):
            continue
        at = " (in the revision that is active)" if change.in_base else ""
        message = f"{where}: {change.message}{at}; whoever publishes the whole set may change it"
        yield Finding(change.file, change.line, 1 if change.line else 0, OUTSIDE_ZONE, message, dataset=change.dataset)


def _lies_in(node: str, base: PolicySet | None, nodes: Collection[str]) -> bool:
    """Tells whether a dataset, column or namespace lies under one of these datasets and namespaces."""
    catalogue = None if base is None else base.catalogue
    if catalogue is None or node.startswith(names.TAG_PREFIX):
        return False
    dataset = node
    if node not in catalogue.datasets and not node.endswith(".*"):
        dataset = names.parent_of(node)  # a column
        if dataset not in catalogue.datasets:
            return False
    while dataset:
        if dataset in nodes:
            return True
        dataset = names.namespace_of(dataset)
    return False
