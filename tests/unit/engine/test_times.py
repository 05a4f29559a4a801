"""What holds between two times holds then, and no longer: nothing that is remembered, and no allow, outlasts it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import casbin
import pytest
from casbin.util import builtin_operators
from hypothesis import given
from hypothesis import strategies as st
from tests.property.governed_sets import governed_set

from gatebook.audit.asked import ask
from gatebook.authorize import Question, decide, decide_unless_standing, question_about
from gatebook.compiler.program import compile_program
from gatebook.enforcer import Enforcer, time_match
from gatebook.engine.decision import TTL
from gatebook.engine.evaluate import evaluate, evaluate_columns
from gatebook.engine.reference import Reference
from gatebook.engine.snapshot import Snapshot
from gatebook.engine.standing import Standing
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.moments import NOW, Moment
from gatebook.expression.moments import time_match as time_match_at
from gatebook.policy.bundle import read_folder
from gatebook.policy.conditions import Scope, check
from gatebook.policy.gatebook_set import shape_findings
from gatebook.policy.policy_set import PolicySet, load
from gatebook.revisions.validate import build_draft
from gatebook.values import AccessRequest, Effect, Entity

FOLDERS = Path(__file__).parents[2] / "cases" / "times"
SCOPE = Scope({"r": ("sub", "ctx", "row")}, {"p": ()}, {})
START = datetime(2026, 11, 1, tzinfo=UTC)
ANSWERS = {
    "roles_for_a_while": [
        ("ana", "ledger", "read", "2026-10-01 08:00:00", False),
        ("ana", "ledger", "read", "2026-10-01 08:00:00.000001", True),
        ("ana", "ledger", "read", "2026-12-30 23:59:59.999999", True),
        ("ana", "ledger", "read", "2026-12-31 00:00:00", False),
        ("ana", "canteen", "enter", "2026-09-01 00:00:00", False),
        ("ana", "canteen", "enter", "2026-11-15 11:59:59", True),
        ("ana", "canteen", "enter", "2026-11-15 12:00:00", False),
        ("ben", "ledger", "read", "2026-11-01 00:00:00", True),
        ("ben", "ledger", "read", "2026-11-01 00:00:01", False),
        ("ben", "ledger", "read", "2026-11-01 23:59:59", False),
        ("ben", "ledger", "read", "2026-11-02 00:00:00", True),
        ("eva", "ledger", "read", "2026-12-01 00:00:00", False),
        ("eva", "ledger", "read", "2026-12-01 00:00:01", True),
        ("eva", "ledger", "read", "9000-12-31 23:59:59", True),
        ("auditor", "ledger", "read", "2026-12-01 00:00:01", True),
    ],
    "times_in_rules": [
        ("ana", "ledger", "read", "2026-10-01 08:00:00", False),
        ("ana", "ledger", "read", "2026-10-01 08:00:01", True),
        ("ana", "ledger", "read", "2026-11-01 00:00:00", True),
        ("ana", "ledger", "read", "2026-11-01 00:00:01", False),
        ("ana", "ledger", "read", "2026-11-02 00:00:00", True),
        ("ana", "ledger", "read", "2026-12-31 00:00:00", False),
        ("ben", "ledger", "read", "2026-10-31 23:59:59", False),
        ("ben", "ledger", "read", "2026-11-01 00:00:00", True),
    ],
}
EXPIRIES = [
    ("ana", "2026-12-30 12:00:00", "2026-12-30 12:05:00"),
    ("ana", "2026-12-30 23:58:00", "2026-12-31 00:00:00"),
    ("ben", "2026-10-31 23:50:00", "2026-10-31 23:55:00"),
    ("ben", "2026-10-31 23:58:00", "2026-11-01 00:00:00.000001"),
    ("ben", "2026-11-02 00:00:00", "2026-11-02 00:05:00"),
]


def at(text: str) -> datetime:
    """Returns a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def set_of(name: str) -> PolicySet:
    """Loads a set of the cases."""
    return load(read_folder(FOLDERS / name), name)


def snapshot_of(name: str) -> Snapshot:
    """Returns a set of the cases as a server decides by it."""
    policy_set = set_of(name)
    return build_draft(policy_set, policy_set.digest, None)


def question(snapshot: Snapshot, sub: str, obj: str = "ledger", act: str = "read") -> Question:
    """Returns a question that came before, so that a decision that stands is not made again."""
    request = AccessRequest(subject=Entity("user", sub), action=act, resource=obj)
    about = question_about(snapshot, ask(request), "caller")
    return Question(about.asked, "caller", about.tokens, Standing())


