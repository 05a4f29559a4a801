"""Whether two policy sets give everybody the same answers, whoever asks, for whatever.

Owns the comparison, over the universe of guardrails (`anybody`, `possible`) and the roles of either set. Promises:

1. EQUIVALENT: for every request both allow the same columns, with the same masks and the same minimum group;
2. DIFFERENT: there is a request that the reference engine answers otherwise for one than for the other;
3. UNKNOWN: neither is known, and `unsaid` and `why` say what was too hard.

Answers are compared for every row. That a request without a row is then answered alike as well does not follow where a
condition makes a list of values of the row, or where masks or groups stand under conditions on the row in other rules:
this is UNKNOWN. What is guessed of a function is one guess in both sets where the same function has the same arguments
under the same links, else two that may differ, so that no guess makes sets EQUIVALENT.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from gatebook.engine.mask_order import MASKS_OF_COLUMN_MAX
from gatebook.expression.residual import reads_row
from gatebook.expression.tree import Call
from gatebook.governance.encode import named_texts
from gatebook.governance.possible import Asking, Possible, Spot
from gatebook.governance.prove import Prover
from gatebook.governance.rules import CONDITION
from gatebook.governance.shown import SOMEBODY, Answered, Draft, Shown, answered, draft_of, shown
from gatebook.governance.smt import Formula, Model, Solver
from gatebook.governance.symbolic import Guess
from gatebook.governance.texts import Texts
from gatebook.governance.unsaid import Unsaid, unsaid_of
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.bundle import MODEL_FILE, PURPOSES_FILE, SETTINGS_FILE
from gatebook.policy.dataset import Dataset
from gatebook.policy.guardrails import Form
from gatebook.policy.masks import MaskSpec
from gatebook.policy.model import walk
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.rule_text import read_condition
from gatebook.values import MaskKind, Rule

WHY_MAX = 20
"""How many reasons of an UNKNOWN are told."""
_ANY = Form()


class Sameness(enum.StrEnum):
    """What is known of two sets."""

    EQUIVALENT = "EQUIVALENT"
    DIFFERENT = "DIFFERENT"
    UNKNOWN = "UNKNOWN"


class Side(enum.StrEnum):
    """Which of two sets allows a request."""

    OLD = "old"
    NEW = "new"
    BOTH = "both"


class Differing(msgspec.Struct, frozen=True):
    """A request that two sets answer otherwise, and what each says. `shown` is the way in a set that allows it."""

    allowed_by: Side
    old: str
    new: str
    shown: Shown


class Compared(msgspec.Struct, frozen=True):
    """What is known of two sets, with a request where they differ, or what was too hard."""

    result: Sameness
    differing: Differing | None = None
    unsaid: tuple[Unsaid, ...] = ()
    why: tuple[str, ...] = ()


_SAME = Compared(Sameness.EQUIVALENT)


class _Pair(msgspec.Struct, frozen=True):
    """What each set says of one column, action and purpose; None: it allows nothing there."""

    old: Spot | None
    new: Spot | None

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Returns what there is."""
        return tuple(spot for spot in (self.old, self.new) if spot is not None)

    @property
    def shape(self) -> object:
        """Tells apart what is asked within one dataset."""
        return tuple(_shape(spot) for spot in (self.old, self.new))


def compare(old: PolicySet, new: PolicySet, pause: Pause = no_pause) -> Compared:
    """Compares two governed sets.

    Raises:
        NotInstalledError: there is no solver.
    """
    why = dict.fromkeys(_unlike_sets(old, new))
    if why:
        return Compared(Sameness.UNKNOWN, why=tuple(why))
    comparison = _Comparison(old, new)
    unsaid: dict[Unsaid, None] = {}
    for name in {**_datasets(old), **_datasets(new)}:
        declared = [_datasets(some)[name] for some in (old, new) if name in _datasets(some)]
        if len(declared) > 1 and _declared(old, name) != _declared(new, name):
            why[f"`{name}` is not declared alike in both sets: its columns, keys, ceiling, notice or limits"] = None
            continue
        for found in paced(comparison.compared(declared[0]), pause):
            if found.differing is not None:
                return found
            unsaid |= dict.fromkeys(found.unsaid)
            why |= dict.fromkeys(found.why)
    if not unsaid and not why:
        return _SAME
    return Compared(Sameness.UNKNOWN, unsaid=tuple(unsaid), why=tuple(why)[:WHY_MAX])


