"""Guardrails: random sets against brute force over everybody, every circumstance and every row that can be told apart.

Nothing is PROVED of which brute force finds an access, and everything REFUTED is an access.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from typing import Any

import cvc5
import msgspec
import pytest
from tests.governed import GOVERNED_MODEL
from tests.property import whole_sets

from gatebook.engine.obligations import oblige
from gatebook.engine.reference import Reference
from gatebook.expression.environment import Named
from gatebook.expression.parse import parse
from gatebook.expression.truth import evaluate
from gatebook.governance.encode import named_texts
from gatebook.governance.prove import Prover, Result
from gatebook.governance.request import ABLE
from gatebook.governance.shown import SOMEBODY, Shown
from gatebook.governance.smt import Answer, Solver
from gatebook.governance.texts import Texts
from gatebook.policy.casts import cast_row
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.masks import MaskSpec, at_least_as_strict, parse_mask
from gatebook.policy.policy_set import PolicySet, load
from gatebook.values import Effect, MaskKind

SEEDS = 60
TRIED = 60
ROLES = ("role:a", "role:b", "role:c")
PURPOSES = ("train", "train.eval", "cost", "other")
ODD = (
    "r.row.level + 1 > 2",
    "r.row.level * 2 == 4",
    "r.row.level - r.sub.level > 0",
    "r.row.level % 2 == 1",
    "r.row.level % -3 == -1",
    "-r.row.level < -1",
    "r.sub.level + 0.1 == 0.3",
    "r.sub.level == True",
    "r.sub.level == 1",
    "r.sub.level == 1.0",
    "r.sub.level != '1'",
    "r.sub.level > 9007199254740992",
    "r.sub.team == ''",
    "r.sub.team != None",
    "r.sub.team < 'y'",
    "r.sub.team + 'x' == 'xx'",
    "r.sub.team in ('x', 1, True)",
    "r.sub.team not in ('x', 'y')",
    "'x' in r.sub.team",
    "r.row.team in r.sub.team",
    "(r.row.team, 1) == ('x', 1)",
    "(r.row.team, 1) == ('x', '1')",
    "r.row.active && r.sub.flag",
    "!r.sub.flag",
    "r.sub.flag == False || r.sub.flag",
    "keyMatch(r.row.team, 'x*')",
    "keyMatch(r.sub.team, 'x')",
    "regexMatch(r.row.team, '^x')",
    "regexMatch(r.sub.team, '^x|y$')",
    "r.ctx.net in ('corp', 'lan')",
    "r.ctx.net == r.sub.team",
    "r.ctx.shift == 1 && r.ctx.net == 'corp'",
    "r.sub.badge == 'gold' && r.ctx.net != 'corp'",
    "r.row.level / 2 == 1",
    "1 / r.row.level > 0",
    "ipMatch(r.ctx.net, '10.0.0.0/8')",
)


ATOMS = (*whole_sets.DECIDABLE, *ODD)
OF_SUBJECTS = tuple(atom for atom in ATOMS if "g(" not in atom)
"""What a guardrail may say of whom it speaks: roles it names otherwise."""


def condition(drawn: random.Random, among: Sequence[str] = ATOMS) -> str:
    """Draws a condition of up to three atoms."""
    atoms = [drawn.choice(among) for _ in range(drawn.choice((1, 1, 2, 3)))]
    atoms = [f"!({atom})" if drawn.random() < 0.2 else f"({atom})" for atom in atoms]
    text = atoms[0]
    for atom in atoms[1:]:
        text = f"({text} {drawn.choice(('&&', '||'))} {atom})"
    return text


def policy_of(drawn: random.Random) -> str:
    """Draws rules and links."""
    lines = []
    for child, parent in (("role:b", "role:a"), ("role:c", "role:b"), ("dora", "role:a")):
        if drawn.random() < 0.2:
            lines.append(f"g, {child}, {parent}")
    for _ in range(drawn.randint(2, 7)):
        role = drawn.choice(("role:a", "role:a", "role:b", "role:c"))
        node = drawn.choice(
            ("t.rows", "t.rows", "t.*", "t.rows.team", "t.rows.level", "t.sums", "tag:secret", "tag:plain")
        )
        action, purpose = (
            drawn.choice(("read", "read", "export")),
            drawn.choice(("*", "*", "train", "train.eval", "cost")),
        )
        kind = drawn.choice(("p", "p", "p", "p2", "p2", "p3"))
        ends = {
            "p": ("allow", "allow", "deny"),
            "p2": ("nullify", "none", "redact", "regex:a:b", "regex:b:c"),
            "p3": ("3", "5"),
        }
        stated = "True" if drawn.random() < 0.35 else condition(drawn)
        lines.append(f"{kind}, {role}, {node}, {action}, {purpose}, {stated}, {drawn.choice(ends[kind])}")
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def form_of(drawn: random.Random) -> dict[str, Any]:  # noqa: C901  # one draw after the other
    """Draws a form of access."""
    form: dict[str, Any] = {"actions": drawn.choice((["read"], ["read", "export"]))}
    if drawn.random() < 0.5:
        form["on"] = drawn.sample(("t.rows", "tag:secret", "t.sums", "t.rows.team", "t.*"), drawn.choice((1, 2)))
    if drawn.random() < 0.4:
        form[drawn.choice(("purposes", "purposes_beyond"))] = [drawn.choice(("train", "cost", "train.eval"))]
    who: dict[str, Any] = {}
    if drawn.random() < 0.6:
        who["without"] = drawn.sample(ROLES, drawn.choice((1, 2, 2, 3)))
    if drawn.random() < 0.2:
        who["with"] = [drawn.choice(ROLES)]
    if drawn.random() < 0.4:
        who["where"] = condition(drawn, OF_SUBJECTS)
    if who:
        form["who"] = who
    unless: dict[str, Any] = {}
    if drawn.random() < 0.5:
        unless["masked"] = drawn.choice(("any", "any", ["redact"], ["nullify", "regex:a:b"]))
    if drawn.random() < 0.3:
        unless["group"] = drawn.choice((3, 4, 5))
    if drawn.random() < 0.3:
        unless["own_rows"] = True
    if unless:
        form["unless"] = unless
    return form


def set_of(policy: str, form: Mapping[str, Any]) -> PolicySet:
    """Returns a set with one guardrail."""
    files = {
        "model.conf": GOVERNED_MODEL,
        "policy.csv": policy,
        "gatebook.yaml": whole_sets.SETTINGS,
        "catalogue.yaml": whole_sets.CATALOGUE,
        "purposes.yaml": whole_sets.PURPOSES,
        "guardrails.yaml": msgspec.json.encode({"guardrails": {"it": {"never": form}}}).decode(),
    }
    return load({name: text.encode() for name, text in files.items()}, accepted=True)


def somebodies(texts: str) -> Iterator[Subject]:
    """Yields everybody who could be in a directory: all roles, with all attributes that can be told apart."""
    teams = (None, "x", "y", "z", "", 1, True, ("x",), (), ("x", "y")) if "r.sub.team" in texts else (None,)
    levels = (None, 0, 1, 1.0, 2, 3, 0.2, True, "1", 2**53, 2**53 + 1, -1) if "r.sub.level" in texts else (None,)
    flags = (None, True, False, "x") if "r.sub.flag" in texts else (None,)
    bosses = (None, "ana", "ben") if "r.sub.boss" in texts else (None,)
    badges = (None, "gold") if "r.sub.badge" in texts else (None,)
    groups = chain.from_iterable(combinations(ROLES, size) for size in range(4))
    for some, team, level, flag, boss, badge in product(groups, teams, levels, flags, bosses, badges):
        named = {"team": team, "level": level, "flag": flag, "boss": boss, "badge": badge}
        for id_ in ("ana", "ben", "dora", "zoe"):
            yield Subject("user", id_, {k: v for k, v in named.items() if v is not None}, some)


def circumstances(texts: str) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yields what callers state."""
    nets = (None, "corp", "lan", "x", "ana", "10.1.2.3", {"z": 1}, ["corp"]) if "r.ctx.net" in texts else (None,)
    for net, badge in product(nets, (None, "gold", "x") if "r.sub.badge" in texts else (None,)):
        yield "local", {} if net is None else {"net": net}, {} if badge is None else {"badge": badge}
    for shift in (1, 2, "1") if "r.ctx.shift" in texts else ():
        yield "kiosk", {"shift": shift}, {}


