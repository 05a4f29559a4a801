"""What a condition comes to for each subject, where circumstances, row and time are still open.

Owns the partition of subjects by what is left of a condition. Rules:

1. attributes that the directory knows are known; `r.ctx`, `r.row`, the time, and attributes that a caller may state
   of whom the directory does not know it, are open;
2. subjects of whom a condition reads the same values share what is left of it;
3. which roles a subject has is known as well, where a condition asks for one (`asked_roles`);
   whatever else a condition reads, such as `r.act`, is left open, and is not decided;
4. the id differs for each. Where conditions only compare it for equality, with what else is only compared for
   equality, it stands as `SELF` for everybody: a value that equals no other, as each id then is. Who has an id that
   a condition or an own attribute names, is taken alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gatebook.compiler.timed import with_time
from gatebook.expression.environment import Named
from gatebook.expression.moments import NOW, TIME_MATCH, time_match
from gatebook.expression.residual import ROW, residual
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.truth import Functions
from gatebook.governance.asked_roles import HELD, LINKS, with_held
from gatebook.governance.people import NOBODY, Bits, People, bits_of, places
from gatebook.policy.dataset import Dataset
from gatebook.policy.directory import Subject
from gatebook.policy.model import Model, walk, without_spans
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.rule_text import read_condition

SELF: Final = "\ufdd0"
"""Stands for the id of each subject alike: a character that no text of a directory or policy holds."""

UNREAD: Final = "\ufdd1"
"""Stands for an id that no condition reads: rows about others have another one, nothing else is compared with it."""

ID: Final = ("r", "sub", "id")
NOW_PATH: Final = ("r", NOW)
ASKED: Final = ("r", "asked")
"""Begins paths that are open and that nobody decides: what conditions read beside subject, circumstances and row."""

TIMES: Final[Functions] = {TIME_MATCH: time_match}
_COMPARED = frozenset(("eq", "ne"))
_JOINED = frozenset(("and", "or", "not"))

Left = bool | Expression | None
"""What is left of a condition: True, False, None (unknown whatever happens), or an expression over what is open."""


class Part(msgspec.Struct, frozen=True):
    """Subjects for whom the same is left of a condition."""

    bits: Bits
    left: Left
    key: str
    """Tells apart what is left: to Python, `x == 1` and `x == True` are equal."""


class Conditions:
    """The conditions of one policy set, partitioned when they are asked for."""

    def __init__(self, policy_set: PolicySet, people: People, beside: PolicySet | None = None) -> None:
        """Takes the set whose rules hold the conditions, and the subjects; see `Audiences` about `beside`."""
        self._people = people
        self._model: Model = policy_set.model
        believed = [source.context for source in policy_set.settings.attribute_sources.values()]
        self._believed = frozenset[str]().union(*believed)
        self._stated = _stated(policy_set)
        self._trees = {text: self._read(text, policy_set) for text in _texts(policy_set)}
        others = () if beside is None else (self._read(text, beside) for text in _texts(beside))
        sets = (policy_set,) if beside is None else (policy_set, beside)
        trees = [*self._trees.values(), *others]
        literals = (node.value for tree in trees for node in walk(tree) if isinstance(node, Literal))
        self._named = frozenset(text for value in literals for text in _within(value))
        keys = {("r", "row", key) for it in sets for dataset in _datasets(it) for key in dataset.subject_keys}
        self.id_is_alike = _only_compared(trees, frozenset().union(*map(_stated, sets)), keys)
        self.reading_time = frozenset(text for text, tree in self._trees.items() if any(map(_is_time, walk(tree))))
        """The conditions that read the time."""
        self.reading_links = frozenset(text for text, tree in self._trees.items() if any(map(_is_link, walk(tree))))
        """The conditions that ask who has a role."""
        self._reading_id = frozenset(text for text, tree in self._trees.items() if Path(ID) in walk(tree))
        self._parts: dict[str, tuple[Part, ...]] = {}
        self._columns: dict[str, tuple[str, ...]] = {}
        self._place_of_part: dict[str, list[int]] = {}
        self._alone = frozenset(place for place, subject in enumerate(people.subjects) if self._is_named(subject))
        self.alone: Bits = bits_of(self._alone, len(people.subjects))
        """Who has an id that a condition or an own attribute names."""
        self._alike = people.everybody & ~self.alone

    def _read(self, text: str, policy_set: PolicySet) -> Expression:
        tree = with_held(without_spans(read_condition(self._model, text)), policy_set)
        return with_time(tree, "r", frozenset({TIME_MATCH}))

    def parts(self, text: str) -> tuple[Part, ...]:
        """Returns the parts of everybody by what is left of a condition."""
        parts = self._parts.get(text)
        if parts is None:
            parts = self._parts[text] = tuple(self._partition(self._trees[text]))
        return parts

    def part_at(self, text: str, place: int) -> Part:
        """Returns the part of a condition that the subject at a place is in."""
        return self.parts(text)[self.part_of(text)[place]]

    def part_of(self, text: str) -> list[int]:
        """Returns, for each subject, the place of its part among the parts of a condition."""
        found = self._place_of_part.get(text)
        if found is None:
            found = self._place_of_part[text] = [0] * len(self._people.subjects)
            for number, part in enumerate(self.parts(text)):
                for place in places(part.bits):
                    found[place] = number
        return found

    def reads_id(self, text: str) -> bool:
        """Tells whether a condition reads the id of the subject."""
        return text in self._reading_id

    def columns(self, text: str) -> tuple[str, ...]:
        """Returns the columns of the row that a condition reads, sorted."""
        found = self._columns.get(text)
        if found is None:
            paths = (node.names for node in walk(self._trees[text]) if isinstance(node, Path))
            read = {names[2] for names in paths if names[:2] == ROW and len(names) > len(ROW)}
            found = self._columns[text] = tuple(sorted(read))
        return found

    def id_of(self, place: int, *, read: bool) -> str:
        """Returns what stands for the id of a subject in what is left of conditions, of which one may read it."""
        if place in self._alone or (read and not self.id_is_alike):
            return self._people.subjects[place].id
        return SELF if read else UNREAD

    def by_id(self, bits: Bits, *, read: bool) -> Iterator[Bits]:
        """Yields subjects together for whose ids the same stands."""
        alike = NOBODY if read and not self.id_is_alike else bits & self._alike
        if alike:
            yield alike
        for place in places(bits & ~alike):
            yield 1 << place

    def _is_named(self, subject: Subject) -> bool:
        values = subject.attributes.values()
        return subject.id in self._named or any(
            subject.id in value if isinstance(value, tuple) else subject.id == value for value in values
        )

    def _partition(self, tree: Expression) -> Iterator[Part]:
        paths = {node.names for node in walk(tree) if isinstance(node, Path)}
        attributes = sorted({names[2] for names in paths if names[:2] == ID[:2] and len(names) > 2} - {"id"})  # noqa: PLR2004
        roles = sorted(names[2] for names in paths if names[:2] == HELD)
        if not attributes and not roles and ID not in paths:
            left = self._left(tree, Subject("", ""), SELF, {})
            yield Part(self._people.everybody, left, repr(left))
            return
        reads_id = ID in paths
        holders = [frozenset(places(self._people.holders(role))) for role in roles]
        alike: dict[tuple[str, object, tuple[bool, ...]], list[int]] = {}
        for place, subject in enumerate(self._people.subjects):
            own = self.id_of(place, read=True) if reads_id else SELF
            known = tuple([_kept(subject.attributes, name) for name in attributes])
            held = tuple([place in members for members in holders])
            alike.setdefault((own, known, held), []).append(place)
        same: dict[str, tuple[Left, list[int]]] = {}
        for (own, _, held), members in alike.items():
            has = dict(zip(roles, held, strict=True))
            left = self._left(tree, self._people.subjects[members[0]], own, has)
            same.setdefault(repr(left), (left, []))[1].extend(members)
        for key, (left, members) in same.items():
            yield Part(bits_of(members, len(self._people.subjects)), left, key)

    def _left(self, tree: Expression, subject: Subject, own: str, held: Mapping[str, bool]) -> Left:
        attributes = subject.attributes
        named = Named(own, {**attributes, "id": own})

        def open_path(names: tuple[str, ...]) -> tuple[str, ...] | None:
            match names:
                case ("r", "held", _):
                    return None
                case ("r", "row", _, *_):
                    return names
                case ("r", "ctx", key, *_):
                    return names if key in self._believed else None
                case ("r", "sub", key, *_):
                    return names if key in self._stated and key not in attributes else None
            # What is asked, the rule itself, and whole values: nothing here tells what they are for a cell.
            return names if names == NOW_PATH else (*ASKED, *names)

        return residual(tree, {"r": {"sub": named, "held": held}}, TIMES, open_path)


def _is_time(node: Expression) -> bool:
    if isinstance(node, Path):
        return node.names[:2] == NOW_PATH
    return isinstance(node, Call) and node.op == TIME_MATCH


def _is_link(node: Expression) -> bool:
    return isinstance(node, Path) and (node.names[: len(HELD)] == HELD or node.names[: len(LINKS)] == LINKS)


def _stated(policy_set: PolicySet) -> frozenset[str]:
    """Returns the attributes that some caller may state of a subject."""
    stated = [source.subject for source in policy_set.settings.attribute_sources.values()]
    return frozenset[str]().union(*stated)


def _within(value: object) -> Iterator[str]:
    """Yields the texts that a constant is, or that are in its list."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, tuple):
            pending += one
        elif isinstance(one, str):
            yield one


