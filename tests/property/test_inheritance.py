"""What tables inherit, on random derivations: against its definition, and that it only ever narrows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property.test_audience import ABLE, allowed_by_force, ask, everything, levels
from tests.property.whole_sets import directories, policies, snapshot_of, tried

from gatebook.audit.entry import EPOCH, to_timestamp
from gatebook.audit.lineage_entry import derivation_message, derivation_of
from gatebook.engine.snapshot import Snapshot
from gatebook.governance.audience import Audiences
from gatebook.governance.descent import Descent
from gatebook.governance.inheritance import effective
from gatebook.governance.lineage import Derivation, Lineage, Made, Name, Source
from gatebook.policy import names
from gatebook.policy.catalogue import Catalogue
from gatebook.revisions.validate import build_draft
from gatebook.values import AccessRequest, Decision, Effect, Entity, MaskKind

COLUMNS = {
    "t.rows": ("who", "team", "level", "active"),
    "t.sums": ("team", "level"),
    "d.one": ("a", "b"),
    "d.two": ("a", "b", "odd name"),
    "lake.raw": ("x",),
}
OUTPUTS = ("t.rows", "t.sums", "d.one", "d.two")
Step = tuple[tuple[str, str], tuple[str, str], bool]


def sources() -> st.SearchStrategy[tuple[Source, ...]]:
    """Draws sources: columns that are there, that are not, and all of a dataset."""
    one = st.sampled_from((*OUTPUTS, *OUTPUTS, *OUTPUTS, "lake.raw")).flatmap(
        lambda name: st.builds(
            Source,
            st.just(Name("w", name)),
            st.sampled_from((*COLUMNS[name], *COLUMNS[name], "nowhere", "")),
            st.booleans(),
            st.booleans(),
        )
    )
    return st.lists(one, max_size=2, unique=True).map(tuple)


@st.composite
def derivations(draw: st.DrawFn) -> Derivation:
    """Draws how a table was made."""
    output = draw(st.sampled_from(OUTPUTS))
    made = draw(st.lists(st.sampled_from(COLUMNS[output]), unique=True))
    columns = tuple(Made(name, draw(st.sampled_from(("text", "int", ""))), draw(sources())) for name in sorted(made))
    rest = tuple(Source(Name("w", name)) for name in draw(st.lists(st.sampled_from(OUTPUTS), max_size=1)))
    return Derivation(Name("w", output), columns, draw(sources()), rest, run_id="r")


lineages = st.lists(derivations(), min_size=1, max_size=5).map(lambda some: Lineage(tuple(some)))
BARE = snapshot_of("p, role:a, t.rows, read, *, True, allow\n", b'{"type": "user", "id": "ana"}\n').policy_set


def steps_of(declared: Catalogue, lineage: Lineage) -> set[Step]:
    """Returns every single step of all derivations, from column to column."""
    known: dict[str, set[str]] = {name: {*dataset.columns, ""} for name, dataset in declared.datasets.items()}
    for derivation in lineage.derivations:
        found = known.setdefault(derivation.output.name, {""})
        found.update(column.name for column in derivation.columns)
    steps: set[Step] = set()

    def add(target: str, columns: Iterable[str], flows: Sequence[Source]) -> None:
        for column, source in product(columns, flows):
            there = known.get(source.dataset.name, {""})
            for each in (source.column,) if source.column in there and source.column else there:
                steps.add(((target, column), (source.dataset.name, each), source.masked))

    for derivation in lineage.derivations:
        output = derivation.output.name
        add(output, known[output], derivation.every)
        add(output, known[output] - {column.name for column in derivation.columns}, derivation.rest)
        for made in derivation.columns:
            add(output, (made.name,), made.sources)
    return steps


def by_definition(declared: Catalogue, lineage: Lineage) -> dict[tuple[str, str], dict[str, bool]]:
    """Returns which tags reach which column, and whether clear: every single step followed until nothing changes."""
    steps = steps_of(declared, lineage)
    own = {
        (dataset.id, column.name): set(column.tags)
        for dataset in declared.datasets.values()
        for column in dataset.columns.values()
    }
    reached: dict[tuple[str, str], dict[str, bool]] = {}
    grown = True
    while grown:
        grown = False
        for target, source, masked in steps:
            held = {**reached.get(source, {}), **dict.fromkeys(own.get(source, ()), True)}
            there = reached.setdefault(target, {})
            for tag, clear in held.items():
                arrives = there.get(tag, False) or (clear and not masked)
                if there.get(tag) != arrives:
                    there[tag], grown = arrives, True
    return reached


@settings(max_examples=60, deadline=None)
@given(lineages)
def test_tags_reach_what_the_definition_says(lineage: Lineage) -> None:
    """The tags of each column, and whether they come clear, are those that following every single step finds."""
    assert BARE.catalogue is not None
    expected = by_definition(BARE.catalogue, lineage)
    descent = Descent(BARE, lineage)

    for dataset, columns in COLUMNS.items():
        for column in columns:
            assert descent.tags((dataset, column)) == expected.get((dataset, column), {})


@settings(max_examples=60, deadline=None)
@given(lineages)
def test_what_is_left_is_what_all_ancestors_leave(lineage: Lineage) -> None:
    """Ceiling, retention, purposes and sensitivity are within those of each declared ancestor; unknown ones seal."""
    declared, found = BARE.catalogue, effective(BARE, lineage).catalogue
    assert declared is not None
    assert found is not None
    parents = {
        name: {
            source.dataset.name
            for derivation in lineage.derivations
            if derivation.output.name == name
            for source in (*derivation.every, *derivation.rest, *(s for c in derivation.columns for s in c.sources))
        }
        for name in COLUMNS
    }
    for name in COLUMNS:
        ancestors, pending = {name}, [name]
        while pending:
            further = parents[pending.pop()] - ancestors
            ancestors |= further
            pending += further
        kept = [declared.datasets[one] for one in ancestors if one in declared.datasets]
        dataset = found.datasets.get(name)
        if dataset is None:
            assert name not in declared.datasets
            continue
        for one in kept:
            assert set(dataset.ceiling.roles) <= set(one.ceiling.roles)
            assert one.ceiling.people_max is None or (dataset.ceiling.people_max or 0) <= one.ceiling.people_max
            assert dataset.retention_days <= one.retention_days
            assert dataset.sensitivity >= one.sensitivity
            assert set(dataset.purposes) <= set(one.purposes)
        if "lake.raw" in ancestors:
            assert (dataset.purposes, bool(dataset.sealed_by)) == ((), True)


@settings(max_examples=60, deadline=None)
@given(lineages)
def test_an_entry_holds_a_derivation_whole(lineage: Lineage) -> None:
    """What is read back from an entry is what was written."""
    for derivation in lineage.derivations:
        back = derivation_of(derivation_message(derivation), 0, to_timestamp(EPOCH))
        assert back.key == derivation.key


def inheriting(policy: str, people: bytes, lineage: Lineage) -> tuple[Snapshot, Snapshot]:
    """Returns a set without its lineage, and with it."""
    bare = snapshot_of(policy, people)
    return bare, build_draft(bare.policy_set, "", bare.directory, lineage)


def shown(decision: Decision) -> dict[str, tuple[int, int]]:
    """Returns the columns that may be had: how strict their masks are (1 the strictest), and the minimum group."""
    group = 0 if decision.minimum_group is None else decision.minimum_group.k
    return {
        outcome.column: (int(outcome.masks[0].kind) if outcome.masks else int(MaskKind.NONE), group)
        for outcome in decision.columns
        if outcome.effect is Effect.ALLOW
    }


ANA = b'{"type": "user", "id": "ana", "groups": ["role:a"]}\n'
GRANTED_BY_TAG = "p, role:a, tag:plain, read, *, True, allow\n"
DEMANDED = "p, role:a, t.rows, read, *, True, allow\np2, role:a, tag:plain, read, *, True, none\n"


def between(target: str, source: str) -> Lineage:
    """Returns what is known where one column was made of another."""
    (into, column), (out_of, field) = ((it.rpartition(".")[0], it.rpartition(".")[2]) for it in (target, source))
    return Lineage((Derivation(Name("w", into), (Made(column, "", (Source(Name("w", out_of), field),)),)),))


@example(GRANTED_BY_TAG, ANA, between("t.sums.team", "t.rows.team"))
@example(DEMANDED, ANA, between("t.rows.level", "t.rows.team"))
@settings(max_examples=25, deadline=None)
@given(policies(), directories(), lineages)
def test_a_derivation_only_narrows(policy: str, people: bytes, lineage: Lineage) -> None:
    """No request about a declared table that was denied is allowed, and none is shown more, whatever was derived."""
    before, after = inheriting(policy, people, lineage)
    for (caller, context, stated), row in tried(policy, len(policy), 12):
        for subject, dataset, action, purpose in everything(before):
            request = AccessRequest(
                subject=Entity(subject.type, subject.id, stated),
                action=action,
                resource=dataset,
                purpose=purpose,
                context=context,
                row=row,
                enforcer=ABLE,
                allow_partial=True,
            )
            had, has = shown(ask(before, request, caller)), shown(ask(after, request, caller))
            assert has.keys() <= had.keys()
            assert all(has[column][0] <= had[column][0] for column in has)
            assert all(has[column][1] >= had[column][1] for column in has if has.keys() == had.keys())


@settings(max_examples=15, deadline=None)
@given(policies(), directories(), lineages)
def test_an_audience_misses_nobody_of_what_inherits(policy: str, people: bytes, lineage: Lineage) -> None:
    """Whoever is allowed a column of a set with its lineage is in the audience of it."""
    _, after = inheriting(policy, people, lineage)
    assert after.directory is not None
    found = levels(Audiences(after.policy_set, after.directory))

    assert allowed_by_force(after, policy).keys() <= found.keys()


def test_names_of_inherited_tags_are_nobody_elses() -> None:
    """No tag that a catalogue may declare has the node of an inherited one."""
    assert names.TAG.fullmatch("~content") is None
    assert names.plain_tag(names.inherited_node("tag:content.prompt")) == "tag:content.prompt"
