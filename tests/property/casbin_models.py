"""Random Casbin models, with rules and requests for them.

Owns what is drawn for comparing the engine with its definition and with Casbin. Promises:

1. the parts of a model are drawn on their own (tokens, roles, effect, matcher, order of the fields), so that what
   works alone is also met together;
2. names are few, so that rules, roles and requests meet often;
3. what is drawn, Casbin can read: it answers unless a value is missing or of another kind.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st
from tests.property.casbin_names import (
    ATTRIBUTED,
    BESIDE,
    BROUGHT_FUNCTION,
    BY_SUBJECT,
    CALCULATIONS,
    CHAIN_MAX,
    DOMAIN_PATTERNS,
    DOMAINS,
    FIELDS,
    FIRST,
    GROUPS,
    KINDS,
    NAME_PATTERNS,
    NO_PATTERNS,
    OWN_FUNCTIONS,
    PARAMETERS,
    ROLES,
    SECTIONS,
    SUBJECTS,
    UNLIKE,
    Patterns,
)
from tests.property.strategies import ATTRIBUTES, EFFECTS, conditions

from gatebook.policy.model import Sections

RULES_MAX = 8


class Drawn(msgspec.Struct, frozen=True):
    """A model: the kinds of what its requests and rules hold, and the texts of its definitions.

    `sections` are the keys of what decides; where they are not the first ones, a list of who may do what stands there.
    """

    request: Mapping[str, str]
    rule: Mapping[str, str]
    roles: Mapping[str, int]
    effect: str
    matcher: str
    sections: Sections = FIRST
    patterns: Mapping[str, Patterns] = {}
    conditional: bool = False
    """Whether the links of `g`, which is then the only relation, have a parameter, and hold under a condition."""

    @property
    def text(self) -> str:
        """Returns the text of `model.conf`."""
        parameters = ", (_)" if self.conditional else ""
        roles = "".join(f"{key} = {', '.join('_' * arity)}{parameters}\n" for key, arity in self.roles.items())
        second = self.sections != FIRST
        requests = {"r": "sub, obj, act"} if second else {}
        requests[self.sections.request] = ", ".join(self.request)
        rules = {"p": "sub, obj, act"} if second else {}
        rules[self.sections.rules] = ", ".join(self.rule)
        matchers = {"m": " && ".join(f"r.{token} == p.{token}" for token in ("sub", "obj", "act"))} if second else {}
        matchers[self.sections.matcher] = self.named(self.matcher)
        return (
            f"[request_definition]\n{_options(requests)}[policy_definition]\n{_options(rules)}"
            + (f"[role_definition]\n{roles}" if roles else "")
            + f"[policy_effect]\ne = {EFFECTS[self.effect]}\n[matchers]\n{_options(matchers)}"
        )

    def named(self, text: str) -> str:
        """Returns an expression over `r` and `p` with the names of the sections that decide."""
        return re.sub(r"\br\.", f"{self.sections.request}.", re.sub(r"\bp\.", f"{self.sections.rules}.", text))


def _options(definitions: Mapping[str, str]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in definitions.items())


class Case(msgspec.Struct, frozen=True):
    """A model with its rules, and the attributes of what requests name."""

    model: Drawn
    rules: tuple[tuple[str, ...], ...]
    links: tuple[tuple[str, ...], ...]
    attributes: Mapping[str, Mapping[str, Any]]

    @property
    def policy(self) -> str:
        """Returns the text of `policy.csv`."""
        sections, conditions = self.model.sections, [kind == "cond" for kind in self.model.rule.values()]
        named = [
            tuple(
                self.model.named(it) if is_condition else it for it, is_condition in zip(rule, conditions, strict=True)
            )
            for rule in self.rules
        ]
        beside = () if sections == FIRST else BESIDE
        lines = (*beside, *((sections.rules, *rule) for rule in named), *self.links)
        return "".join(f"{', '.join(line)}\n" for line in lines)

    def requests(self, most: int) -> Iterator[tuple[str, ...]]:
        """Yields at most `most` requests, each once: those near to the rules, then others spread over all there are."""
        yield from itertools.islice(dict.fromkeys(itertools.chain(self._near(), self._spread(most))), most)

    def _near(self) -> Iterator[tuple[str, ...]]:
        """Yields what each rule literally speaks of, then the same with one token changed."""
        asked = list(dict.fromkeys(self._like(rule) for rule in self.rules))
        yield from asked
        for position, kind in enumerate(self.model.request.values()):
            for request in asked:
                for value in KINDS[kind].request:
                    yield (*request[:position], value, *request[position + 1 :])

    def _like(self, rule: tuple[str, ...]) -> tuple[str, ...]:
        fields = dict(zip(self.model.rule, rule, strict=True))
        asked = ((fields.get(token, ""), KINDS[kind].request) for token, kind in self.model.request.items())
        return tuple(field if field in usual else usual[len(field) % len(usual)] for field, usual in asked)

    def _spread(self, most: int) -> Iterator[tuple[str, ...]]:
        every = list(itertools.product(*(KINDS[kind].request for kind in self.model.request.values())))
        # The step has no divisor in common with the number, so that each token takes all of its values.
        step = next(it for it in itertools.count(max(1, len(every) * 5 // 8)) if math.gcd(it, len(every)) == 1)
        yield from (every[number * step % len(every)] for number in range(min(most, len(every))))


class Choices(msgspec.Struct, frozen=True):
    """What of a model may be chosen; of how many relations one matches names as patterns, or has conditions."""

    effects: tuple[str, ...] = (*EFFECTS, "both")
    sections: tuple[Sections, ...] = SECTIONS
    objects: tuple[str, ...] = ("obj", "obj", "obj", "path", "path", "glob", "pattern")
    patterned: int = 12
    conditioned: int = 4


USUAL_CHOICES = Choices()


@st.composite
def cases(draw: st.DrawFn, choices: Choices = USUAL_CHOICES) -> Case:
    """Draws a model with its rules."""
    model = draw(models(choices))
    rules = draw(_rules(model, RULES_MAX))
    attributes = draw(st.fixed_dictionaries(dict.fromkeys(ATTRIBUTED, ATTRIBUTES)))
    return Case(model, rules, draw(_links(model)) if model.roles else (), attributes)


@st.composite
def models(draw: st.DrawFn, choices: Choices = USUAL_CHOICES) -> Drawn:
    """Draws a model."""
    domains = draw(st.sampled_from(((), (), ("dom",), ("dom",), ("dom", "home"))))
    kinds = {
        "sub": "sub",
        **dict.fromkeys(domains, "dom"),
        "obj": draw(st.sampled_from(choices.objects)),
        "act": draw(st.sampled_from(("act", "act", "method"))),
        **({"ip": "net"} if draw(st.integers(0, 5)) == 0 else {}),
    }
    fields = dict(it for it in kinds.items() if it[0] != "home")
    effect = draw(st.sampled_from(choices.effects))
    if effect != "allow" or draw(st.booleans()):
        fields["eft"] = "eft"
    if draw(st.integers(0, 1 if effect == "priority" else 7)) == 0:
        fields["priority"] = "priority"
    if draw(st.integers(0, 3)) == 0:
        fields["cond"] = "cond"
    if draw(st.integers(0, 2)) == 0:  # the order of the fields means nothing but to the one who forgets that
        fields = {token: fields[token] for token in draw(st.permutations(tuple(fields)))}
    arities = {0: (2,), 1: (2, 3), 2: (2, 3, 3, 3, 4)}[len(domains)]
    roles = {
        key: draw(st.sampled_from(arities)) for key in ("g", "g2", "g3")[: draw(st.sampled_from((0, 1, 1, 2, 2, 3)))]
    }
    if effect == BY_SUBJECT:  # Casbin takes the first field for the subject, and wants roles
        fields = {"sub": "sub", **fields}
        roles = {"g": 2, **roles}
    sections = draw(st.sampled_from(choices.sections))
    patterns = draw(_patterns(roles, choices.patterned)) if roles and effect != BY_SUBJECT else {}
    # Casbin has conditions for all relations or for none, and keeps them by the names of a link.
    conditional = (
        roles == {"g": 2} and not patterns and effect != BY_SUBJECT and draw(st.integers(1, choices.conditioned)) == 1
    )
    return Drawn(kinds, fields, roles, effect, draw(_matchers(kinds, fields, roles)), sections, patterns, conditional)


@st.composite
def _patterns(draw: st.DrawFn, roles: Mapping[str, int], often: int) -> Mapping[str, Patterns]:
    """Draws for few relations how they match names, and for some how they match domains."""
    drawn = {
        key: Patterns(
            draw(st.sampled_from(("keyMatch", "keyMatch2"))) if draw(st.integers(1, often)) == 1 else "",
            "keyMatch" if arity > 2 and draw(st.integers(1, 4)) == 1 else "",
        )
        for key, arity in roles.items()
    }
    return {key: patterns for key, patterns in drawn.items() if patterns != NO_PATTERNS}


def _matchers(request: Mapping[str, str], rule: Mapping[str, str], roles: Mapping[str, int]) -> st.SearchStrategy[str]:
    """Draws alternatives of which each looks at most tokens, in any order."""
    own = [_looks(token, kind, request, roles) for token, kind in request.items() if token in rule]
    other = _conditions().map(lambda text: f"({text})")
    if "home" in request:
        other |= st.sampled_from(("r.home == r.dom", "r.home == p.dom", "r.home != 'other'"))
    if "cond" in rule:
        own.append(st.just("eval(p.cond)"))

    @st.composite
    def alternative(draw: st.DrawFn) -> str:
        parts = [draw(it) for it in own if draw(st.integers(0, 9))]
        if draw(st.integers(0, 3)) == 0 or not parts:
            parts.append(draw(other))
        return " && ".join(draw(st.permutations(parts)))

    return st.lists(alternative(), min_size=1, max_size=2).map(" || ".join)


def _conditions() -> st.SearchStrategy[str]:
    usual, calculated = conditions("r.sub", "r.obj"), st.sampled_from(CALCULATIONS)
    return st.integers(0, 9).flatmap(
        lambda number: st.sampled_from(UNLIKE) if number == 0 else usual if number % 3 else calculated
    )


def _looks(token: str, kind: str, request: Mapping[str, str], roles: Mapping[str, int]) -> st.SearchStrategy[str]:
    """Draws one way to look at a token, or two of them put together."""
    usual = _usual(token, kind, request, roles)
    odd = _odd(token, kind, request, roles)
    one = st.sampled_from((*usual, *usual, *odd))
    two = st.tuples(one, st.sampled_from((*usual, *odd)))
    return st.one_of(
        st.sampled_from(usual),
        st.sampled_from(usual),
        one,
        two.map(lambda pair: f"({pair[0]} || {pair[1]})"),
        two.map(lambda pair: f"({pair[0]} && {pair[1]})"),
        one.map(lambda text: f"!({text})"),
    )


def _usual(token: str, kind: str, request: Mapping[str, str], roles: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the ways in which rules are looked up."""
    ways = [f"r.{token} == p.{token}"]
    ways += [f"{function}(r.{token}, p.{token})" for function in OWN_FUNCTIONS.get(kind, ())]
    role = {"sub": "g", "obj": "g2", "act": "g3"}.get(kind, "")
    if role in roles:
        ways += [f"{role}(r.{token}, p.{token}{domain})" for domain in _domains(roles[role], request)] * 2
    return tuple(ways)