def _texts(policy_set: PolicySet) -> frozenset[str]:
    return frozenset(rule.fields[4] for rule in policy_set.rules)


def _datasets(policy_set: PolicySet) -> Iterable[Dataset]:
    return () if policy_set.catalogue is None else policy_set.catalogue.datasets.values()


def _kept(attributes: Mapping[str, Any], name: str) -> object:
    """Returns a value so that only what is the same to every condition is equal."""
    value = attributes.get(name, ...)
    return (type(value), value)


def _only_compared(trees: Iterable[Expression], stated: frozenset[str], keys: Iterable[tuple[str, ...]]) -> bool:
    """Tells whether the id, and all that is compared with what is compared with it, is only compared for equality.

    The keys of data subjects are compared with it too, since rows about others are told apart by them.
    """
    joined = _Joined(stated)
    for key in keys:
        joined.join(ID, key)
    for tree in trees:
        _note(tree, joined)
    return not joined.is_used(ID)


def is_only_compared(path: tuple[str, ...], trees: Sequence[Expression]) -> bool:
    """Tells whether an open path, and all that it is compared with, in turn too, is only compared for equality.

    Only such a path may take `SELF` for a value: of another it is not the same whether it has that or the id itself.
    """
    paths = [node.names for tree in trees for node in walk(tree) if isinstance(node, Path)]
    joined = _Joined(frozenset(names[2] for names in paths if names[:2] == ID[:2] and len(names) == len(ID)))
    for tree in trees:
        _note(tree, joined)
    return not joined.is_used(path)


