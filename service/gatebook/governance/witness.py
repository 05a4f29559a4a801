"""Looks for circumstances and a row under which rules allow: a witness, or the certainty that there is none.

Owns the search. What is open takes, one path after the other, values of which each stands for all that conditions
cannot tell from it: each constant it is compared with, what lies between two of them, and one that is none of them.
A branch ends where an allow cannot become true, or a deny cannot become false. Rules:

1. an unknown value is never tried: what it decides is decided by every value (Kleene's logic is monotonic);
2. `complete` says that every other value was tried too, in effect. It is False where an open value goes through a
   function or is calculated with, where two open values are ordered, where what is within one is read, and past
   `STEPS_MAX`;
3. no witness and not complete is no proof of anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, Final

import msgspec

from gatebook.expression.moments import NOW, TIME_MATCH, UNBOUNDED
from gatebook.expression.residual import residual
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.governance.conditions import ASKED, NOW_PATH, SELF, TIMES, UNREAD, is_only_compared
from gatebook.policy.casts import cast_value
from gatebook.policy.model import walk

STEPS_MAX = 1_000
"""Values tried in one search."""
LISTED_MAX = 4
"""Texts looked for in one open list, of which each choice is tried."""

COLUMN_NAMES = 3
"""Names of a path to a column, or to a value of a context; longer ones lead into a value."""

Names = tuple[str, ...]
Goal = tuple[Expression, bool]
"""An expression and what it must come to."""

_JOINED = frozenset(("and", "or", "not"))
_ORDERED = frozenset(("lt", "le", "gt", "ge"))
_EQUAL = frozenset(("eq", "ne"))
_FRESH_TEXT: Final = "other"
_FRESH: Final[Mapping[str, tuple[object, ...]]] = {
    "uuid": ("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001"),
    "timestamptz": ("2000-01-01T00:00:00Z", "2000-01-02T00:00:00Z"),
    "date": ("2000-01-01", "2000-01-02"),
    "int": (0, 1),
    "bigint": (0, 1),
    "numeric": (0, 1),
    "bool": (True, False),
    "text": (_FRESH_TEXT,),
    "text[]": ((), (_FRESH_TEXT,)),
}
_LATE = "9999-12-30 00:00:00.000000"


class Witness(msgspec.Struct, frozen=True):
    """What a request would have to say, beside who, what and why: values by their paths, such as `r.row.team`."""

    values: Mapping[Names, Any]


class Search(msgspec.Struct, frozen=True):
    """What a search came to."""

    witness: Witness | None
    complete: bool
    steps: int = 0


def search(
    goals: Sequence[Goal], types: Mapping[str, str], closed: frozenset[Names] = frozenset(), now: str = ""
) -> Search:
    """Looks for values of all open paths under which every goal is met.

    Args:
        goals: What must come to what.
        types: The types of the columns of the row.
        closed: Open paths that have no value, since who may state one may not state the others.
        now: The earliest time that counts, as a `Moment` is written; empty: any.
    """
    looking = _Looking(types, now)
    found = looking.descend(goals, dict.fromkeys(closed))
    values = None if found is None else {path: value for path, value in found.items() if value is not None}
    return Search(None if values is None else Witness(values), looking.complete, looking.steps)


class _Looking:
    """One search. Lives for one call."""

    def __init__(self, types: Mapping[str, str], now: str) -> None:
        self._types = types
        self._now = now
        self.steps = 0
        self.complete = True

    def descend(self, goals: Sequence[Goal], chosen: dict[Names, Any]) -> dict[Names, Any] | None:
        """Returns values that meet all goals, or None."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            self.complete = False
            return None
        left: list[Goal] = []
        for expression, wanted in goals:
            reduced = self._reduced(expression, chosen)
            if reduced is None or reduced is (not wanted):
                return None
            if not isinstance(reduced, bool):
                left.append((reduced, wanted))
        if not left:
            return chosen
        path = next(node.names for node in walk(left[0][0]) if isinstance(node, Path))
        for value in self._choices(path, left):
            found = self.descend(left, {**chosen, path: value})
            if found is not None:
                return found
        return None

    def _reduced(self, expression: Expression, chosen: Mapping[Names, Any]) -> bool | Expression | None:
        values: dict[str, Any] = {"row": {}, "ctx": {}, "sub": {}}
        for names, value in chosen.items():
            if names == NOW_PATH:
                values[NOW] = value
            elif names[1] == "row":
                values["row"][names[2]] = None if value is None else cast_value(self._types[names[2]], value)
            else:
                values[names[1]][names[2]] = value
        return residual(expression, {"r": values}, TIMES, lambda names: None if names in chosen else names)

    def _choices(self, path: Names, goals: Sequence[Goal]) -> list[Any]:
        atoms = _Atoms(path)
        for expression, _ in goals:
            atoms.note(expression)
        if path == NOW_PATH:
            return self._times(goals)
        if atoms.has_self and not is_only_compared(path, [expression for expression, _ in goals]):
            atoms.leave_out_self()
        if len(path) > COLUMN_NAMES or path[:2] == ASKED:
            self.complete = False  # what is within a value can be anything that a caller, or a row, says
            return []
        type_ = self._types.get(path[2], "") if path[1] == "row" else ""
        kinds = {self._types.get(other[2], "") if other[1] == "row" else "" for other in atoms.linked}
        alike = kinds <= {"text", ""} if type_ in ("text", "") else not kinds
        self.complete = self.complete and atoms.complete and alike and not (atoms.ordered and type_ == "uuid")
        values = [*atoms.values(type_), *_FRESH.get(type_, ())]
        if path[1] != "row":
            return [*values, *((0, True) if atoms.linked else ())]
        fit = [value for value in values if type_ and cast_value(type_, value) is not None]
        self.complete = self.complete and (bool(fit) or not type_)
        return fit or [None]  # what is no column of this dataset is unknown for every row

    def _times(self, goals: Sequence[Goal]) -> list[str]:
        bounds = {
            item.value
            for expression, _ in goals
            for node in walk(expression)
            if isinstance(node, Call) and node.op == TIME_MATCH
            for item in node.operands
            if isinstance(item, Literal) and isinstance(item.value, str) and item.value != UNBOUNDED
        }
        self.complete = self.complete and all(
            all(isinstance(item, Literal) or item == Path(NOW_PATH) for item in node.operands)
            for expression, _ in goals
            for node in walk(expression)
            if isinstance(node, Call) and node.op == TIME_MATCH
        )
        texts = {f"{bound}.{part}" for bound in bounds for part in ("000000", "000001")}
        texts |= {self._now or "0001-01-02 00:00:00.000000", _LATE}
        return sorted(text for text in texts if text >= self._now)


