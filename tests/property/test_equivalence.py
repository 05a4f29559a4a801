"""Equivalence: random sets and changes of them, against brute force with the reference engine.

Nothing is EQUIVALENT of which brute force finds a request that is answered otherwise, with a row or without, and every
DIFFERENT is one.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.governed import GOVERNED_MODEL
from tests.property import whole_sets
from tests.property.test_guardrails import asked_of, circumstances, condition, policy_of, rows, somebodies

from gatebook.engine.obligations import oblige
from gatebook.engine.reference import Reference
from gatebook.governance.equivalence import Compared, Sameness, Side, compare
from gatebook.governance.request import ABLE
from gatebook.policy.casts import cast_row
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet, load
from gatebook.values import Effect, MaskKind

SEEDS = 40
TRIED = 150
PURPOSES = ("train", "train.eval", "cost")
COMMON = """p, role:a, t.rows, read, *, r.sub.team == 'x', allow
p2, role:a, tag:secret, read, *, True, nullify
p3, role:a, t.rows, read, cost, True, 3
"""


def set_of(policy: str, **changed: str) -> PolicySet:
    """Returns a set with these rules; `changed` replaces other files."""
    files = {
        "model.conf": GOVERNED_MODEL,
        "policy.csv": policy,
        "gatebook.yaml": changed.get("settings", whole_sets.SETTINGS),
        "catalogue.yaml": changed.get("catalogue", whole_sets.CATALOGUE),
        "purposes.yaml": changed.get("purposes", whole_sets.PURPOSES),
    }
    return load({name: text.encode() for name, text in files.items()}, accepted=True)


def rephrased(drawn: random.Random, policy: str) -> str:
    """Says the same otherwise: in another order, twice, and by conditions that mean the same."""
    lines = policy.splitlines()
    drawn.shuffle(lines)
    lines += drawn.choices(lines, k=1)
    told = []
    for line in lines:
        parts = line.split(", ")
        if parts[0] == "p" and parts[-2] not in ("True", "False") and "," not in parts[-2]:
            meant = ", ".join(parts[5:-1])
            parts[5:-1] = [drawn.choice((meant, f"!(!({meant}))", f"({meant}) && True", f"({meant}) || False"))]
        told.append(", ".join(parts))
    return "".join(f"{line}\n" for line in told)


def changed(drawn: random.Random, policy: str) -> str:
    """Changes one line: its end, its role or its condition, or leaves it out, or adds another."""
    lines = policy.splitlines()
    place = drawn.randrange(len(lines))
    parts = lines[place].split(", ")
    kind = drawn.choice(("drop", "add", "role", "condition", "condition", "weaker"))
    if kind == "drop" and len(lines) > 1:
        del lines[place]
    elif kind == "add" or parts[0] == "g":
        lines.append(policy_of(drawn).splitlines()[-1])
    elif kind == "role":
        lines[place] = ", ".join([parts[0], drawn.choice(("role:a", "role:b", "role:c")), *parts[2:]])
    else:
        old = ", ".join(parts[5:-1])
        other = condition(drawn)
        new = other if kind == "condition" else f"({old}) {drawn.choice(('&&', '||'))} ({other})"
        lines[place] = ", ".join([*parts[:5], new, parts[-1]])
    return "".join(f"{line}\n" for line in lines)


def answer(policy_set: PolicySet, asked: tuple[Any, ...]) -> object:
    """Returns what the reference answers: nothing, or mask and group; written once more, for itself."""
    subject, (caller, context, stated), row, dataset_id, column, action, purpose = asked
    catalogue = policy_set.catalogue
    assert catalogue is not None
    dataset = catalogue.datasets[dataset_id]
    believed = policy_set.settings.believed(caller)
    attributes = {k: v for k, v in stated.items() if k in believed.subject} | dict(subject.attributes)
    reference = Reference(policy_set, Directory("", {subject.id: subject}))
    (verdict,) = reference.evaluate_columns(
        subject=subject.id, attributes=attributes, columns=[column.node], action=action, purpose=purpose,
        context={k: v for k, v in context.items() if k in believed.context},
        row=None if row is None else cast_row(dataset, row),
    )  # fmt: skip
    if verdict.effect is not Effect.ALLOW:
        return None
    obliged = oblige(dataset, (verdict,), ABLE, key_id="k", mask_tags=catalogue.mask_tags)
    if obliged.failed is not None:
        return None
    masks = [(it.kind, dict(it.parameters)) for it in obliged.columns[0].masks if it.kind is not MaskKind.NONE]
    return (masks[:1] if row is not None else [], obliged.minimum_group)


def difference(old: PolicySet, new: PolicySet, texts: str, seed: int) -> tuple[Any, ...] | None:
    """Returns a request that is answered otherwise, of some that a seed chooses."""
    drawn = random.Random(seed)
    choices: list[list[Any]] = [list(somebodies(texts)), list(circumstances(texts)), [*rows(texts)]]
    catalogue = old.catalogue
    assert catalogue is not None
    cells = [(it.id, column) for it in catalogue.datasets.values() for column in it.columns.values()]
    for _ in range(TRIED):
        somebody, around, row = (drawn.choice(some) for some in choices)
        where, column = drawn.choice(cells)
        purpose = "cost" if where == "t.sums" else drawn.choice(PURPOSES)
        asked = (
            somebody,
            around,
            drawn.choice((row, row, None)),
            where,
            column,
            drawn.choice(("read", "export")),
            purpose,
        )
        if answer(old, asked) != answer(new, asked):
            return asked
    return None


def confirm(old: PolicySet, new: PolicySet, found: Compared) -> None:
    """Sees that what is told to differ does, as it is told."""
    differing = found.differing
    assert differing is not None
    asked = asked_of(old, differing.shown)
    answers = (answer(old, asked), answer(new, asked))
    assert answers[0] != answers[1]
    sides = {(True, False): Side.OLD, (False, True): Side.NEW, (True, True): Side.BOTH}
    assert differing.allowed_by is sides[answers[0] is not None, answers[1] is not None]
    assert (bool(differing.old), bool(differing.new)) == (answers[0] is not None, answers[1] is not None)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_two_sets_are_equivalent_that_answer_otherwise(seed: int) -> None:
    """Of a random set and one made of it: EQUIVALENT, no request tells them apart; DIFFERENT, the one shown does."""
    drawn = random.Random(seed)
    policy = policy_of(drawn)
    other = rephrased(drawn, policy) if seed % 3 == 0 else changed(drawn, policy)
    old, new = set_of(policy), set_of(other)
    found = compare(old, new)

    if found.result is Sameness.DIFFERENT:
        confirm(old, new, found)
        assert seed % 3
        return
    told_apart = difference(old, new, policy + other, seed)
    assert told_apart is None or found.result is Sameness.UNKNOWN, (policy, other, told_apart)
    assert found.result is Sameness.EQUIVALENT or found.unsaid or found.why


SAME = {
    "the order of a conjunction": ("r.sub.team == 'x' && r.row.level > 1", "r.row.level > 1 && r.sub.team == 'x'"),
    "a double negation": ("r.row.team == 'x'", "!(r.row.team != 'x')"),
    "a rule of De Morgan": ("!(r.row.team == 'x' || r.row.level > 1)", "r.row.team != 'x' && r.row.level <= 1"),
    "whole numbers": ("r.row.level > 1", "r.row.level >= 2"),
    "a list": ("r.row.team in ('x', 'y')", "r.row.team == 'y' || r.row.team == 'x'"),
    "a function that is guessed, on both sides": (
        "regexMatch(r.row.team, '^x') && r.row.level > 1",
        "r.row.level > 1 && regexMatch(r.row.team, '^x')",
    ),
}
OTHER = {
    "what is unknown is not True": ("True", "r.row.team == 'x' || r.row.team != 'x'"),
    "a bound": ("r.row.level > 1", "r.row.level >= 1"),
    "a decimal number": ("r.sub.level > 1", "r.sub.level >= 2"),
    "whoever has a property of another kind": ("r.sub.team != 'x'", "!(r.sub.team in ('x', 1))"),
}


def of_condition(text: str) -> PolicySet:
    """Returns a set with an allow under a condition."""
    return set_of(f"{COMMON}p, role:b, t.rows, read, *, {text}, allow\np2, role:b, tag:secret, read, *, True, none\n")


@pytest.mark.parametrize("what", SAME)
def test_what_means_the_same_is_equivalent(what: str) -> None:
    """Conditions that mean the same of every row, known or not, make equivalent sets."""
    one, other = map(of_condition, SAME[what])

    assert compare(one, other).result is compare(other, one).result is Sameness.EQUIVALENT


@pytest.mark.parametrize("what", OTHER)
def test_what_means_nearly_the_same_is_different(what: str) -> None:
    """Conditions that differ for a single kind of row or subject make different sets, with such a request."""
    one, other = map(of_condition, OTHER[what])
    found = compare(one, other)

    assert found.result is compare(other, one).result is Sameness.DIFFERENT
    confirm(one, other, found)


def test_rules_may_stand_in_any_order_and_twice() -> None:
    """Neither the order of rules counts, nor that one is said twice or that another says it too."""
    lines = COMMON.splitlines(keepends=True)
    more = "p, role:a, t.rows.team, read, train, r.sub.team == 'x' && r.row.level > 1, allow\n"

    assert compare(set_of(COMMON), set_of("".join([*reversed(lines), lines[0], more]))).result is Sameness.EQUIVALENT


@pytest.mark.parametrize(
    ("old", "new", "answers"),
    [
        (", nullify\n", ", none\n", ("as nullify", "in clear")),
        ("True, 3\n", "True, 5\n", ("in clear, in groups of 3 at least", "in clear, in groups of 5 at least")),
    ],
)
def test_other_masks_and_groups_are_a_difference(old: str, new: str, answers: tuple[str, str]) -> None:
    """Where both allow, but with another mask or another minimum group, the sets are different, and both are told."""
    one, other = set_of(COMMON), set_of(COMMON.replace(old, new))
    found = compare(one, other)

    assert found.differing is not None
    assert found.differing.allowed_by is Side.BOTH
    assert (found.differing.old.endswith(answers[0]), found.differing.new.endswith(answers[1])) == (True, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Without a row the mask of the one is under conditions, and a tag demands one that always applies.
        ("r.row.level > 1, redact\np2, role:b, tag:secret, read, *, !(r.row.level > 1), redact", "True, redact"),
    ],
)
def test_what_a_request_without_a_row_may_tell_apart_is_unknown(old: str, new: str) -> None:
    """Sets that answer alike for every row, and otherwise without one, are not equivalent."""
    rules = "p, role:b, t.rows, read, *, True, allow\np2, role:b, tag:secret, read, *, "
    one, other = set_of(f"{rules}{old}\n"), set_of(f"{rules}{new}\n")

    assert compare(one, other).result is Sameness.UNKNOWN


def test_a_list_of_values_of_the_row_is_unknown() -> None:
    """A condition that is true of each row, and left open without one, is not taken for `True`."""
    one, other = of_condition("'x' in (r.row.team, 'x')"), of_condition("True")

    assert compare(one, other).result is Sameness.UNKNOWN


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("settings", "context: [net]", "context: [net, zone]"),
        ("catalogue", "level: int", "level: bigint"),
        ("catalogue", "people_max: 2", "people_max: 3"),
        ("purposes", "cost: {consent: none}", "cost: {consent: opt_in}"),
    ],
)
def test_what_is_declared_otherwise_is_unknown(file: str, before: str, after: str) -> None:
    """Equal rules of sets that declare callers, columns, ceilings or consents otherwise prove nothing."""
    whole = {"settings": whole_sets.SETTINGS, "catalogue": whole_sets.CATALOGUE, "purposes": whole_sets.PURPOSES}
    found = compare(set_of(COMMON), set_of(COMMON, **{file: whole[file].replace(before, after)}))

    assert found.result is Sameness.UNKNOWN
    assert found.why


def test_links_that_give_more_are_a_difference() -> None:
    """Equal rules under other links between roles are different; a link twice is none."""
    linked = f"g, role:c, role:a\n{COMMON}"
    found = compare(set_of(COMMON), set_of(linked))

    confirm(set_of(COMMON), set_of(linked), found)
    assert compare(set_of(linked), set_of(f"{linked}g, role:c, role:a\n")).result is Sameness.EQUIVALENT


def test_a_condition_that_asks_for_tags_is_not_the_same_where_tags_are_not() -> None:
    """Equal rules that ask for links of columns are not equivalent where a column has another tag."""
    rules = "p, role:a, t.rows, read, *, g2(r.obj, 'tag:plain'), allow\n"
    tagged = whole_sets.CATALOGUE.replace("who: text", "who: {type: text, tags: [plain]}")

    assert compare(set_of(rules), set_of(rules)).result is Sameness.EQUIVALENT
    assert compare(set_of(rules), set_of(rules, catalogue=tagged)).result is not Sameness.EQUIVALENT