def _odd(token: str, kind: str, request: Mapping[str, str], roles: Mapping[str, int]) -> tuple[str, ...]:
    """Returns ways that few models have."""
    first, second, *_ = KINDS[kind].request
    ways = [
        f"p.{token} == '*'",
        f"p.{token} == r.{token}",
        f"r.{token} == '{first}'",
        f"'{second}' != r.{token}",
        f"r.{token} in ('{first}', '{second}')",
        f"r.{token} not in ('{first}', p.{token})",
        f"p.{token} in ('*', r.{token})",
        f"r.{token} != p.{token}",
        f"r.{token} + '' == p.{token}",
    ]
    ways.append(f"{BROUGHT_FUNCTION}(r.{token}, p.{token})")
    if kind == "sub":
        ways += ["r.sub == 'root'", "r.sub == r.obj.owner", "r.obj.owner == p.sub", "r.sub.team == p.obj"]
    for role, arity in roles.items():
        for domain in _domains(arity, request)[:1]:
            ways.append(f"{role}(p.{token}, r.{token}{domain})")
            ways.append(f"{role}(r.{token}, '{ROLES[0] if kind == 'sub' else GROUPS[0]}'{domain})")
    return tuple(ways)


def _domains(arity: int, request: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the last argument of a role function, in the order of their usefulness."""
    if arity == 2:
        return ("",)
    if arity > 3:
        return (", r.dom, r.home", ", p.dom, r.home", f", '{DOMAINS[0]}', r.dom")
    return (", r.dom", ", p.dom", f", '{DOMAINS[0]}'", *([", r.home"] if "home" in request else []))


@st.composite
def _rules(draw: st.DrawFn, model: Drawn, rules_max: int) -> tuple[tuple[str, ...], ...]:
    """Draws the fields of rules for a model."""
    condition = _conditions()
    drawn = [condition if kind == "cond" else st.sampled_from(_values(kind)) for kind in model.rule.values()]
    least = draw(st.sampled_from((0, 4, rules_max)))
    if not least and ("eval(" in model.matcher or "net" in model.rule.values()):
        least = 1  # neither a condition nor an address can be empty
    return tuple(draw(st.lists(st.tuples(*drawn), min_size=least, max_size=rules_max, unique=True)))


@st.composite
def _links(draw: st.DrawFn, model: Drawn) -> tuple[tuple[str, ...], ...]:
    """Draws the links of the roles of a model, now and then a chain of them that is long."""
    links: list[tuple[str, ...]] = []
    for key, arity in model.roles.items():
        nodes = {"g": SUBJECTS[:-1], "g2": KINDS["obj"].rule[:-1], "g3": ("read", "write", "own")}[key]
        parents = {"g": ROLES, "g2": GROUPS, "g3": ("write", "own")}[key]
        patterns = model.patterns.get(key, NO_PATTERNS)
        nodes = (*nodes, *(NAME_PATTERNS if patterns.names else ()))
        domains = [st.sampled_from((*DOMAINS, *(DOMAIN_PATTERNS if patterns.domains else ())))] * (arity - 2)
        edge = st.tuples(st.just(key), st.sampled_from(nodes), st.sampled_from(parents), *domains)
        links += draw(st.lists(edge, min_size=draw(st.integers(0, 3)), max_size=6, unique=True))
        if key == "g" and draw(st.integers(0, 2)) == 0:
            between = (
                ROLES[:2] if draw(st.booleans()) else [f"link{it}" for it in range(draw(st.integers(7, CHAIN_MAX)))]
            )
            chain = ("ana", *between, ROLES[2])
            links += [(key, *pair, *(DOMAINS * 2)[: arity - 2]) for pair in itertools.pairwise(chain)]
    if model.effect == BY_SUBJECT:  # an order has no cycles
        links = [link for link in links if link[0] != "g" or _rank(link[1]) < _rank(link[2])]
    links = list(dict.fromkeys(links))
    return tuple((*link, draw(st.sampled_from(PARAMETERS))) for link in links) if model.conditional else tuple(links)


def _rank(name: str) -> tuple[int, str]:
    """Ranks users below links of a chain, those below roles, and each by its name."""
    kind = 1 if name.startswith("link") else 2 if name in ROLES else 0
    return kind, name.removeprefix("link").zfill(len(name))


def _values(kind: str) -> tuple[str, ...]:
    return KINDS[kind].rule if kind in KINDS else FIELDS[kind]
