"""What an analysis of audiences takes over from one before it is what it would have found itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.whole_sets import DECIDABLE, UNDECIDED, directories, files_of, policies

from gatebook.expression.moments import Moment
from gatebook.governance import carried
from gatebook.governance.audience import Audiences
from gatebook.governance.carried import Remembered
from gatebook.governance.ceilings import ceiling_findings
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import PolicySet, load
from gatebook.values import Finding

MOMENTS = (datetime(2026, 6, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC))
TIMED = "r.row.level == 1 && timeMatch('2026-01-01 00:00:00', '2027-01-01 00:00:00')"
ATOMS = (*DECIDABLE, *UNDECIDED, TIMED)
CATALOGUE_CHANGES = (
    (b"", b""),
    (b"type: int", b"type: text"),
    (b"group_minimum: 4", b"group_minimum: 2"),
    (b"tags: [secret.key]", b"tags: [plain]"),
    (b"subject_keys: [who]", b"subject_keys: [team]"),
    (b"requires_mask: true", b"requires_mask: false"),
)
Found = tuple[list[object], list[Finding]]


def drawn_set(policy: str, change: tuple[bytes, bytes] = (b"", b"")) -> PolicySet:
    """Returns a set with a change of its catalogue."""
    files = files_of(policy)
    assert change[0] in files["catalogue.yaml"]
    if change[0]:
        files["catalogue.yaml"] = files["catalogue.yaml"].replace(*change)
    return load(files, accepted=True)


def found(policy_set: PolicySet, directory: Directory, now: datetime, before: Remembered | None) -> Found:
    """Returns all that an analysis says: of every cell who, and how certainly, and every ceiling exceeded."""
    audiences = Audiences(policy_set, directory, Moment(now), before=before)
    cells: list[object] = [
        (dataset.id, cell.columns, cell.action, cell.purposes, reach)
        for dataset in audiences.datasets()
        for cell, reach in audiences.cells(dataset)
    ]
    return cells, ceiling_findings(audiences, lambda _request, _caller: "")


def remembered(policy_set: PolicySet, directory: Directory, now: datetime) -> Remembered:
    """Returns what is kept of an analysis of everything."""
    audiences = Audiences(policy_set, directory, Moment(now))
    for dataset in audiences.datasets():
        assert all(reach.anybody for _, reach in audiences.cells(dataset))
    return audiences.remembered()


@st.composite
def people_changed(draw: st.DrawFn, people: bytes) -> bytes:
    """Draws a directory with some people changed, gone and new."""
    pairs = zip(people.splitlines(keepends=True), draw(directories()).splitlines(keepends=True), strict=True)
    lines = [draw(st.sampled_from((old, old, new, b""))) for old, new in pairs]
    came = draw(st.lists(st.sampled_from(("aaa", "bob", "zoe")), max_size=2, unique=True))
    new = ({"type": "user", "id": id_, "attributes": {}, "groups": ["role:a"]} for id_ in came)
    lines += [msgspec.json.encode(it) + b"\n" for it in new]
    return b"".join(lines)


class TestTakenOver:
    """A second analysis beside the same one from nothing."""

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(policies(ATOMS), policies(ATOMS), directories(), st.data())
    def test_is_what_is_found_from_nothing(self, policy: str, more: str, people: bytes, data: st.DataObject) -> None:
        """Whatever rules, people, columns and hour change, members, certainty, counts and findings are the same."""
        lines, others = policy.splitlines(keepends=True), more.splitlines(keepends=True)
        kept = data.draw(st.lists(st.sampled_from(lines), unique=True))
        added = data.draw(st.lists(st.sampled_from(others), max_size=2, unique=True))
        after = "".join(dict.fromkeys([*(line for line in lines if line in kept or data.draw(st.booleans())), *added]))
        change = data.draw(st.sampled_from(CATALOGUE_CHANGES))
        one, other = drawn_set(policy), drawn_set(after, change)
        was, is_ = (load_directory({"p.jsonl": it}) for it in (people, data.draw(people_changed(people))))
        before = remembered(one, was, MOMENTS[0])

        for policy_set, directory in ((other, was), (one, is_), (other, is_)):
            for now in MOMENTS:
                assert found(policy_set, directory, now, before) == found(policy_set, directory, now, None)


POLICY = "g, role:b, role:a\np, role:a, t.rows, read, *, r.sub.level >= 2 && r.row.level == 1, allow\n"


def directory_of(count: int, level: int = 2) -> Directory:
    """Returns a directory in which everybody has a role."""
    subjects = (
        {"type": "user", "id": f"p{number:03}", "attributes": {"level": level}, "groups": ["role:b"]}
        for number in range(count)
    )
    return load_directory({"p.jsonl": b"".join(msgspec.json.encode(it) + b"\n" for it in subjects)})


@pytest.mark.parametrize(("count", "level"), [(600, 2), (300, 2), (301, 2), (299, 2), (300, 3), (300, 1), (0, 2)])
def test_also_where_many_change(count: int, level: int) -> None:
    """Beyond the limits, everything is worked on again."""
    before = remembered(drawn_set(POLICY), directory_of(300), MOMENTS[0])
    after = directory_of(count, level)

    taken = found(drawn_set(POLICY), after, MOMENTS[0], before)

    assert taken == found(drawn_set(POLICY), after, MOMENTS[0], None)
    assert bool(taken[0]) is (count > 0 and level > 1)


def test_follows_what_a_condition_asks_of_links() -> None:
    """A link that changes no holder of the rule's role, but one of whom its condition asks, changes the audience."""
    rule = "p, role:b, t.rows, read, *, g(r.sub.id, 'role:c'), allow\n"
    linked = f"g, role:b, role:c\n{rule}"
    directory = directory_of(3)
    none, all_ = (found(drawn_set(it), directory, MOMENTS[0], None) for it in (rule, linked))

    assert none != all_
    assert found(drawn_set(rule), directory, MOMENTS[0], remembered(drawn_set(linked), directory, MOMENTS[0])) == none
    assert found(drawn_set(linked), directory, MOMENTS[0], remembered(drawn_set(rule), directory, MOMENTS[0])) == all_


def test_works_on_nobody_again_where_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is the same under a directory that is the same costs no analysis; one changed line costs its cells."""
    worked: list[object] = []
    reach = Audiences._reach

    def noted(self: Audiences, *about: object) -> object:
        worked.append(about)
        return reach(self, *about)  # type: ignore[arg-type]

    monkeypatch.setattr(Audiences, "_reach", noted)
    directory = directory_of(300)
    before = remembered(drawn_set(POLICY), directory, MOMENTS[0])
    first = len(worked)
    found(drawn_set(f"# moved\n\n{POLICY}"), directory_of(300), MOMENTS[1], before)
    again = len(worked) - first
    found(drawn_set(f"{POLICY}p, role:a, t.sums, read, *, True, allow\n"), directory, MOMENTS[0], before)

    assert first > 0
    assert again == 0
    assert 0 < len(worked) - first <= first + 2


def test_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond the limit in bytes is not remembered, and found again all the same."""
    monkeypatch.setattr(carried, "BYTES_MAX", 500)
    policy = f"{POLICY}p, role:a, t.sums, read, *, True, allow\n"
    dice = random.Random(1)
    directory = directory_of(300)
    before = remembered(drawn_set(policy), directory, MOMENTS[0])
    after = f"{policy}p, role:b, t.rows, read, *, r.sub.level == {dice.randint(1, 3)}, deny\n"

    assert len(before.known) == 1
    assert found(drawn_set(after), directory, MOMENTS[0], before) == found(
        drawn_set(after), directory, MOMENTS[0], None
    )
