"""The subjects of a directory as bits, and who holds which role by which links.

Owns sets of subjects. A set is one whole number with a bit per subject, so that the union of two audiences of 12,000
people is one operation. Promises:

1. `holders` follows every link, of the directory and of the rules, to any depth, as the engine does;
2. `given` follows none: who has a role in the directory has it whatever a policy set links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from gatebook.compiler.roles import reach
from gatebook.policy.directory import Directory, Subject
from gatebook.values import Edge

SERVICE = "service"
"""The type of subjects that are nobody: head-counts leave them out."""

Bits = int
"""A set of subjects: bit `n` stands for the n-th subject."""

NOBODY: Bits = 0


class People:
    """Who holds what. Immutable but for memos that change no answer."""

    def __init__(self, directory: Directory, edges: Iterable[Edge]) -> None:
        """Takes the subjects, and the links of a policy set."""
        self.subjects: tuple[Subject, ...] = tuple(sorted(directory.subjects.values(), key=lambda subject: subject.id))
        self.place = {subject.id: place for place, subject in enumerate(self.subjects)}
        self.everybody: Bits = (1 << len(self.subjects)) - 1
        given: dict[str, bytearray] = {}
        services = self._none()
        for place, subject in enumerate(self.subjects):
            if subject.type == SERVICE:
                _add(services, place)
            for group in subject.groups:
                _add(given.setdefault(group, self._none()), place)
        self.services: Bits = _bits(services)
        self._given = {role: _bits(members) for role, members in given.items()}
        self._links: dict[str, list[Edge]] = {}
        self._below: dict[str, list[str]] = {}
        for edge in edges:
            if edge.gtype == "g":
                self._links.setdefault(edge.child, []).append(edge)
                self._below.setdefault(edge.parent, []).append(edge.child)
        self._holders: dict[str, Bits] = {}
        self._above = {child: tuple(edge.parent for edge in links) for child, links in self._links.items()}
        self._roles: dict[tuple[str, ...], frozenset[str]] = {}

    def _none(self) -> bytearray:
        return bytearray(len(self.subjects) // 8 + 1)

    @property
    def given_roles(self) -> tuple[str, ...]:
        """Returns every role that the directory gives somebody, sorted."""
        return tuple(sorted(self._given))

    def given(self, role: str) -> Bits:
        """Returns who has a role in the directory itself."""
        return self._given.get(role, NOBODY)

    def holders(self, role: str) -> Bits:
        """Returns who holds a role by whatever links, or is it."""
        held = self._holders.get(role)
        if held is None:
            held = NOBODY
            for name in reach(self._below, role):
                held |= self._given.get(name, NOBODY)
                place = self.place.get(name)
                if place is not None:
                    held |= 1 << place
            self._holders[role] = held
        return held

    def roles(self, place: int) -> frozenset[str]:
        """Returns the roles that the subject at a place holds by whatever links, and its id."""
        subject = self.subjects[place]
        names = (*subject.groups, *self._above.get(subject.id, ()))
        held = self._roles.get(names)
        if held is None:
            held = self._roles[names] = frozenset().union(*(reach(self._above, name) for name in names))
        return held if subject.id in held else held | {subject.id}

    def among(self, bits: Bits) -> Iterator[Subject]:
        """Yields the subjects of a set, by id."""
        for place in places(bits):
            yield self.subjects[place]

    def path(self, subject: Subject, role: str) -> tuple[Edge, ...]:
        """Returns the shortest way of links from a subject to a role that it holds, each with its file and line."""
        first = [Edge("g", subject.id, group, file=subject.file, line=subject.line) for group in subject.groups]
        ways: dict[str, tuple[Edge, ...]] = {subject.id: ()}
        pending = deque([subject.id])
        while pending and role not in ways:
            name = pending.popleft()
            for edge in (*(first if name == subject.id else ()), *self._links.get(name, ())):
                if edge.parent not in ways:
                    ways[edge.parent] = (*ways[name], edge)
                    pending.append(edge.parent)
        return ways.get(role, ())


def places(bits: Bits) -> Iterator[int]:
    """Yields the places of the bits that are set, from the first on."""
    for byte_place, byte in enumerate(bits.to_bytes((bits.bit_length() + 7) // 8, "little")):
        if byte:
            for bit in range(8):
                if byte >> bit & 1:
                    yield byte_place * 8 + bit


def first_of(bits: Bits) -> int:
    """Returns the place of the first bit that is set."""
    return (bits & -bits).bit_length() - 1


def bits_of(members: Iterable[int], size: int) -> Bits:
    """Returns the set of these places, of so many subjects."""
    made = bytearray(size // 8 + 1)
    for place in members:
        _add(made, place)
    return _bits(made)


def _add(members: bytearray, place: int) -> None:
    members[place >> 3] |= 1 << (place & 7)


def _bits(members: bytearray) -> Bits:
    return int.from_bytes(members, "little")
