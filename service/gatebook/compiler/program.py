"""Compiles a policy set into a program: role graphs, rule indexes and closures.

Owns what is prepared once so that a request need not do it. Promises:

1. a program is immutable but for bounded memos, and any number of threads may read it at once;
2. it answers what `engine.reference` answers, whatever the rules;
3. what a request costs does not depend on the rules that do not concern it;
4. what is not understood is refused, with file, line and column, never left out.

Of a governed set, `p` rules allow or deny, `p2` rules give masks and `p3` rules minimum groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from gatebook.compiler.decide import ALLOW, DENY, Decide, compile_decide
from gatebook.compiler.find import Find, compile_find
from gatebook.compiler.lookups import Graph
from gatebook.compiler.loose_roles import LooseRoles
from gatebook.compiler.plan import Planner
from gatebook.compiler.remembered import Remembered
from gatebook.compiler.roles import Roles
from gatebook.compiler.section import NOT_UNDERSTOOD, Section, check_matcher, read_rules
from gatebook.compiler.split import calls_eval, reads_token
from gatebook.compiler.timed import with_time
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.moments import TIME_MATCH, time_match
from gatebook.expression.tree import Expression
from gatebook.expression.truth import Functions
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.brought import NOTHING_BROUGHT, Brought, LinkConditions, RolePatterns, named_by
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.directory import Directory
from gatebook.policy.model import EffectKind, Model, RoleDefinition, Sections
from gatebook.policy.policy_set import GOVERNED, PolicySet
from gatebook.values import Edge, Finding, Rule

EFFECT_FIELD = "eft"
SUBJECT, RESOURCE, ACTION, PURPOSE = "sub", "obj", "act", "purpose"


GOVERNED_SECTIONS = (Sections("r", "p", "m"), Sections("r", "p2", "m2"), Sections("r", "p3", "m3"))


class Program(msgspec.Struct, frozen=True):
    """A compiled policy set, for one directory.

    `tokens` are the names of a request's parts, and `bindings` where a plain set takes them from, if not
    from the usual place. The planners know these groups of rules:

        rules            all `p` rules, of a plain set whose effect is by priority
        allows, denies   the `p` rules of that effect
        masks, groups    the `p2` and `p3` rules of a governed set
        granted, asked   the allows of a governed set without their conditions; without the purpose too
        about_resource, about_subject   (of `near`) allows, by their resource and action, or subject, alone

    Of a request to a plain set, given as values, `decide` says whether it is allowed, where it can, and `find` which
    rules of a group come into question.

    What a program that is `timed` answers depends on the time: among the tokens there must be a `Moment` as `NOW`, else
    what depends on it is UNKNOWN. Such a program has no `decide`.
    """

    main: Section
    tokens: tuple[str, ...]
    bindings: Mapping[str, str]
    effect: EffectKind
    effect_of: Callable[[Rule], str]
    planner: Planner
    near: Planner
    remembered: Remembered
    timed: bool = False
    decide: Decide | None = None
    find: Mapping[str, Find] = {}


def compile_program(
    policy_set: PolicySet,
    directory: Directory | None,
    pause: Pause = no_pause,
    *,
    sections: Sections | None = None,
    brought: Brought = NOTHING_BROUGHT,
) -> Program:
    """Compiles a policy set, with the group memberships of the directory as further `g` links.

    It is work for a second or many, in which `pause` is called after every few rules. `sections` decide in a plain set
    instead of those that it names itself; `brought` are functions that its files cannot hold.

    Raises:
        PolicySetRefusedError: a matcher or condition is not understood; it carries all findings.
    """
    model = policy_set.model
    governed = policy_set.kind == GOVERNED
    edges = (*policy_set.edges, *(directory.edges() if directory is not None else ()))
    brought = brought_to(policy_set, brought)
    timed = timed_functions(model, brought)
    roles = {key: _graph(model.roles[key], edges, brought, pause) for key in model.roles}
    given = brought.given()
    functions: Functions = {
        TIME_MATCH: time_match,
        **{
            key: graph.linked_at if key in timed and isinstance(graph, LooseRoles) else graph.linked
            for key, graph in roles.items()
        },
        **given,
    }
    loose = frozenset(key for key, graph in roles.items() if isinstance(graph, LooseRoles))
    parts: dict[str, Section] = {}
    findings: list[Finding] = []
    for chosen in sections_of(policy_set, sections):
        if undefined := _undefined(model, chosen):
            findings += undefined
            continue
        read, unread = read_rules(model, chosen, given, rules_of(policy_set, chosen, pause), pause, timed)
        findings += check_matcher(model, chosen, given) + unread
        matcher, names = model.matchers[chosen.matcher], model.policies[chosen.rules].tokens
        matcher = msgspec.structs.replace(matcher, expression=with_time(matcher.expression, chosen.request, timed))
        late_token = RESOURCE if governed else ""
        parts[chosen.rules] = Section(chosen, matcher, names, read, model, functions, given, loose, late_token)
    if governed and model.effects["e"].kind is not EffectKind.ALLOW_AND_DENY:
        message = f"a set with a catalogue has the effect `{EffectKind.ALLOW_AND_DENY.value}`"
        findings.append(Finding(MODEL_FILE, model.effects["e"].line, 1, NOT_UNDERSTOOD, message))
    if findings:
        message = f"policy set `{policy_set.name}` is not understood: {findings[0].message}"
        raise PolicySetRefusedError(message, sorted(findings))
    return _program(policy_set, parts, roles, pause)


def brought_to(policy_set: PolicySet, brought: Brought) -> Brought:
    """Returns what is brought along, with the patterns and conditions that a plain set names itself."""
    return named_by(policy_set.settings, brought)


def timed_functions(model: Model, brought: Brought) -> frozenset[str]:
    """Returns the functions that depend on the time: `timeMatch`, and relations whose links hold by it."""
    relations = {key for key, role in model.roles.items() if role.parameters and brought.is_timed(key)}
    return frozenset(relations | ({TIME_MATCH} - brought.functions.keys()))


def _graph(role: RoleDefinition, edges: Iterable[Edge], brought: Brought, pause: Pause) -> Graph:
    own = (edge for edge in edges if edge.gtype == role.key)
    conditions = brought.conditions.get(role.key, LinkConditions()) if role.parameters else None
    patterns = brought.patterns.get(role.key)
    if patterns is None and conditions is None:
        return Roles(own, pause)
    return LooseRoles(own, patterns or RolePatterns(), conditions, pause)


def sections_of(policy_set: PolicySet, sections: Sections | None = None) -> tuple[Sections, ...]:
    """Returns what decides: in a governed set the rules, masks and groups; in a plain one what is asked for."""
    if policy_set.kind == GOVERNED:
        return tuple(it for it in GOVERNED_SECTIONS if it.rules in policy_set.model.policies)
    return (sections or policy_set.sections,)


def _undefined(model: Model, sections: Sections) -> list[Finding]:
    """Returns what of the sections the model does not define."""
    wanted = (
        ("request", sections.request, model.requests.keys()),
        ("rules", sections.rules, model.policies.keys()),
        ("matcher", sections.matcher, model.matchers.keys()),
    )
    return [
        Finding(MODEL_FILE, 0, 0, NOT_UNDERSTOOD, f"the model does not define the {kind} `{key}`")
        for kind, key, defined in wanted
        if key not in defined
    ]


def rules_of(policy_set: PolicySet, sections: Sections, pause: Pause = no_pause) -> tuple[Rule, ...]:
    """Returns the rules of a type that decide, in order.

    As in Casbin, a matcher without any rule is evaluated once, as if one rule of empty fields, the effect among them,
    allowed; unless it holds a condition of the rule.
    """
    key = sections.rules
    rules = tuple([rule for rule in paced(policy_set.rules, pause) if rule.ptype == key])
    matcher = policy_set.model.matchers[sections.matcher]
    if rules or policy_set.kind == GOVERNED or calls_eval(matcher.expression):
        return rules
    fields = ("",) * len(policy_set.model.policies[key].tokens)
    return (Rule(key, fields, MODEL_FILE, matcher.line, matcher.text),)


def effect_of(model: Model, key: str = "p") -> Callable[[Rule], str]:
    """Returns what reads the effect of a rule: `allow`, where rules have none, or there is no rule."""
    names = model.policies[key].tokens
    if EFFECT_FIELD not in names:
        return lambda _rule: ALLOW
    position = names.index(EFFECT_FIELD)
    return lambda rule: ALLOW if rule.file == MODEL_FILE else rule.fields[position]


def _program(
    policy_set: PolicySet, sections: Mapping[str, Section], roles: Mapping[str, Graph], pause: Pause
) -> Program:
    model, main = policy_set.model, next(iter(sections.values()))
    effect_kind, governed = model.effects["e"].kind, policy_set.kind == GOVERNED
    effect = effect_of(model, main.key)

    def allows(rule: Rule) -> bool:
        return effect(rule) == ALLOW

    def denies(rule: Rule) -> bool:
        return effect(rule) == DENY

    def unconditional(part: Expression) -> bool:
        return not calls_eval(part)

    def speaks_of(*tokens: str) -> Callable[[Expression], bool]:
        return lambda part: unconditional(part) and any(reads_token(part, token) for token in tokens)

    groups = {"allows": main.indexes(allows, pause=pause), "denies": main.indexes(denies, pause=pause)}
    if governed:
        groups["masks"], groups["groups"] = (
            sections[key].indexes(pause=pause) if key in sections else () for key in ("p2", "p3")
        )
        groups["granted"] = main.indexes(allows, unconditional, pause)
        groups["asked"] = main.indexes(
            allows, lambda part: unconditional(part) and not reads_token(part, PURPOSE), pause
        )
    elif effect_kind.in_order:
        groups = {"rules": main.indexes(pause=pause)}
    near = {
        "about_resource": main.indexes(allows, speaks_of(RESOURCE, ACTION), pause),
        "about_subject": main.indexes(allows, speaks_of(SUBJECT), pause),
    }
    tokens = model.requests[main.sections.request].tokens
    timed = any(section.reads_time(pause) for section in sections.values())
    return Program(
        main=main,
        tokens=tokens,
        bindings=policy_set.settings.request,
        effect=effect_kind,
        effect_of=effect,
        planner=Planner(groups, roles, main.late_token, pause),
        near=Planner(near, roles, pause=pause),
        remembered=Remembered(),
        timed=timed,
        decide=None if governed or timed else compile_decide(effect_kind, tokens, groups, roles, effect, pause),
        find={} if governed else compile_find(tokens, groups, roles, pause),
    )
