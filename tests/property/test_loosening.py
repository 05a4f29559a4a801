"""Whether a change loosens, against brute force: what is said to tighten lets nobody do or see more."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from tests.property.test_impact import ATOMS, changed, gained_by_force
from tests.property.whole_sets import CATALOGUE, directories, files_of, policies

from gatebook.engine.snapshot import Snapshot
from gatebook.governance.change import loosens
from gatebook.governance.loosening import changes
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.revisions.scan import scanned
from gatebook.revisions.validate import build_draft

NOW = datetime(2026, 6, 1, tzinfo=UTC)
EDITS = (
    ("tags: [plain]", "tags: [plain, secret]"),
    ("tags: [plain]", "tags: []"),
    ("tags: [secret.key]", "tags: []"),
    ("tags: [secret.key]", "tags: [secret.key, plain]"),
    ("secret: {requires_mask: true}", "secret: {}"),
    ("plain: {}", "plain: {requires_mask: true}"),
    ("purposes: [train, cost],", "purposes: [cost],"),
    ("purposes: [train, cost],", "purposes: [train, cost, other],"),
    ("    purposes: [cost]\n", "    purposes: [cost, train]\n"),
    ("2026-01-01", "2026-09-01"),
    ("2026-01-01", "2025-01-01"),
    ("people_max: 2", "people_max: 1"),
    ("people_max: 2", "people_max: 3"),
    ("roles: [role:a]", "roles: [role:a, role:b]"),
    ("retention_days: 10", "retention_days: 9"),
    ("group_minimum: 4", "group_minimum: 9"),
    ("group_minimum: 4", "group_minimum: 2"),
    ("      active: bool\n", ""),
    ("sensitivity: internal", "sensitivity: sealed"),
)
"""What else a change does to the catalogue: towards either side."""


@st.composite
def drafts(draw: st.DrawFn) -> tuple[str, str, str]:
    """Draws rules, what a change makes of them, and the catalogue of the draft."""
    old = draw(policies(ATOMS)).splitlines(keepends=True)
    new = list(old)
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(("drop", "drop", "deny", "group", "mask", "parameter", "condition", "role")))
        place = draw(st.integers(0, len(new) - 1)) if new else 0
        if how == "drop" and new:
            del new[place]
        elif how in ("parameter", "condition", "role") and new and new[place].startswith("p"):
            new[place] = changed(draw, new[place], how)
        elif how in ("deny", "group", "mask"):
            node = draw(st.sampled_from(("t.rows", "t.rows.team", "t.rows.level", "t.sums", "tag:secret", "tag:plain")))
            ptype, last = {"deny": ("p", "deny"), "group": ("p3", "5"), "mask": ("p2", "nullify")}[how]
            new.append(f"{ptype}, role:a, {node}, read, *, True, {last}\n")
    catalogue = CATALOGUE
    for before, after in draw(st.lists(st.sampled_from(EDITS), max_size=2)):
        catalogue = catalogue.replace(before, after)
    # Of a purpose that no notice names a dataset cannot speak.
    assume("[cost]," not in catalogue or "[cost, train]" not in catalogue)
    return "".join(dict.fromkeys(old)), "".join(dict.fromkeys(new)), catalogue


def snapshot_of(policy: str, people: bytes, catalogue: str = CATALOGUE) -> Snapshot:
    """Returns a set with a catalogue under a directory, compiled. Findings across files do not matter here."""
    files = {**files_of(policy), "catalogue.yaml": catalogue.encode()}
    return build_draft(load(files, accepted=True), "", load_directory({"people.jsonl": people}))


@settings(max_examples=60, deadline=None)
@given(drafts(), directories())
def test_what_tightens_lets_nobody_do_more(drawn: tuple[str, str, str], people: bytes) -> None:
    """Where no change is said to loosen, brute force finds nobody who gains, under live ceilings and without."""
    before, after, catalogue = drawn
    old, new = snapshot_of(before, people), snapshot_of(after, people, catalogue=catalogue)
    assert new.directory is not None
    found = changes(old.policy_set, new.policy_set, new.directory, NOW)
    event("loosens" if loosens(found) else "tightens" if found else "nothing")
    if loosens(found):
        return

    # What is structural must hold whoever is in the directory: it is looked at without one as well.
    assert not loosens(changes(old.policy_set, new.policy_set))
    for pair in ((old, new), (scanned(old, NOW), scanned(new, NOW))):
        assert gained_by_force(*pair, before + after) == {}, found


@settings(max_examples=60, deadline=None)
@given(drafts(), directories())
def test_without_a_directory_structure_alone_is_safe(drawn: tuple[str, str, str], people: bytes) -> None:
    """What is said of lines alone, before anybody is known, holds for whoever is drawn then."""
    before, after, catalogue = drawn
    old, new = snapshot_of(before, people), snapshot_of(after, people, catalogue=catalogue)
    found = changes(old.policy_set, new.policy_set)
    event("loosens" if loosens(found) else "tightens" if found else "nothing")
    if not loosens(found):
        assert gained_by_force(old, new, before + after) == {}, found


ASKS_WHO_HAS_NOT = "p, role:a, t.rows, read, *, !g(r.sub.id, 'role:b'), allow\n"
NAMESPACES = b"lineage:\n  namespaces: {pg: warehouse}\n"


def test_a_link_that_a_condition_asks_for_may_be_missed() -> None:
    """Who loses a role that a condition forbids gains by it: the link that goes loosens, before anybody is known."""
    people = b'{"type": "user", "id": "ana", "groups": ["role:a", "role:c"]}\n'
    old = snapshot_of(f"g, role:c, role:b\n{ASKS_WHO_HAS_NOT}", people)
    new = snapshot_of(ASKS_WHO_HAS_NOT, people)

    assert gained_by_force(old, new, ASKS_WHO_HAS_NOT) != {}
    assert loosens(changes(old.policy_set, new.policy_set))


def test_other_names_of_what_jobs_report_loosen() -> None:
    """What a table inherits hangs on the namespaces that are listed: to list others, or none, is no mere comment."""
    files = files_of("p, role:a, t.rows, read, *, True, allow\n")
    listed = load({**files, "gatebook.yaml": files["gatebook.yaml"] + NAMESPACES}, accepted=True)
    other = load(
        {**listed.files, "gatebook.yaml": listed.files["gatebook.yaml"].replace(b"{pg:", b"{db:")}, accepted=True
    )

    for before, after in ((listed, other), (listed, load(files, accepted=True)), (load(files, accepted=True), listed)):
        assert [change.what for change in changes(before, after)] == ["LINEAGE_CHANGED"]
        assert loosens(changes(before, after))