class _Joined:
    """Which paths are compared with which, and which are used otherwise; what the directory knows, is a constant."""

    def __init__(self, stated: frozenset[str]) -> None:
        self._stated = stated
        self._above: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._used: set[tuple[str, ...]] = set()

    def root(self, path: tuple[str, ...]) -> tuple[str, ...]:
        while (above := self._above.get(path, path)) != path:
            path = above
        return path

    def join(self, one: tuple[str, ...], other: tuple[str, ...]) -> None:
        if not (self._is_constant(one) or self._is_constant(other)):
            self._above[self.root(one)] = self.root(other)

    def use(self, path: tuple[str, ...]) -> None:
        if not self._is_constant(path):
            self._used.add(path)

    def _is_constant(self, path: tuple[str, ...]) -> bool:
        return path[:2] == ID[:2] and path != ID and path[2:] not in {(name,) for name in self._stated}

    def is_used(self, path: tuple[str, ...]) -> bool:
        return self.root(path) in {self.root(used) for used in self._used}


def _note(tree: Expression, joined: _Joined) -> None:
    match tree:
        case Call(op, operands) if op in _JOINED:
            for operand in operands:
                _note(operand, joined) if isinstance(operand, Call) else _use(operand, joined)
        case Call(op, (Path(one), Path(other))) if op in _COMPARED or op == "in":
            joined.join(one, other)
        case Call("in", (Path(one), Call("list", items))):
            for item in items:
                joined.join(one, item.names) if isinstance(item, Path) else _use(item, joined)
        case Call(op, operands) if op in _COMPARED or op == "in":
            if not all(isinstance(operand, Path | Literal) for operand in operands):
                _use(tree, joined)
        case _:
            _use(tree, joined)


def _use(tree: Expression, joined: _Joined) -> None:
    for node in walk(tree):
        if isinstance(node, Path):
            joined.use(node.names)