class _Comparison:
    """Compares two sets, dataset by dataset."""

    def __init__(self, old: PolicySet, new: PolicySet) -> None:
        self._old, self._new = old, new
        self._prover = Prover(old, Solver(Texts({*named_texts(old), *named_texts(new), SOMEBODY})))
        self._possible = (self._prover.possible, Possible(new, self._prover.solver))
        asked = _links_asked(old) | _links_asked(new)
        self._are_linked_alike = _links(old, asked) == _links(new, asked)

    def compared(self, dataset: Dataset) -> Iterator[Compared]:
        """Yields what is known of each part of a dataset."""
        asking = self._prover.possible.asking(dataset)
        askings = (asking, asking.under(self._new, linked_alike=self._are_linked_alike))
        for pair in self._pairs(dataset.id):
            if not (self._are_linked_alike and _are_same(pair)):
                yield self._ask(pair, askings)

    def _pairs(self, name: str) -> Iterator[_Pair]:
        """Yields what the sets say of each column, action and purpose, each pair of rules and types once."""
        found: list[dict[tuple[str, str, str], Spot]] = [{}, {}]
        for possible, policy_set, spots in zip(self._possible, (self._old, self._new), found, strict=True):
            declared = _datasets(policy_set).get(name)
            for spot in () if declared is None else possible.spots(_ANY, declared):
                for column in spot.columns:
                    for purpose in spot.purposes:
                        one = msgspec.structs.replace(spot, columns=(column,), purposes=(purpose,))
                        spots[column.name, spot.cell.action, purpose] = one
        pairs = (_Pair(found[0].get(key), found[1].get(key)) for key in {**found[0], **found[1]})
        yield from {pair.shape: pair for pair in pairs}.values()

    def _ask(self, pair: _Pair, askings: tuple[Asking, Asking]) -> Compared:
        s = self._prover.solver
        old, new = (
            {} if spot is None else _answers(s, spot, asking)
            for spot, asking in zip((pair.old, pair.new), askings, strict=True)
        )
        differs = s.any_of(s.negation(s.same(old.get(key, False), new.get(key, False))) for key in {**old, **new})
        guesses = tuple({id(guess): guess for guess in self._guesses(pair, askings)}.values())
        spot = pair.spots[0]

        def show(model: Model) -> Differing | None:
            return self._confirmed(draft_of(model, askings[0], spot))

        differing, undecided = self._prover.settle([differs], askings, guesses, show)
        if differing is not None:
            return Compared(Sameness.DIFFERENT, differing)
        if undecided:
            unsaid = [
                it
                for policy_set, some in ((self._old, pair.old), (self._new, pair.new))
                for it in (() if some is None else unsaid_of(policy_set, some, _ANY, guesses))
            ]
            why = () if unsaid else (f"the solver did not decide `{spot.columns[0].node}` within its limit of steps",)
            return Compared(Sameness.UNKNOWN, unsaid=tuple(unsaid), why=why)
        hard = tuple(self._hard_without_row(pair))
        return Compared(Sameness.UNKNOWN, why=hard) if hard else _SAME

    def _guesses(self, pair: _Pair, askings: tuple[Asking, Asking]) -> Iterator[Guess]:
        for spot, asking in zip((pair.old, pair.new), askings, strict=True):
            if spot is not None:
                yield from asking.guesses([rule.fields[CONDITION] for rule in spot.rules], _ANY)

    def _hard_without_row(self, pair: _Pair) -> Iterator[str]:
        """Yields why requests without a row might be answered otherwise, where all with one are answered alike."""
        place = f"`{pair.spots[0].columns[0].node}`"
        if _meet_many(pair):
            yield f"more than {MASKS_OF_COLUMN_MAX} masks meet on {place}"
        if pair.old is None or pair.new is None:
            return  # nobody is allowed anything of any row, and so nothing without
        obliging = [[*spot.cell.rules.masks, *spot.cell.rules.groups] for spot in pair.spots]
        trees = {
            rule: read_condition(self._old.model, rule.fields[CONDITION]) for spot in pair.spots for rule in spot.rules
        }
        if any(
            isinstance(it, Call) and it.op == "list" and reads_row(it) for tree in trees.values() for it in walk(tree)
        ):
            yield f"a condition on {place} makes a list of values of the row, which a request without a row leaves open"
        if any(spot.cell.own for spot in pair.spots) and _shape(pair.old) != _shape(pair.new):
            yield f"{place} has tags by lineage and others of its own, which masks answer apart"
        same = (
            self._are_linked_alike
            and _said(obliging[0]) == _said(obliging[1])
            and pair.old.cell.masked == pair.new.cell.masked
        )
        if not same and any(reads_row(trees[rule]) for rules in obliging for rule in rules):
            yield f"masks or groups of {place} are other rules, under conditions on the row: write them alike"

    def _confirmed(self, draft: Draft) -> Differing | None:
        """Asks the reference of both sets; None where they answer alike."""
        old, new = answered(self._old, draft), answered(self._new, draft)
        if _told(old) == _told(new):
            return None
        if old is not None:
            side = Side.OLD if new is None else Side.BOTH
            return Differing(side, _told(old), _told(new), shown(self._old, draft, old.rule))
        return None if new is None else Differing(Side.NEW, "", _told(new), shown(self._new, draft, new.rule))


