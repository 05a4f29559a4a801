"""The impact of random changes against brute force: every person, column, action, purpose, circumstance and row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_audience import ABLE, everything
from tests.property.whole_sets import DECIDABLE, UNDECIDED, conditions, directories, policies, snapshot_of, tried

from gatebook.authorize import decide, question_of
from gatebook.engine.snapshot import Snapshot
from gatebook.governance.gained import grant_of
from gatebook.governance.impact import Change, Impact, impact_digest, impact_of
from gatebook.governance.request import request_of
from gatebook.policy.directory import load_directory
from gatebook.policy.masks import MaskSpec, at_least_as_strict
from gatebook.revisions.scan import scanned
from gatebook.values import AccessRequest, ColumnOutcome, Decision, Effect, Entity, Mask, MaskKind

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Asked = tuple[str, str, str, str, str]
"""Subject, dataset, column, action and purpose."""
ATOMS = DECIDABLE + UNDECIDED


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, str]:
    """Draws a set and what a change makes of it: lines dropped, added, of another role, condition, mask or k."""
    old = draw(policies(ATOMS)).splitlines(keepends=True)
    new = list(old)
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(("drop", "add", "condition", "role", "parameter")))
        place = draw(st.integers(0, len(new) - 1)) if new else 0
        if how == "add" or not new:
            new += draw(policies(ATOMS)).splitlines(keepends=True)[-2:]
        elif how == "drop":
            del new[place]
        elif new[place].startswith("p"):
            new[place] = changed(draw, new[place], how)
    return "".join(dict.fromkeys(old)), "".join(dict.fromkeys(new))


def changed(draw: st.DrawFn, line: str, how: str) -> str:
    """Draws another condition, role, mask or k of a rule."""
    fields = line.rstrip("\n").split(", ")
    head, tail = fields[:5], fields[-1]
    condition = ", ".join(fields[5:-1])
    if how == "condition":
        further = draw(conditions(ATOMS))
        condition = draw(
            st.sampled_from((further, f"({condition}) && ({further})", f"({condition}) || ({further})", "True"))
        )
    elif how == "role":
        head[1] = draw(st.sampled_from(("role:a", "role:b", "role:c")))
    else:
        choices = {"p": ("allow", "deny"), "p2": ("nullify", "none", "redact", "regex:a:b"), "p3": ("3", "5")}
        tail = draw(st.sampled_from(choices[fields[0]]))
    return ", ".join((*head, condition, tail)) + "\n"


def outcomes(snapshot: Snapshot, request: AccessRequest, caller: str) -> tuple[Decision, Mapping[str, ColumnOutcome]]:
    """Returns what one revision answers, column by column."""
    decision = decide(snapshot, question_of(snapshot, request, caller=caller), NOW)
    return decision, {outcome.column: outcome for outcome in decision.columns if outcome.effect is Effect.ALLOW}


def is_weaker(masks: tuple[Mask, ...], before: tuple[Mask, ...]) -> bool:
    """Tells whether the mask that applies shows more than the one before."""

    def spec(some: tuple[Mask, ...]) -> MaskSpec:
        if not some:
            return MaskSpec(MaskKind.NONE)
        values = {name: value for name, value in some[0].parameters.items() if name != "type"}
        return MaskSpec(some[0].kind, tuple(values.values()))

    return not at_least_as_strict(spec(masks), spec(before))


def gained_by_force(old: Snapshot, new: Snapshot, policy: str) -> dict[Asked, bool]:
    """Returns what anybody gains under some circumstances, and whether that is about others too."""
    gained: dict[Asked, bool] = {}
    for (caller, context, stated), row in tried(policy, len(policy), 25):
        for subject, dataset, action, purpose in everything(new):
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
            _, after = outcomes(new, request, caller)
            _, before = outcomes(old, request, caller) if after else (None, {})
            for column, outcome in after.items():
                known = before.get(column)
                if known is None or is_weaker(outcome.masks, known.masks):
                    key = (subject.id, dataset, column, action, purpose)
                    gained[key] = gained.get(key, False) or dataset == "t.sums" or row["who"] != subject.id
    return gained


def group_of(snapshot: Snapshot, request: AccessRequest, caller: str) -> int:
    """Returns the minimum group of an allow of one request."""
    decision, _ = outcomes(snapshot, request, caller)
    return decision.minimum_group.k if decision.minimum_group else 0


def each_gain(impact: Impact) -> Iterator[tuple[Asked, Change]]:
    """Yields what the impact says that anybody gains."""
    for change in impact.gains:
        for subject in impact.after.people.among(change.subjects):
            for column in change.columns:
                for purpose in change.purposes:
                    yield (subject.id, change.dataset, column, change.action, purpose), change


def assert_real(impact: Impact, change: Change, old: Snapshot, new: Snapshot) -> None:
    """Asserts that everybody of a certain gain is allowed, by its own request, what was not allowed so before."""
    for subject in impact.after.people.among(change.certain):
        grant = grant_of(impact, change, subject)
        assert grant is not None
        request, caller = request_of(grant, ABLE)
        decision, after = outcomes(new, request, caller)
        assert decision.allowed, (change, subject, decision)
        before_decision, before = outcomes(old, request, caller)
        assert (
            not before_decision.allowed
            or any(is_weaker(outcome.masks, before[name].masks) for name, outcome in after.items())
            or group_of(new, request, caller) < group_of(old, request, caller)
        ), (change, subject)


def compare(policies_: tuple[str, str], people: bytes) -> Impact:
    """Compares the impact of a change with brute force, under live ceilings and without."""
    old, new = (snapshot_of(policy, people) for policy in policies_)
    assert new.directory is not None
    impact = impact_of(old.policy_set, new.policy_set, new.directory, NOW)
    said: dict[Asked, list[Change]] = {}
    for asked, change in each_gain(impact):
        said.setdefault(asked, []).append(change)
    live = scanned(old, NOW), scanned(new, NOW)
    for pair in ((old, new), live) if (live[0].not_proved or live[1].not_proved) else ((old, new),):
        for asked, others in gained_by_force(*pair, "\n".join(policies_)).items():
            assert asked in said, (asked, policies_)
            for change in said[asked]:
                own = change.own >> impact.after.people.place[asked[0]] & 1
                assert not (own and others), (asked, change)
    for change in impact.gains:
        assert_real(impact, change, live[0], new)
    return impact


class TestImpact:
    """What the impact says of everybody and everything."""

    @settings(max_examples=40, deadline=None)
    @given(changes(), directories())
    def test_misses_no_gain_and_claims_none_for_certain_that_is_not(
        self, policies_: tuple[str, str], people: bytes
    ) -> None:
        """Whatever brute force finds newly allowed, or less masked, is a gain; a certain gain has its request."""
        compare(policies_, people)

    @settings(max_examples=15, deadline=None)
    @given(policies(ATOMS), directories())
    def test_is_nothing_where_only_the_order_of_lines_changes(self, policy: str, people: bytes) -> None:
        """A set that says the same in another order has no impact."""
        lines = policy.splitlines(keepends=True)
        old, new = snapshot_of(policy, people), snapshot_of("".join(reversed(lines)), people)
        assert new.directory is not None

        impact = impact_of(old.policy_set, new.policy_set, new.directory, NOW)

        assert impact.changes == ()


PEOPLE = (
    b'{"type":"user","id":"ana","attributes":{"boss":"ana","level":1,"team":"x"},"groups":["role:a"]}\n'
    b'{"type":"user","id":"ben","attributes":{"boss":"ana","level":2,"team":"x"},"groups":["role:b"]}\n'
)


def gains(old: str, new: str) -> dict[str, tuple[list[str], str]]:
    """Returns who gains what in `t.rows.who`, and how sure it is."""
    impact = compare((old, new), PEOPLE)
    found: dict[str, tuple[list[str], str]] = {}
    for change in impact.gains:
        for subject in impact.after.people.among(change.subjects) if "who" in change.columns else ():
            bit = 1 << impact.after.people.place[subject.id]
            sure = "certain" if change.certain & bit else "possible"
            aspects = sorted(aspect.name for aspect in change.gained)
            found[subject.id] = (aspects, f"{sure}, own rows" if change.own & bit else sure)
    return found


READ = "p, role:a, t.rows.who, read, train, {}, allow\n"
MASK = "p2, role:a, t.rows.who, read, *, {}, {}\n"
CASES: Mapping[str, tuple[str, str, dict[str, tuple[list[str], str]]]] = {
    "a new rule": ("", READ.format("True"), {"ana": (["ACCESS"], "certain")}),
    "a new rule about own rows": (
        "",
        READ.format("r.row.who == r.sub.id"),
        {"ana": (["ACCESS"], "certain, own rows")},
    ),
    "own rows beside others": (
        READ.format("r.row.level == 2"),
        READ.format("r.row.level == 2") + READ.format("r.row.who == r.sub.id"),
        {"ana": (["ROWS"], "certain, own rows")},
    ),
    "a link of roles": (
        READ.format("True"),
        READ.format("True") + "g, role:b, role:a\n",
        {"ben": (["ACCESS"], "certain")},
    ),
    "a wider condition": (
        READ.format("r.row.team == 'x' && r.row.active"),
        READ.format("r.row.team == 'x'"),
        {"ana": (["ROWS"], "certain")},
    ),
    "a narrower condition": (READ.format("r.row.team in ('x', 'y')"), READ.format("r.row.team == 'x'"), {}),
    "another way to write the same": (
        READ.format("r.row.active && r.row.level > 1"),
        READ.format("r.row.level > 1 && r.row.active"),
        {},
    ),
    "a rule beside one that allows all": (
        READ.format("True"),
        READ.format("True") + READ.format("r.row.active"),
        {},
    ),
    "a deny that is gone": (
        READ.format("True") + "p, role:a, t.rows.who, read, *, r.row.active, deny\n",
        READ.format("True"),
        {"ana": (["ROWS"], "certain")},
    ),
    "a weaker mask": (
        READ.format("True") + MASK.format("True", "nullify"),
        READ.format("True") + MASK.format("True", "redact"),
        {"ana": (["MASKS"], "certain")},
    ),
    "a mask on fewer rows": (
        READ.format("True") + MASK.format("True", "nullify"),
        READ.format("True") + MASK.format("r.row.active", "nullify"),
        {"ana": (["MASKS"], "possible")},
    ),
    "a stricter mask": (
        READ.format("True") + MASK.format("r.row.active", "redact"),
        READ.format("True") + MASK.format("True", "nullify"),
        {},
    ),
    "a mask that ends a contradiction": (
        READ.format("True") + MASK.format("True", "regex:a:b") + MASK.format("True", "regex:b:c"),
        READ.format("True")
        + MASK.format("True", "regex:a:b")
        + MASK.format("True", "regex:b:c")
        + MASK.format("True", "nullify"),
        {"ana": (["ROWS"], "possible")},
    ),
    "a smaller group": (
        READ.format("True") + "p3, role:a, t.rows, read, *, True, 5\n",
        READ.format("True") + "p3, role:a, t.rows, read, *, True, 3\n",
        {"ana": (["MINIMUM_GROUP"], "certain")},
    ),
    "another purpose": (
        READ.format("True"),
        READ.format("True").replace("train", "*"),
        {"ana": (["ACCESS"], "certain")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_says_what_is_gained(case: str) -> None:
    """Each sort of change is told apart, and what is not gained is not said to be."""
    old, new, expected = CASES[case]

    assert gains(old, new) == expected


def test_the_digest_names_both_revisions_and_the_directory() -> None:
    """The digest of an impact is another for another old revision, new revision or directory, and else the same."""
    one, other, third = (snapshot_of(READ.format(condition), PEOPLE) for condition in ("True", "False", "r.row.active"))
    assert one.directory is not None
    fewer = load_directory({"people.jsonl": PEOPLE.splitlines(keepends=True)[0]})

    impacts = [
        impact_of(old.policy_set, new.policy_set, directory, NOW)
        for old, new, directory in (
            (one, other, one.directory),
            (one, third, one.directory),
            (third, other, one.directory),
            (other, one, one.directory),
            (one, other, fewer),
        )
    ]

    digests = [impact_digest(impact) for impact in impacts]
    assert len(set(digests)) == len(digests)
    assert digests[0] == impact_digest(impact_of(one.policy_set, other.policy_set, one.directory, NOW))
