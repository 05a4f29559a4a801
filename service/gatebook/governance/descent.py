"""What descends from what: derivations as a graph over the columns of one policy set.

Owns what reported names stand for in a set, and which tags reach which column. Rules:

1. with `lineage.namespaces` in its `gatebook.yaml` a name stands for a dataset where its namespace is listed, without
   the prefix given there; without that block it stands for itself, whatever its namespace. A name that cannot be a
   dataset's leads on all the same, to what is made of it;
2. a tag reaches a column from every column that flows into it, over any number of steps and around circles;
3. it reaches it *clear* where on one of the ways no step masks;
4. a column of an input that the input is not known to have stands for all of its columns;
5. a tag that was taken off a column goes no further from there. What counts is what the column descended from then:
   whenever anything more flows in, the tag is back;
6. stores differ in whether case tells names apart. A name that is that of a declared dataset but for case stands for
   that one too, beside itself, and columns of one dataset whose names differ in case alone share what they have.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from gatebook.governance.ancestry import Ancestry
from gatebook.governance.lineage import Derivation, Lineage, Made, Name, Source
from gatebook.policy import names
from gatebook.policy.catalogue import Catalogue
from gatebook.policy.dataset import Dataset
from gatebook.policy.policy_set import PolicySet

Place = tuple[str, str]
"""A column of a dataset. Some stand for several: what leaves a dataset (`*`), what enters one (`>...`)."""

_NO_DATASET = "\0"
OUT = "*"
IN = ">"


class Flow(msgspec.Struct, frozen=True, order=True):
    """One step: what is in `source` comes to be in `target`."""

    target: Place
    source: Place
    masked: bool = False
    direct: bool = True


def folded(name: str) -> str:
    """Returns what names share that case, or the width of letters, alone tells apart."""
    return unicodedata.normalize("NFKC", name).casefold()


class Descent:
    """What descends from what in one policy set. Immutable but for memos that change no answer."""

    def __init__(self, policy_set: PolicySet, lineage: Lineage) -> None:
        """Takes a governed set, as its files declare it, and what is known of tables."""
        self._catalogue: Catalogue | None = policy_set.catalogue
        self._namespaces = policy_set.settings.lineage
        self.derivations: dict[str, list[Derivation]] = defaultdict(list)
        self.made: dict[str, dict[str, Made]] = defaultdict(dict)
        self.names: dict[str, Name] = {}
        self._by_fold: dict[str, list[str]] = defaultdict(list)
        for id_ in () if self._catalogue is None else self._catalogue.datasets:
            self._by_fold[folded(id_)].append(id_)
        for derivation in lineage.derivations:
            for key in self.keys(derivation.output):
                self.derivations[key].append(derivation)
                for column in derivation.columns:
                    known = self.made[key].get(column.name)
                    if known is None or column.type:
                        self.made[key][column.name] = column
        self._into: dict[Place, list[Flow]] = defaultdict(list)
        self._from: dict[Place, list[Flow]] = defaultdict(list)
        for flow in sorted(set(self._flows())):
            self._into[flow.target].append(flow)
            self._from[flow.source].append(flow)
        self.dropped: frozenset[tuple[Place, str]] = frozenset(
            ((one.dataset, one.column), one.tag)
            for one in lineage.reclassifications
            if one.policy_set == policy_set.name and self.basis((one.dataset, one.column)) == one.basis
        )
        self._tags = self._reached()
        self._parents: dict[str, dict[str, Derivation]] = {}
        declared = () if self._catalogue is None else self._catalogue.datasets
        self.ancestry = Ancestry({key: tuple(self.parents(key)) for key in self.derivations}, declared, self.called)

    def key(self, name: Name) -> str:
        """Returns the dataset that a name stands for, or the name itself in a form that no dataset has."""
        id_ = name.name
        if self._namespaces:
            prefix = self._namespaces.get(name.namespace)
            dotted = f"{prefix}." if prefix else ""
            id_ = id_.removeprefix(dotted) if prefix is not None and id_.startswith(dotted) else ""
        key = id_ if names.DATASET.fullmatch(id_) else f"{_NO_DATASET}{name}"
        self.names.setdefault(key, name)
        return key

    def keys(self, name: Name) -> tuple[str, ...]:
        """Returns the dataset that a name stands for, and those that are declared by another case of it."""
        key = self.key(name)
        return (key, *(other for other in self._by_fold.get(self._folded_id(name), ()) if other != key))

    def _folded_id(self, name: Name) -> str:
        whole = folded(name.name)
        if not self._namespaces:
            return whole
        prefix = self._namespaces.get(name.namespace)
        dotted = folded(f"{prefix}.") if prefix else ""
        return whole.removeprefix(dotted) if prefix is not None and whole.startswith(dotted) else ""

    def called(self, key: str) -> str:
        """Returns what to call a dataset: its id, or what jobs call one that has none here."""
        return str(self.names[key]) if key.startswith(_NO_DATASET) else key

    def declared(self, key: str) -> Dataset | None:
        """Returns a dataset as the catalogue declares it."""
        return None if self._catalogue is None else self._catalogue.datasets.get(key)

    def columns(self, key: str) -> frozenset[str]:
        """Returns the columns that a dataset is known to have."""
        dataset = self.declared(key)
        return frozenset(self.made.get(key, ())) | (frozenset() if dataset is None else frozenset(dataset.columns))

    def parents(self, key: str) -> dict[str, Derivation]:
        """Returns what a dataset was made of, each with the first derivation that says so."""
        if key not in self._parents:
            found: dict[str, Derivation] = {}
            for derivation in self.derivations.get(key, ()):
                for name in derivation.inputs:
                    for parent in self.keys(name):
                        found.setdefault(parent, derivation)
            found.pop(key, None)
            self._parents[key] = found
        return self._parents[key]

    def tags(self, place: Place) -> Mapping[str, bool]:
        """Returns the tags that reach a column by descent, each with whether it reaches it clear."""
        return self._tags.get(place, {})

    def sources(self, place: Place) -> tuple[Flow, ...]:
        """Returns what flows into a column from other datasets, or columns, in one step of a job."""
        found: dict[Place, Flow] = {}
        for flow in self._into.get(place, ()):
            inner = self._into.get(flow.source, ()) if flow.source[1].startswith(IN) else (flow,)
            for each in inner:
                found.setdefault(each.source, msgspec.structs.replace(each, target=place))
        return tuple(sorted(found.values()))

    def basis(self, place: Place) -> bytes:
        """Returns what a column descends from: SHA-256 over all steps that lead to it."""
        seen, pending = {place}, [place]
        steps: set[Flow] = set()
        while pending:
            for flow in self._into.get(pending.pop(), ()):
                steps.add(flow)
                if flow.source not in seen:
                    seen.add(flow.source)
                    pending.append(flow.source)
        return hashlib.sha256(msgspec.json.encode(sorted(steps))).digest()

    def keys_of_people(self) -> frozenset[Place]:
        """Returns the columns that name data subjects: those declared, and what is made of them as it is."""
        datasets = () if self._catalogue is None else self._catalogue.datasets.values()
        found = {(dataset.id, key) for dataset in datasets for key in dataset.subject_keys}
        pending = list(found)
        while pending:
            for flow in self._from.get(pending.pop(), ()):
                column = flow.target[1]
                if flow.direct and not flow.masked and not column.startswith((IN, OUT)) and flow.target not in found:
                    found.add(flow.target)
                    pending.append(flow.target)
        return frozenset(found)

    def _flows(self) -> Iterator[Flow]:
        used: set[str] = set()
        for key, derivations in self.derivations.items():
            columns = {*self.columns(key), ""}
            for derivation in derivations:
                named = {column.name for column in derivation.columns}
                gathered = (
                    (IN, derivation.every, columns),
                    (IN + derivation.key.hex(), derivation.rest, columns - named),
                )
                for hub, sources, targets in gathered:
                    if sources:
                        yield from (Flow((key, column), (key, hub)) for column in targets)
                        yield from self._steps((key, hub), sources, used)
                for column in derivation.columns:
                    yield from self._steps((key, column.name), column.sources, used)
        for key in self.derivations:
            yield from self._shared(key)
        for key in used:
            yield from (Flow((key, OUT), (key, column)) for column in {*self.columns(key), ""})

    def _steps(self, target: Place, sources: Iterable[Source], used: set[str]) -> Iterator[Flow]:
        for source in sources:
            for key in self.keys(source.dataset):
                used.add(key)
                column = source.column if source.column in self.columns(key) else OUT
                yield Flow(target, (key, column), source.masked, source.direct)

    def _shared(self, key: str) -> Iterator[Flow]:
        """Yields steps around the columns of a dataset that case alone tells apart."""
        alike: dict[str, list[str]] = defaultdict(list)
        for column in sorted(self.columns(key)):
            alike[folded(column)].append(column)
        for columns in alike.values():
            if len(columns) > 1:
                around = zip(columns, (*columns[1:], columns[0]), strict=True)
                yield from (Flow((key, target), (key, source)) for target, source in around)

    def _reached(self) -> dict[Place, dict[str, bool]]:
        reached: dict[Place, dict[str, bool]] = defaultdict(dict)
        pending: deque[Place] = deque()
        own: dict[Place, frozenset[str]] = {}
        for dataset in () if self._catalogue is None else self._catalogue.datasets.values():
            for column in dataset.columns.values():
                if column.tags:
                    own[dataset.id, column.name] = frozenset(column.tags)
                    pending.append((dataset.id, column.name))
        while pending:
            place = pending.popleft()
            held = {**reached.get(place, {}), **dict.fromkeys(own.get(place, ()), True)}
            for flow in self._from.get(place, ()):
                there = reached[flow.target]
                grown = False
                for tag, clear in held.items():
                    arrives = clear and not flow.masked
                    if (
                        (flow.target, tag) not in self.dropped
                        and there.get(tag) is not True
                        and there.get(tag) != arrives
                    ):
                        there[tag] = arrives
                        grown = True
                if grown:
                    pending.append(flow.target)
        return dict(reached)