class Clock(datetime):
    """A clock for pycasbin, which takes the time of its machine."""

    shows: datetime

    @classmethod
    def now(cls, tz: Any = None) -> Any:  # noqa: ANN401 - as `datetime`
        """Returns the time without a zone, as `datetime.now` does."""
        assert tz is None
        return cls.shows.replace(tzinfo=None)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_time_of_the_decision_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine, definition, whole decisions, the library and pycasbin say of each time what is written, in any order."""
    snapshot, reference = snapshot_of(name), Reference(set_of(name))
    files = str(FOLDERS / name / "model.conf"), str(FOLDERS / name / "policy.csv")
    theirs = casbin.Enforcer(*files)
    ours = Enforcer(*files, clock=lambda: Clock.shows)
    for edge in snapshot.policy_set.edges:
        theirs.add_named_link_condition_func("g", edge.child, edge.parent, builtin_operators.time_match_func)
        ours.add_named_link_condition_func("g", edge.child, edge.parent, time_match)
    if name == "roles_for_a_while":  # of two links between the same names, pycasbin heeds the last alone
        assert len({(edge.child, edge.parent) for edge in snapshot.policy_set.edges}) == 5
    monkeypatch.setattr(builtin_operators, "datetime", Clock)
    asked = {names: question(snapshot, *names) for *names_, _, _ in ANSWERS[name] if (names := tuple(names_))}
    rounds = [*ANSWERS[name], *reversed(ANSWERS[name]), *ANSWERS[name]]

    for sub, obj, act, time, expected in rounds:
        Clock.shows = at(time)
        tokens = {"sub": sub, "obj": obj, "act": act, NOW: Moment(at(time))}
        verdict = evaluate(snapshot.program, tokens)
        assert verdict == reference.evaluate(tokens)
        answers = {
            "engine": verdict.effect is Effect.ALLOW,
            "decision": decide_unless_standing(snapshot, asked[sub, obj, act], at(time)).allowed,
            "library": ours.enforce(sub, obj, act),
            "with the rule": ours.enforce_ex(sub, obj, act)[0],
            "explained": ours.explain(sub, obj, act).allowed,
            "pycasbin": theirs.enforce(sub, obj, act),
        }
        assert dict.fromkeys(answers, expected) == answers, (sub, obj, act, time)


@pytest.mark.parametrize(("sub", "time", "expires"), EXPIRIES)
def test_no_allow_outlasts_what_it_rests_on(sub: str, time: str, expires: str) -> None:
    """An allow may be used for five minutes, or until a link ends or one that denies begins."""
    snapshot = snapshot_of("roles_for_a_while")

    assert at(expires) == decide(snapshot, question(snapshot, sub), at(time)).expires_time


SECONDS = st.integers(-5, 400)


def written(second: int | None) -> str:
    """Returns a time near the start as a policy writes it; None is no bound."""
    return "_" if second is None else f"{START + timedelta(seconds=second):%Y-%m-%d %H:%M:%S}"


@given(
    bounds=st.lists(st.tuples(st.none() | SECONDS, st.none() | SECONDS), min_size=4, max_size=4),
    asked=st.lists(SECONDS, min_size=1, max_size=6),
)
def test_an_answer_stays_until_it_expires(bounds: list[tuple[int | None, int | None]], asked: list[int]) -> None:
    """Whatever the times, an answer is what each link and rule says alone, and an allow is one until it expires."""
    role, lead, ban, rule = bounds
    links = (("ana", "staff", role), ("staff", "reader", lead), ("ana", "banned", ban))
    policy = [f"p, reader, {written(rule[0])}, {written(rule[1])}, allow", "p, banned, _, _, deny"]
    policy += [f"g, {child}, {parent}, {written(start)}, {written(end)}" for child, parent, (start, end) in links]
    model = (
        "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, start, end, eft\n"
        "[role_definition]\ng = _, _, (_, _)\n"
        "[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n"
        "[matchers]\nm = g(r.sub, p.sub) && timeMatch(p.start, p.end)\n"
    )
    files = {"model.conf": model, "policy.csv": "\n".join(policy), "gatebook.yaml": "role_conditions: {g: timeMatch}"}
    policy_set = load({path: text.encode() for path, text in files.items()}, "times")
    snapshot, reference = build_draft(policy_set, policy_set.digest, None), Reference(policy_set)
    ana = question(snapshot, "ana")

    def holds(bound: tuple[int | None, int | None], now: datetime) -> bool:
        start, end = (None if it is None else START + timedelta(seconds=it) for it in bound)
        return (start is None or now > start) and (end is None or now < end)

    def expected(now: datetime) -> bool:
        return all(holds(it, now) for it in (role, lead, rule)) and not holds(ban, now)

    ticks = [timedelta(microseconds=it) for it in (-1, 0, 1)]
    edges = {START + timedelta(seconds=it) for bound in bounds for it in bound if it is not None}
    times = sorted(
        {time + tick for time in (*edges, *(START + timedelta(seconds=it) for it in asked)) for tick in ticks}
    )
    for now in times:
        decision = decide_unless_standing(snapshot, ana, now)
        tokens = {"sub": "ana", "obj": "", "act": "", NOW: Moment(now)}
        assert expected(now) is decision.allowed
        assert (reference.evaluate(tokens).effect is Effect.ALLOW) is decision.allowed
        if decision.allowed:
            assert decision.expires_time is not None
            assert now < decision.expires_time <= now + TTL
            assert all(expected(later) for later in times if now <= later < decision.expires_time)


def test_without_a_time_nothing_is_allowed() -> None:
    """Where nobody says what time it is, an allow does not apply, and neither has a name of a token its place."""
    program = compile_program(set_of("roles_for_a_while"), None)
    for extra in ({}, {NOW: None}, {"now": Moment(START)}):
        assert evaluate(program, {"sub": "ana", "obj": "ledger", "act": "read", **extra}).effect is Effect.DENY
    assert program.timed
    assert program.decide is None


def test_the_context_of_a_request_does_not_say_what_time_it_is() -> None:
    """A caller may state whatever it likes under whatever name: the time is that of the decision."""
    snapshot = snapshot_of("roles_for_a_while")
    forged = {NOW: "2026-11-01 00:00:00.000000", "now": "2026-11-01 00:00:00.000000"}
    request = AccessRequest(subject=Entity("user", "ana", forged), action="read", resource="ledger", context=forged)

    assert not decide(snapshot, question_about(snapshot, ask(request), "caller"), at("2027-01-01 00:00:00")).allowed


def test_a_governed_set_may_ask_for_the_time() -> None:
    """Conditions of allows and masks follow the time of the decision, whatever was remembered of earlier ones."""
    policy_set = governed_set(
        "p, ana, t, read, *, timeMatch('_', '2026-11-02 00:00:00'), allow\n"
        "p2, ana, t, read, *, timeMatch('2026-11-01 00:00:00', '_'), nullify\n"
    )
    program, reference = compile_program(policy_set, None), Reference(policy_set)
    about: dict[str, Any] = {"subject": "ana", "attributes": {}, "columns": ["t.a"], "action": "read"}
    about |= {"purpose": "train", "context": {}}
    found = []
    for time in ("2026-10-31 12:00:00", "2026-11-01 12:00:00", "2026-11-02 00:00:00", "2026-10-31 12:00:00"):
        for row in (None, {"secret": True}):
            moment = Moment(at(time))
            verdicts = evaluate_columns(program, **about, row=row, now=moment)
            assert verdicts == reference.evaluate_columns(**about, row=row, now=moment)
            found.append((verdicts[0].effect is Effect.ALLOW, len(verdicts[0].masks), moment.until))
    first, second = at("2026-11-01 00:00:00.000001"), at("2026-11-02 00:00:00")

    assert [(True, 0, first), (True, 1, second), (False, 0, None), (True, 0, first)] == found[::2]
    assert found[::2] == found[1::2]


@pytest.mark.parametrize(
    ("start", "end", "now", "expected"),
    [
        ("_", "_", "2026-11-01 00:00:00", True),
        ("2026-02-30 00:00:00", "_", "2026-11-01 00:00:00", None),
        ("2026-1-1 0:0:0", "_", "2026-11-01 00:00:00", None),
        ("2026-01-01T00:00:00", "_", "2026-11-01 00:00:00", None),
        ("", "_", "2026-11-01 00:00:00", None),
        ("_", "2026-11-01 00:00:00Z", "2026-10-01 00:00:00", None),
        ("\u0662026-01-01 00:00:00", "_", "2026-11-01 00:00:00", None),
        ("2026-11-02 00:00:00", "2026-11-01 00:00:00", "2026-11-01 12:00:00", False),
    ],
)
def test_what_is_no_time_is_unknown(start: str, end: str, now: str, expected: bool | None) -> None:
    """A time is written in one way only; with another, nothing is known."""
    assert expected is time_match_at(start, end, Moment(at(now)))


def test_times_are_those_of_utc() -> None:
    """A clock of another zone shows the same moment."""
    elsewhere = at("2026-11-01 00:30:00").astimezone(timezone(timedelta(hours=9)))

    assert Moment(at("2026-11-01 00:30:00")) == Moment(elsewhere)
    assert time_match_at("2026-11-01 00:00:00", "2026-11-01 01:00:00", Moment(elsewhere))


def test_parameters_of_a_link_can_be_given_to_an_enforcer() -> None:
    """Parameters that were set count instead of those of the policy; `timeMatch` of one's own is one's own."""
    files = str(FOLDERS / "roles_for_a_while/model.conf"), str(FOLDERS / "roles_for_a_while/policy.csv")
    enforcer = Enforcer(*files, clock=lambda: at("2030-01-01 00:00:00"))
    enforcer.add_named_link_condition_func("g", "ana", "auditor", time_match)
    before = enforcer.enforce("ana", "ledger", "read")
    enforcer.set_named_link_condition_func_params("g", "ana", "auditor", "_", "2031-01-01 00:00:00")
    rules = FOLDERS / "times_in_rules"
    own = Enforcer(str(rules / "model.conf"), str(rules / "policy.csv"), functions={"timeMatch": lambda *_: True})

    assert (False, True) == (before, enforcer.enforce("ana", "ledger", "read"))
    assert not own.enforce("ana", "ledger", "read")
    assert not own.enforce("ben", "ledger", "read")


@pytest.mark.parametrize(
    ("changes", "invariant"),
    [
        ({"gatebook.yaml": "role_conditions: {g2: timeMatch}"}, "UNKNOWN_RELATION"),
        ({"gatebook.yaml": "role_conditions: {g: keyMatch}"}, "WRONG_VALUE"),
        ({"gatebook.yaml": "role_conditions: {h: timeMatch}"}, "MALFORMED_NAME"),
        ({"gatebook.yaml": "{}"}, "MISSING_CONDITION"),
        ({"policy.csv": "p, a, b, c, allow\ng, x, a, tomorrow, _"}, "MALFORMED_TIME"),
    ],
)
def test_settings_and_times_that_mean_nothing_are_refused(changes: dict[str, str], invariant: str) -> None:
    """A relation without two parameters, an unknown condition and a time that is none refuse the set."""
    files = {**read_folder(FOLDERS / "roles_for_a_while"), **{path: text.encode() for path, text in changes.items()}}
    with pytest.raises(PolicySetRefusedError) as refused:
        load(files, "times")

    assert invariant in {finding.invariant for finding in refused.value.findings}


def test_a_link_that_never_holds_is_told() -> None:
    """A link whose end is not after its start is a warning."""
    files = read_folder(FOLDERS / "roles_for_a_while")
    files["policy.csv"] += b"g, zoe, auditor, 2026-11-02 00:00:00, 2026-11-01 00:00:00\n"
    warnings = load(files, "times").warnings

    assert [("policy.csv", 9, "NEVER_HOLDS")] == [(it.file, it.line, it.invariant) for it in warnings]


def test_the_times_of_a_row_are_refused() -> None:
    """What would be left to whoever has the row has no time of a decision."""
    remarks = {
        text: [remark.invariant for remark in check(text, SCOPE)[1]]
        for text in ("timeMatch(r.row.start, '_')", "timeMatch(r.ctx.start, '_')")
    }

    assert {"timeMatch(r.row.start, '_')": ["TIME_OF_ROW"], "timeMatch(r.ctx.start, '_')": []} == remarks


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("policy.csv", ", True, ", ", timeMatch('_', '2030-01-01 00:00:00'), "),
        ("model.conf", " && eval(p.cond)", " && eval(p.cond) && timeMatch('_', '2030-01-01 00:00:00')"),
    ],
)
def test_authority_over_the_server_does_not_depend_on_the_time(file: str, old: str, new: str) -> None:
    """The door keeps its answers until the next publish, so that the set `gatebook` may not ask for the time."""
    files = read_folder(FOLDERS.parents[2] / "policies/gatebook")
    files[file] = files[file].decode().replace(old, new, 1).encode()
    findings = [it for it in shape_findings(load(files)) if "whatever the time" in it.message]

    assert [file] == [it.file for it in findings]
    assert findings[0].line > 0