def rows(texts: str) -> Iterator[Mapping[str, Any]]:
    """Yields rows."""
    teams = (None, "x", "y", "a", "", "xy") if "r.row.team" in texts else ("a",)
    levels = (None, -2, -1, 0, 1, 2, 3) if "r.row.level" in texts else (0,)
    for who, team, level, active in product(
        ("ana", "ben", "zoe", None), teams, levels, (None, True, False) if "r.row.active" in texts else (True,)
    ):
        yield {"who": who, "team": team, "level": level, "active": active}


def is_access(  # noqa: C901, PLR0912  # the whole meaning, once more
    policy_set: PolicySet, form: Mapping[str, Any], asked: tuple[Any, ...]
) -> bool:
    """Tells whether a request is allowed by the reference, and of a form: written once more, for itself."""
    subject, (caller, context, stated), row, dataset_id, column, action, purpose = asked
    catalogue, purposes = policy_set.catalogue, policy_set.purposes
    assert catalogue is not None
    assert purposes is not None
    dataset = catalogue.datasets[dataset_id]
    lineage = set(purposes.lineage(purpose))
    if lineage.isdisjoint(dataset.purposes) or action not in form["actions"]:
        return False
    if "purposes" in form and lineage.isdisjoint(form["purposes"]):
        return False
    if not lineage.isdisjoint(form.get("purposes_beyond", ())):
        return False
    nodes = {column.node, dataset.id, "t.*", *column.tags}
    nodes |= {"tag:secret"} if "tag:secret.key" in nodes else set()
    if "on" in form and nodes.isdisjoint(form["on"]):
        return False
    believed = policy_set.settings.believed(caller)
    attributes = {k: v for k, v in stated.items() if k in believed.subject} | dict(subject.attributes)
    cast = cast_row(dataset, row)
    reference = Reference(policy_set, Directory("", {subject.id: subject}))
    (verdict,) = reference.evaluate_columns(
        subject=subject.id, attributes=attributes, columns=[column.node], action=action, purpose=purpose,
        context=context, row=cast,
    )  # fmt: skip
    if verdict.effect is not Effect.ALLOW:
        return False
    obliged = oblige(dataset, (verdict,), ABLE, key_id="k", mask_tags=catalogue.mask_tags)
    if obliged.failed is not None:
        return False
    who = form.get("who", {})
    if set(who.get("without", ())) & set(subject.groups):
        return False
    links = [(edge.child, edge.parent) for edge in policy_set.edges if edge.gtype == "g"]
    held = {subject.id, *subject.groups}
    for _ in range(4):
        held |= {parent for child, parent in links if child in held}
    if "with" in who and held.isdisjoint(who["with"]):
        return False
    environment = {"r": {"sub": Named(subject.id, {**attributes, "id": subject.id}), "ctx": context, "row": cast}}
    if "where" in who and evaluate(parse(who["where"]), environment) is False:
        return False
    unless = form.get("unless", {})
    mask = obliged.columns[0].masks[0] if obliged.columns[0].masks else None
    if mask is not None and mask.kind is not MaskKind.NONE and "masked" in unless:
        spec = MaskSpec(mask.kind, tuple(v for k, v in mask.parameters.items() if k != "type"))
        wanted = unless["masked"]
        if wanted == "any" or any(at_least_as_strict(spec, parse_mask(text)) for text in wanted):
            return False
    k = max(
        obliged.minimum_group.k if obliged.minimum_group else 0, 0 if dataset.subject_keys else dataset.group_minimum
    )
    if "group" in unless and k >= unless["group"]:
        return False
    return not ("own_rows" in unless and dataset.subject_keys and row["who"] == subject.id)