class _Atoms:
    """What the conditions compare one open path with."""

    def __init__(self, path: Names) -> None:
        self._path = Path(path)
        self._texts: set[str] = set()
        self._numbers: set[int | float] = set()
        self._sought: set[str] = set()
        self._bools = False
        self._lists_met: set[tuple[str, ...]] = set()
        self.linked: set[Names] = set()
        self.ordered = False
        self.complete = True

    def note(self, tree: Expression) -> None:
        """Notes the atoms of one tree."""
        match tree:
            case Call(op, operands) if op in _JOINED:
                self._bools = self._bools or self._path in operands
                for operand in operands:
                    self.note(operand)
            case Call(op, operands) if op in _EQUAL or op in _ORDERED:
                self._comparison(op, operands)
            case Call("in", (item, items)):
                self._membership(item, items)
            case Call():
                self._other(tree)
            case Path():
                self._bools = self._bools or tree == self._path
            case _:
                return

    @property
    def has_self(self) -> bool:
        """Tells whether what stands for the subject's id is among the constants."""
        return SELF in self._texts or SELF in self._sought

    def leave_out_self(self) -> None:
        """Leaves out what stands for the subject's id, which is ordered otherwise than the id is."""
        self._texts.discard(SELF)
        self._sought.discard(SELF)

    def _membership(self, item: Expression, items: Expression) -> None:
        match items:
            case Call("list", others):
                for other in others:
                    self._comparison("eq", (item, other))
            case Literal(tuple() as values):
                for value in values:
                    self._comparison("eq", (item, Literal(value)))
            case self._path if isinstance(item, Literal):
                self._seek(item.value)
            case _:
                self._other(Call("in", (item, items)))

    def _seek(self, value: object) -> None:
        if isinstance(value, str):
            self._sought.add(value)
        else:
            self.complete = False

    def _comparison(self, op: str, operands: Sequence[Expression]) -> None:
        match tuple(operands):
            case (Path() as one, Path() as other):
                if self._path in (one, other):
                    self.linked |= {one.names, other.names}
                    self.ordered = self.ordered or op in _ORDERED
                    self.complete = self.complete and op not in _ORDERED
            case (Path() as one, Literal(value)) | (Literal(value), Path() as one):
                self._constant(value)
                self.ordered = self.ordered or (op in _ORDERED and one == self._path)
            case _:
                self._other(Call(op, tuple(operands)))

    def _constant(self, value: object) -> None:
        # A constant of another path counts too: the two may be compared with each other.
        match value:
            case bool():
                self._bools = True
            case str() if value != UNREAD:
                self._texts.add(value)
            case int() | float():
                self._numbers.add(value)
            case tuple():
                texts = tuple(item for item in value if isinstance(item, str) and item != UNREAD)
                self._sought.update(texts)
                self._lists_met.add(texts)
                self.complete = self.complete and all(isinstance(item, str) for item in value)
            case _:
                pass

    def _other(self, tree: Expression) -> None:
        for node in walk(tree):
            if node == self._path:
                self.complete = False
            elif isinstance(node, Literal):
                self._constant(node.value)
                if isinstance(node.value, str) and "*" in node.value:
                    before = node.value.partition("*")[0]
                    self._texts.update((before, f"{before}x"))

    def values(self, type_: str) -> list[Any]:
        """Returns the values to try, those that meet an equality first."""
        values: list[Any] = [True, False] if self._bools else []
        values += sorted(self._texts) + sorted(self._numbers)
        if self._texts or self.linked or not (self._bools or self._numbers or self._sought):
            values += self._fresh_texts()
        if self._numbers:
            values += self._fresh_numbers(whole=type_ in ("int", "bigint"))
        if self._sought or type_ in ("text[]", "jsonb"):
            values += self._lists()
        return values

    def _fresh_texts(self) -> list[str]:
        fresh = _FRESH_TEXT
        while fresh in self._texts or fresh in self._sought:
            fresh += "s"
        if not self.ordered:
            return [fresh]
        return [
            fresh,
            "",
            *(f"{text} " for text in sorted(self._texts)),
            *(f"{text}\0" for text in sorted(self._texts)),
        ]

    def _fresh_numbers(self, *, whole: bool) -> list[int | float]:
        ordered = sorted(self._numbers)
        near: list[int | float] = [ordered[-1] + 1, ordered[0] - 1]
        if whole:
            near += [around for number in ordered for around in (int(number) + 1, int(number) - 1, int(number))]
        else:
            near += [(low + high) / 2 for low, high in pairwise(ordered)]
        return [number for number in dict.fromkeys(near) if number not in self._numbers]

    def _lists(self) -> list[tuple[str, ...]]:
        sought = sorted(self._sought | self._texts)
        self.complete = self.complete and len(sought) <= LISTED_MAX
        sought = sought[:LISTED_MAX]
        choices = [choice for size in range(len(sought) + 1) for choice in combinations(sought, size)]
        return [*choices, *sorted(self._lists_met - set(choices))]
