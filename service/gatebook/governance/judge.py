"""Whether subjects of whom conditions leave the same could be allowed, and by which rule.

Owns one question: is there a request that some allow allows, that no deny denies, and whose column gets the mask
that a tag demands? It is asked twice: of rows about anybody, then of rows about the subject alone. Answers are
remembered by what is left of the conditions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import msgspec

from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.governance.conditions import UNREAD, Part
from gatebook.governance.witness import Goal, Search, Witness, search
from gatebook.policy.dataset import Dataset
from gatebook.policy.model import walk
from gatebook.policy.settings import AttributeSource, Settings

Names = tuple[str, ...]
STEPS_TOTAL_MAX = 2_000_000
"""Values tried in all searches of one analysis, some minutes; past it whoever is not decided yet is possible."""


class Level(enum.IntEnum):
    """How far somebody could be allowed."""

    NOBODY = 0
    OWN = 1
    """Rows about the subject alone, at most."""
    POSSIBLE = 2
    """Not decided, and so it counts."""
    CERTAIN = 3
    """A request is known that the rules allow."""


class Left(msgspec.Struct, frozen=True):
    """What is left of the rules that speak of a cell: of allows, denies, and, where one is demanded, masks.

    An allow that is True stands with it. `id` stands for their id.
    """

    allows: tuple[Part, ...]
    denies: tuple[Part, ...]
    masks: tuple[Part, ...] | None
    id: str

    @property
    def key(self) -> tuple[object, ...]:
        """Tells apart what is left."""
        masks = None if self.masks is None else tuple(part.key for part in self.masks)
        return (tuple(part.key for part in self.allows), tuple(part.key for part in self.denies), masks, self.id)


class Judged(msgspec.Struct, frozen=True):
    """What subjects come to; `allow` is the place of the allow that a `witness` needs, `caller` who may state it."""

    level: Level
    allow: int = 0
    witness: Witness | None = None
    caller: str = ""


class Judge:
    """Answers, and remembers, for one policy set."""

    def __init__(self, settings: Settings, now: str) -> None:
        """Takes who may state what, and the earliest time that counts."""
        self._now = now
        self._sources = _widest(settings)
        self._judged: dict[tuple[object, ...], Judged] = {}
        self._columns: dict[str, frozenset[str]] = {}
        self._steps = 0

    def judge(self, left: Left, dataset: Dataset) -> Judged:
        """Answers for one cell of a dataset."""
        parts = (*left.allows, *left.denies, *(left.masks or ()))
        columns = sorted(frozenset[str]().union(*map(self._columns_of, parts)))
        key = (left.key, self.shape(dataset, columns))
        judged = self._judged.get(key)
        if judged is None:
            judged = self._judged[key] = self._judge(left, dataset)
        return judged

    def beyond(self, left: Left, instead: Left, dataset: Dataset) -> Judged | None:
        """Returns how `left` allows what `instead` of it does not, if a request is found that shows it.

        It is OWN where the row is about the subject alone, else CERTAIN.
        """
        types = {name: column.type for name, column in dataset.columns.items()}
        id_ = left.id if left.id != UNREAD else instead.id
        about_others = _about_others(id_, dataset)
        for rows, level in ((about_others, Level.CERTAIN), ([()], Level.OWN)):
            for refusing in _refusals(instead):
                refused = [(*row, *refusing) for row in rows]
                found, _ = self._find(left, types, refused)
                if found is not None:
                    return msgspec.structs.replace(found, level=Level.CERTAIN if about_others == [()] else level)
        return None

    def shape(self, dataset: Dataset, columns: Iterable[str]) -> tuple[object, ...]:
        """Returns what of a dataset counts where conditions read these columns; many datasets are alike."""
        known = dataset.columns
        read = tuple((name, known[name].type if name in known else "") for name in columns)
        return (read, tuple((key, known[key].type) for key in dataset.subject_keys))

    def _columns_of(self, part: Part) -> frozenset[str]:
        found = self._columns.get(part.key)
        if found is None:
            tree = part.left if isinstance(part.left, Call | Path) else Literal(None)
            paths = (node.names for node in walk(tree) if isinstance(node, Path))
            found = self._columns[part.key] = frozenset(names[2] for names in paths if names[1] == "row")
        return found

    def _judge(self, left: Left, dataset: Dataset) -> Judged:
        types = {name: column.type for name, column in dataset.columns.items()}
        about_others = _about_others(left.id, dataset)
        found, decided = self._find(left, types, about_others)
        if found is not None:
            return found
        if not decided:
            return Judged(Level.POSSIBLE)
        if about_others == [()]:
            return Judged(Level.NOBODY)
        found, decided = self._find(left, types, [()])
        if found is not None:
            return msgspec.structs.replace(found, level=Level.OWN)
        return Judged(Level.NOBODY if decided else Level.OWN)

    def _find(
        self, left: Left, types: Mapping[str, str], rows: Sequence[tuple[Goal, ...]]
    ) -> tuple[Judged | None, bool]:
        """Returns who is certainly allowed, or None and whether that is decided."""
        decided = True
        denies: list[Goal] = [(part.left, False) for part in left.denies if not isinstance(part.left, bool | None)]
        for masked in _mask_goals(left):
            for place, part in enumerate(left.allows):
                allow: list[Goal] = [] if part.left is True else [(_expression(part.left), True)]
                for row in rows:
                    goals = [*allow, *row, *masked, *denies]
                    found = self._under(goals, types, place)
                    if isinstance(found, Judged):
                        return found, True
                    decided = decided and found
        # A mask that hides applies also where its condition is unknown, which a search does not try.
        if decided and left.masks is not None and any(part.left is not True for part in left.masks):
            unmasked = msgspec.structs.replace(left, masks=None)
            found_unmasked, decided = self._find(unmasked, types, rows)
            decided = decided and found_unmasked is None
        return None, decided

    def _under(self, goals: list[Goal], types: Mapping[str, str], place: int) -> Judged | bool:
        """Searches under each source of attributes; returns whether there is certainly nothing."""
        paths = frozenset(
            node.names for goal, _ in goals for node in walk(goal) if isinstance(node, Path) and node.names[1] != "row"
        )
        decided = True
        for closed, caller in self._closed(paths).items():
            if self._steps > STEPS_TOTAL_MAX:
                return False
            found: Search = search(goals, types, closed, self._now)
            self._steps += found.steps
            if found.witness is not None:
                stated = any(names[1] in ("ctx", "sub") for names in found.witness.values)
                return Judged(Level.CERTAIN, place, found.witness, caller if stated else "")
            decided = decided and found.complete
        return decided

    def _closed(self, paths: frozenset[Names]) -> dict[frozenset[Names], str]:
        """Returns, for each source of attributes, which of the paths it cannot state."""
        return {
            frozenset(
                names
                for names in paths
                if (names[1] == "ctx" and names[2] not in source.context)
                or (names[1] == "sub" and names[2] not in source.subject)
            ): caller
            for caller, source in reversed(self._sources)
        }


def _mask_goals(left: Left) -> list[list[Goal]]:
    """Returns the goals of which one set must be met so that the mask which a tag demands is there."""
    if left.masks is None or any(part.left is True for part in left.masks):
        return [[]]
    return [[(_expression(part.left), True)] for part in left.masks if part.left is not None]


def _refusals(left: Left) -> list[tuple[Goal, ...]]:
    """Returns the goals of which one is met by a request that is certainly not allowed."""
    refusals: list[tuple[Goal, ...]] = []
    if all(not isinstance(part.left, bool | None) for part in left.allows):
        refusals.append(tuple((_expression(part.left), False) for part in left.allows))
    return [*refusals, *(((_expression(part.left), True),) for part in left.denies)]


def _about_others(id_: str, dataset: Dataset) -> list[tuple[Goal, ...]]:
    """Returns the goals of which one is met by each row that is about somebody else; of figures, every row is."""
    rows: list[tuple[Goal, ...]] = []
    for key in dataset.subject_keys:
        type_ = dataset.columns[key].type
        own = Literal((id_,) if type_ == "text[]" else id_)
        if type_ in ("int", "bigint"):
            return [()]
        rows.append(((Call("ne", (Path(("r", "row", key)), own)), True),))
    return rows or [()]


def _expression(left: object) -> Expression:
    return left if isinstance(left, Literal | Path | Call) else Literal(bool(left))


def _widest(settings: Settings) -> list[tuple[str, AttributeSource]]:
    """Returns who may state what, without those who may state no more than another."""
    every = [("", AttributeSource()), *settings.attribute_sources.items()]
    kept: list[tuple[str, AttributeSource]] = []
    for caller, source in sorted(every, key=lambda pair: -len(tuple(chain(pair[1].context, pair[1].subject)))):
        if not any(source.context <= it.context and source.subject <= it.subject for _, it in kept):
            kept.append((caller, source))
    return kept