def violations(
    policy_set: PolicySet, policy: str, form: Mapping[str, Any], seed: int, tried_max: int
) -> Iterator[tuple[Any, ...]]:
    """Yields accesses of a form among some of everything that can be asked, chosen by a seed."""
    texts = f"{policy} {form.get('who', {}).get('where', '')}"
    catalogue = policy_set.catalogue
    assert catalogue is not None
    choices: list[list[Any]] = [list(somebodies(texts)), list(circumstances(texts)), list(rows(texts))]
    asked = [
        (dataset.id, column, action, purpose)
        for dataset in catalogue.datasets.values()
        for column in dataset.columns.values()
        for action in form["actions"]
        for purpose in PURPOSES[:3]
    ]
    drawn = random.Random(seed)
    for _ in range(tried_max):
        one = (*(drawn.choice(some) for some in choices), *drawn.choice(asked))
        if is_access(policy_set, form, one):
            yield one


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_proved_that_somebody_could_do(seed: int) -> None:
    """Of random sets with conditions of all sorts: what is PROVED no access refutes; what is REFUTED one shows."""
    drawn = random.Random(seed)
    policy, form = policy_of(drawn), form_of(drawn)
    policy_set = set_of(policy, form)
    (verdict,) = Prover(policy_set).verdicts()

    if verdict.result is Result.REFUTED:
        assert is_access(policy_set, form, asked_of(policy_set, verdict.shown[0])), (policy, form)
        return
    found = next(violations(policy_set, policy, form, seed, TRIED), None)
    assert found is None or verdict.result is Result.UNKNOWN, (policy, form, found)
    assert verdict.result is Result.PROVED or verdict.unsaid or verdict.why


