"""One policy as an enforcer has loaded it: compiled, and ready to be asked what stands in it.

Owns the state that is swapped when a policy is loaded again. Promises: immutable but for what is computed when
it is first asked for and is the same whoever computes it, so that threads may share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from gatebook.compiler.program import Program, compile_program
from gatebook.enforcer.additions import Additions
from gatebook.enforcer.context import EnforceContext, context_of
from gatebook.engine.bind import at, moment_of
from gatebook.engine.evaluate import Verdict, evaluate
from gatebook.errors import InvalidRequestError
from gatebook.generations import Generations
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.model import Sections
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Effect, Rule

Fields = tuple[str, ...]
PROGRAMS_MAX = 32
"""How many programs of other sections one enforcer keeps."""


class Loaded:
    """A policy set, and the program that decides by it."""

    def __init__(self, policy_set: PolicySet, additions: Additions) -> None:
        """Compiles the policy set.

        Raises:
            PolicySetRefusedError: a matcher or condition is not understood.
        """
        self.policy_set = policy_set
        self.additions = additions
        self.program = compile_program(policy_set, None, brought=additions.brought())
        self.count = len(self.program.tokens)
        self.decide = self._decide()
        self._programs: Generations[Sections, Program] = Generations(PROGRAMS_MAX)

    def ask(self, values: tuple[Any, ...], clock: Callable[[], datetime]) -> tuple[Program, Mapping[str, Any], Verdict]:
        """Returns the verdict on a request, with the program that gave it and the tokens that it was asked with.

        Raises:
            InvalidRequestError: there are more or fewer values than the model says, or a function is missing.
        """
        context = context_of(values[0]) if values else None
        program, values = (self.program, values) if context is None else (self._program_of(context), values[1:])
        if missing := self.additions.missing(program.main.sections.matcher):
            message = f"the matcher calls `{missing[0]}`, which nobody has added: call `add_function` first"
            raise InvalidRequestError("rvals", message)
        if len(values) != len(program.tokens):
            names = ", ".join(f"`{name}`" for name in program.tokens)
            message = f"a request has {len(program.tokens)} values ({names}), this one has {len(values)}: give each"
            raise InvalidRequestError("rvals", message)
        moment = moment_of(program, clock()) if program.timed else None
        tokens = at(dict(zip(program.tokens, values, strict=True)), moment)
        return program, tokens, evaluate(program, tokens)

    def _decide(self) -> Callable[[tuple[Any, ...]], bool | None]:
        """Returns what decides most requests; it says nothing of those that must be looked at more closely."""
        decide = self.program.decide
        if decide is None or self.additions.missing(self.policy_set.sections.matcher):
            return _says_nothing
        if all(len(it.tokens) != self.count - 1 for it in self.policy_set.model.requests.values()):
            return decide
        # A context and the values of a shorter request are as many as the values of a usual one.
        return lambda values: None if context_of(values[0]) is not None else decide(values)

    def _program_of(self, context: EnforceContext) -> Program:
        """Returns the program of other sections, compiled when they are first asked for."""
        model, sections = self.policy_set.model, Sections(context.rtype, context.ptype, context.mtype)
        if sections == self.policy_set.sections:
            return self.program
        parts = (sections.request, model.requests), (sections.rules, model.policies), (sections.matcher, model.matchers)
        for key, defined in parts:
            if key not in defined:
                raise InvalidRequestError("rvals", f"the model does not define `{key}`: name sections that it has")
        if (effect := model.effects.get(context.etype)) is not None and effect.kind is not model.effects["e"].kind:
            message = f"the effect `{context.etype}` is another than `e`, which decides for all sections: name `e`"
            raise InvalidRequestError("rvals", message)
        program = self._programs.get(sections)
        if program is None:
            brought = self.additions.brought()
            program = compile_program(self.policy_set, None, sections=sections, brought=brought)
            self._programs.put(sections, program)
        return program

    def names_of(self, ptype: str) -> Fields:
        """Returns the names of the fields of a type of rules.

        Raises:
            InvalidRequestError: the model has no such type.
        """
        definitions = self.policy_set.model.policies
        if ptype not in definitions:
            raise InvalidRequestError("ptype", _no_such("rules", ptype, definitions))
        return definitions[ptype].tokens

    def fields_of(self, ptype: str) -> Sequence[Fields]:
        """Returns the fields of every rule of a type, in order.

        Raises:
            InvalidRequestError: the model has no such type.
        """
        self.names_of(ptype)
        return self._fields.get(ptype, ())

    def links_of(self, gtype: str) -> Sequence[Fields]:
        """Returns the names of every link of a type, in order.

        Raises:
            InvalidRequestError: the model has no such type.
        """
        definitions = self.policy_set.model.roles
        if gtype not in definitions:
            raise InvalidRequestError("ptype", _no_such("links", gtype, definitions))
        return self._links.get(gtype, ())

    def parents(self, gtype: str, name: str, domains: Fields) -> Sequence[str]:
        """Returns what a name inherits directly in a domain, each once, in order."""
        return self._neighbours.get(gtype, _NOBODY)[0].get((name, *domains), ())

    def children(self, gtype: str, name: str, domains: Fields) -> Sequence[str]:
        """Returns what inherits a name directly in a domain, each once, in order."""
        return self._neighbours.get(gtype, _NOBODY)[1].get((name, *domains), ())

    @cached_property
    def _fields(self) -> Mapping[str, Sequence[Fields]]:
        fields: dict[str, list[Fields]] = {}
        for rule in self.policy_set.rules:
            fields.setdefault(rule.ptype, []).append(rule.fields)
        return fields

    @cached_property
    def _links(self) -> Mapping[str, Sequence[Fields]]:
        links: dict[str, list[Fields]] = {}
        for edge in self.policy_set.edges:
            links.setdefault(edge.gtype, []).append((edge.child, edge.parent, *edge.domains, *edge.parameters))
        return links

    @cached_property
    def _neighbours(self) -> Mapping[str, tuple[_Neighbours, _Neighbours]]:
        """Holds, for each type of links, the parents of each child and the children of each parent."""
        links: dict[str, list[Fields]] = {}
        for edge in self.policy_set.edges:
            links.setdefault(edge.gtype, []).append((edge.child, edge.parent, *edge.domains))
        return {gtype: (_neighbours(these, 0, 1), _neighbours(these, 1, 0)) for gtype, these in links.items()}


_Neighbours = Mapping[Fields, Sequence[str]]
_NOBODY: tuple[_Neighbours, _Neighbours] = ({}, {})


def _says_nothing(_values: tuple[Any, ...]) -> None:
    """Leaves a request to be looked at more closely."""


def fields_that_decided(verdict: Verdict) -> list[str]:
    """Returns the fields of the rule that decided; nothing where none did, or where the matcher needs none."""
    rule: Rule | None = next(iter(verdict.rules), None)
    return [] if rule is None or rule.file == MODEL_FILE else list(rule.fields)


def is_allowed(verdict: Verdict) -> bool:
    """Tells whether a verdict allows."""
    return verdict.effect is Effect.ALLOW


def _neighbours(links: Sequence[Fields], this: int, other: int) -> _Neighbours:
    found: dict[Fields, dict[str, None]] = {}
    for names in links:
        found.setdefault((names[this], *names[2:]), {})[names[other]] = None
    return {key: tuple(names) for key, names in found.items()}


def _no_such(what: str, key: str, known: Iterable[str]) -> str:
    written = ", ".join(f"`{name}`" for name in known)
    return f"there are no {what} of a type `{key}`: the model defines {written or 'none'}"
