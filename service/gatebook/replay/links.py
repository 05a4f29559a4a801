"""The ways of links in a policy set: from a subject to a role, from a column to a tag, from a purpose to its parents.

Owns the search for the shortest of them, each link with the file and line that declares it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

from gatebook.engine.snapshot import Snapshot
from gatebook.policy.names import ROLE_PREFIX
from gatebook.values import Edge, PathStep

LINKS_MAX = 100
"""Links of one way that are told."""
_VERBS = {"g": "holds", "g2": "lies in", "g3": "is part of"}


class Links:
    """The links of a snapshot, those of the directory included for one subject alone. Lives for one explanation."""

    def __init__(self, snapshot: Snapshot, subject: str, domains: Collection[str] = ()) -> None:
        """Takes the snapshot, the subject, and the domains that count in a plain set."""
        self._above: dict[str, dict[str, list[Edge]]] = {}
        known = None if snapshot.directory is None else snapshot.directory.subjects.get(subject)
        own: tuple[Edge, ...] = ()
        if known is not None:
            own = tuple(Edge("g", known.id, group, file=known.file, line=known.line) for group in known.groups)
        self._directory = {("g", subject, edge.parent) for edge in own}
        for edge in (*own, *snapshot.policy_set.edges):
            if all(domain in domains for domain in edge.domains):
                self._above.setdefault(edge.gtype, {}).setdefault(edge.child, []).append(edge)

    def path(self, gtype: str, child: str, parent: str) -> tuple[PathStep, ...]:
        """Returns the shortest way from one name to another, or nothing where they are one or there is none."""
        above: Mapping[str, list[Edge]] = self._above.get(gtype, {})
        ways: dict[str, tuple[Edge, ...]] = {child: ()}
        pending = deque([child])
        while pending and parent not in ways:
            name = pending.popleft()
            for edge in above.get(name, ()):
                if edge.parent not in ways:
                    ways[edge.parent] = (*ways[name], edge)
                    pending.append(edge.parent)
        return tuple(map(self._step, ways.get(parent, ())[:LINKS_MAX]))

    def _step(self, edge: Edge) -> PathStep:
        given = (edge.gtype, edge.child, edge.parent) in self._directory
        verb = "has" if given and edge.parent.startswith(ROLE_PREFIX) else _VERBS.get(edge.gtype, "inherits")
        return PathStep(f"{edge.child} {verb} {edge.parent}", edge.file, edge.line)

    def reached(self, gtype: str, child: str) -> tuple[str, ...]:
        """Returns every name that one inherits, the nearest first, itself left out."""
        above: Mapping[str, list[Edge]] = self._above.get(gtype, {})
        found: dict[str, None] = {child: None}
        pending = deque([child])
        while pending:
            for edge in above.get(pending.popleft(), ()):
                if edge.parent not in found:
                    found[edge.parent] = None
                    pending.append(edge.parent)
        return tuple(name for name in found if name != child)