def asked_of(policy_set: PolicySet, shown: Shown) -> tuple[Any, ...]:
    """Returns what is shown as it is asked here."""
    request = shown.request
    catalogue = policy_set.catalogue
    assert catalogue is not None
    column = catalogue.datasets[request.resource].columns[request.columns[0]]
    around = (shown.caller, request.context, request.subject.properties)
    row = request.row or {"who": None}
    return (shown.subject, around, row, request.resource, column, request.action, request.purpose)


SECOND = 40
"""Random sets of which another solver is asked too."""


def test_another_solver_agrees() -> None:
    """Each question about random sets, as SMT-LIB 2, has the same answer from cvc5."""
    asked: dict[str, Answer] = {}
    for seed in range(1_000, 1_000 + SECOND):
        drawn = random.Random(seed)
        policy_set = set_of(policy_of(drawn), form_of(drawn))
        solver = Solver(Texts({*named_texts(policy_set), SOMEBODY}))
        solver.transcript, solver.answers = [], []
        (_,) = Prover(policy_set, solver).verdicts()
        asked |= dict(zip(solver.transcript, solver.answers, strict=True))
    answers = {text: by_cvc5(text) for text in asked}

    assert {Answer.SOME, Answer.NONE} == set(answers.values())
    assert answers == asked


def by_cvc5(text: str) -> Answer:
    """Returns what cvc5 says of a question."""
    solver = cvc5.Solver()
    solver.setOption("tlimit-per", "20000")
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, f"(set-logic ALL)\n{text}", "question")
    symbols = parser.getSymbolManager()
    said = ""
    while not (command := parser.nextCommand()).isNull():
        said += command.invoke(solver, symbols)
    return {"sat": Answer.SOME, "unsat": Answer.NONE}.get(said.strip(), Answer.UNDECIDED)
