"""The smallest changes that would allow what was denied, and what the publish gate would say of each.

Owns the search. Promises:

1. what is told allows: under the very files with the edits made, the question is decided again before it is told;
2. no smaller one is left out of those that were tried: one edit first, then two, then three, and of what allows already
   nothing is told with more;
3. each is marked with the findings that the gate has of the changed files and has not of those without the change;
4. it is bounded in edits, decisions and time; what was not looked for is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from gatebook.authorize import question_of
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import GatebookError
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.replay.again import Again, decide_one
from gatebook.replay.repairs import Files, repairs
from gatebook.replay.world import Edit, World, allowed, applied, world_of
from gatebook.revisions.validate import Validation, build_draft, validate
from gatebook.values import AccessRequest, Finding, Reason, Severity

EDITS_MAX = 3
DECISIONS_MAX = 600
SEARCH_SECONDS = 3.0
MARK_SECONDS = 20.0
CHANGES_MAX = 8
"""How many are told, and marked."""
FOUND_MAX = 64
BEYOND = {
    Reason.CONSENT_REQUIRED: "people's consent is not given by an edit",
    Reason.CEILING_EXCEEDED: "the directory has more people than the ceiling permits: see the live scan",
    Reason.UNKNOWN_SUBJECT: "the directory does not know the subject or the actor",
    Reason.UNKNOWN_ACTION: "the set does not have the action",
    Reason.UNCATALOGUED: "the catalogue does not have the dataset",
}

Clock = Callable[[], float]
Edits = frozenset[Edit]


class Change(msgspec.Struct, frozen=True):
    """Edits that, made together, allow a question; `findings` are those that the gate would refuse them for."""

    edits: tuple[Edit, ...]
    request: AccessRequest
    findings: tuple[Finding, ...] = ()


class Changes(msgspec.Struct, frozen=True):
    """The smallest changes, and what was not looked for, in words."""

    changes: tuple[Change, ...] = ()
    left_out: tuple[str, ...] = ()


def smallest_changes(snapshot: Snapshot, again: Again, files: Files, clock: Clock = time.monotonic) -> Changes:
    """Returns the smallest changes that would allow a denied question, under the revisions that denied it."""
    question, decision = again.question, again.decision
    dialect = decision.plan_dialect
    world = world_of(snapshot, question.request, question.caller, again.time, dialect)
    if decision.allowed:
        return Changes()
    if world is None:
        why = "a plain set" if not snapshot.governed else BEYOND[Reason.UNCATALOGUED]
        return Changes(left_out=(f"changes are looked for in governed sets, of datasets in the catalogue: {why}",))
    left_out = [BEYOND[decision.reason]] if decision.reason in BEYOND else []
    found, whole = _search(world, files, clock() + SEARCH_SECONDS, clock)
    if not whole:
        left_out.append(f"there may be others: no more than {DECISIONS_MAX} were tried, in {SEARCH_SECONDS:g} seconds")
    marked = _marked(snapshot, found, files, again.time, clock)
    if len(found) > len(marked.changes) and len(marked.changes) == CHANGES_MAX:
        left_out.append(f"{len(found) - CHANGES_MAX} more of as many edits")
    if not marked.changes and not left_out:
        left_out.append(f"none of at most {EDITS_MAX} edits was found")
    return Changes(marked.changes, (*left_out, *marked.left_out))


def _search(world: World, files: Files, until: float, clock: Clock) -> tuple[list[World], bool]:
    """Returns worlds that allow, of the fewest edits, those that give least first, and whether all were tried."""
    level, found, tried, decisions = [world], list[World](), set[Edits](), 0
    for _ in range(EDITS_MAX):
        following: list[World] = []
        for one in level:
            decision = one.decide()
            for edited in repairs(one, decision, files):
                key = frozenset(edited.edits)
                if key in tried or len(key) < len(edited.edits):
                    continue
                tried.add(key)
                decisions += 1
                if decisions > DECISIONS_MAX or clock() > until:
                    return _ordered(found), False
                if allowed(edited.decide()):
                    found.append(edited)
                else:
                    following.append(edited)
        if found:
            return _ordered(found), len(found) < FOUND_MAX
        level = sorted(following, key=_cost)
    return [], True


def _cost(world: World) -> list[int]:
    """Orders worlds by how much their edits give, the greatest first."""
    return sorted((int(edit.kind) for edit in world.edits), reverse=True)


def _ordered(found: Iterable[World]) -> list[World]:
    return sorted(found, key=_cost)[:FOUND_MAX]


def _marked(snapshot: Snapshot, found: Sequence[World], files: Files, at: datetime, clock: Clock) -> Changes:
    """Returns changes with what the gate would say; what the files with the edits do not allow is not told."""
    until, told, left_out = clock() + MARK_SECONDS, list[Change](), list[str]()
    name = snapshot.policy_set.name
    before: frozenset[tuple[str, ...]] | None = None
    for place, world in enumerate(found):
        if len(told) == CHANGES_MAX:
            break
        if not any(edit.file for edit in world.edits):
            told.append(Change(world.edits, world.request))
            continue
        if clock() > until:
            left_out.append(f"{len(found) - place} more, since the gate takes long to judge them")
            break
        if before is None:
            before = frozenset(map(_key, _errors(_validated(files.policy, name, files.directory, at))))
        policy = applied(files.policy, [e for e in world.edits if e.file and not e.in_directory])
        people = applied(files.directory, [e for e in world.edits if e.in_directory])
        if _allows(policy, name, people, world):
            judged = _errors(_validated(policy, name, people, at))
            findings = tuple(finding for finding in judged if _key(finding) not in before)
            told.append(Change(world.edits, world.request, findings))
    return Changes(tuple(told), tuple(left_out))


def _validated(
    policy: Mapping[str, bytes], name: str, people: Mapping[str, bytes], at: datetime
) -> Validation | GatebookError:
    try:
        return validate(policy, name, directory_files=people, now=at)
    except GatebookError as err:
        return err


def _errors(judged: Validation | GatebookError) -> list[Finding]:
    """Returns what a set is refused for, expectations that do not hold included."""
    if isinstance(judged, GatebookError):
        return [Finding("", 0, 0, judged.reason, judged.message)]
    failed = [
        Finding(
            it.file, it.line, 0, "TEST_FAILED", f"{it.test}: {it.question}: expected {it.expected}, got {it.actual}"
        )
        for it in judged.test_failures
    ]
    return [finding for finding in (*judged.findings, *failed) if finding.severity is Severity.ERROR]


def _key(finding: Finding) -> tuple[str, ...]:
    return finding.invariant, finding.file, str(finding.line), finding.message


def _allows(policy: Mapping[str, bytes], name: str, people: Mapping[str, bytes], world: World) -> bool:
    """Tells whether the question is allowed under the files as they would be."""
    try:
        draft = build_draft(load(policy, name, accepted=True), "", load_directory(people))
        question = question_of(draft, world.request, caller=world.caller)
        return decide_one(draft, question, world.time, world.plan_dialect)[0].allowed
    except GatebookError:
        return False