def _answers(s: Solver, spot: Spot, asking: Asking) -> dict[object, Formula]:
    """Returns, of each thing that an answer can say, when it says so."""
    allowed = asking.allowed(spot)
    found: dict[object, Formula] = {"": allowed}
    for spec, reached in asking.masks(spot).items():
        if spec.kind is not MaskKind.NONE:
            found[spec] = s.all_of((allowed, reached))
    for k, demanded in asking.groups(spot).items():
        found[k] = s.all_of((allowed, demanded))
    return found


def _told(answer: Answered | None) -> str:
    """Returns what an answer says, in words; empty where it denies."""
    if answer is None:
        return ""
    mask, k = answer.mask, answer.group
    group = f", in groups of {k} at least" if k else ""
    return ("in clear" if mask.kind is MaskKind.NONE else f"as {_mask(mask)}") + group


def _mask(spec: MaskSpec) -> str:
    return ":".join((spec.kind.name.lower(), *map(str, spec.arguments)))


def _unlike_sets(old: PolicySet, new: PolicySet) -> Iterator[str]:
    """Yields what is not alike in two sets beside rules, links and datasets, so that equal rules say little."""
    if old.model != new.model and old.files.get(MODEL_FILE) != new.files.get(MODEL_FILE):
        yield f"`{MODEL_FILE}` is not the same in both sets"
    if _settings(old) != _settings(new):
        yield f"`{SETTINGS_FILE}` lets callers state other attributes, or reads requests otherwise"
    if _purposes(old) != _purposes(new):
        yield f"`{PURPOSES_FILE}` declares other purposes, or other consents"


def _settings(policy_set: PolicySet) -> object:
    settings = policy_set.settings
    sources = {name: (frozenset(it.context), frozenset(it.subject)) for name, it in settings.attribute_sources.items()}
    return (sources, settings.matcher, settings.request, settings.role_patterns, settings.role_conditions)


def _purposes(policy_set: PolicySet) -> object:
    purposes = policy_set.purposes
    return None if purposes is None else {name: purposes.consent_mode(name) for name in purposes.names}


def _datasets(policy_set: PolicySet) -> Mapping[str, Dataset]:
    return {} if policy_set.catalogue is None else policy_set.catalogue.datasets


def _declared(policy_set: PolicySet, name: str) -> object:
    """Returns all of a dataset but tags, which are links, and what is said to people."""
    dataset = _datasets(policy_set)[name]
    types = {column.name: (column.type, column.inherits) for column in dataset.columns.values()}
    notice = None if policy_set.catalogue is None else policy_set.catalogue.notice_of(dataset)
    period = None if notice is None else (notice.effective_time, notice.end_time)
    return (types, msgspec.structs.replace(dataset, columns={}, description="", line=0), period)


def _links_asked(policy_set: PolicySet) -> frozenset[str]:
    """Returns the links that decide who is meant by rules, and those that conditions ask for."""
    model = policy_set.model
    trees = (read_condition(model, text) for text in {rule.fields[CONDITION] for rule in policy_set.rules})
    called = {it.op for tree in trees for it in walk(tree) if isinstance(it, Call) and it.op in model.roles}
    return frozenset(("g", *called))


def _links(policy_set: PolicySet, kinds: frozenset[str]) -> frozenset[tuple[object, ...]]:
    return frozenset((it.gtype, it.child, it.parent, it.domains) for it in policy_set.edges if it.gtype in kinds)


def _shape(spot: Spot | None) -> object:
    if spot is None:
        return None
    return (_said(spot.rules), spot.cell.masked, spot.cell.own, spot.columns[0].type)


def _said(rules: Iterable[Rule]) -> frozenset[tuple[str, ...]]:
    """Returns rules as they are written, without regard to order and place."""
    return frozenset((rule.ptype, *rule.fields) for rule in rules)


def _are_same(pair: _Pair) -> bool:
    """Tells whether both sets have the very same rules there."""
    return (
        pair.old is not None and pair.new is not None and _shape(pair.old) == _shape(pair.new) and not _meet_many(pair)
    )


def _meet_many(pair: _Pair) -> bool:
    """Tells whether masks are so many that it counts how often each stands there."""
    return any(len(spot.cell.rules.masks) > MASKS_OF_COLUMN_MAX for spot in pair.spots)
