"""One policy as an enforcer has loaded it: compiled, and ready to be asked what stands in it.

Owns the state that is swapped when a policy is loaded again. Promises: immutable but for what is computed when
it is first asked for and is the same whoever computes it, so that threads may share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from gatebook.compiler.program import Program, compile_program
from gatebook.enforcer.context import USUAL, EnforceContext, context_of
from gatebook.engine.evaluate import Verdict, evaluate
from gatebook.errors import InvalidRequestError
from gatebook.policy.bundle import MODEL_FILE
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Effect, Rule

Fields = tuple[str, ...]


class Loaded:
    """A policy set, and the program that decides by it."""

    def __init__(self, policy_set: PolicySet) -> None:
        """Compiles the policy set.

        Raises:
            PolicySetRefusedError: a matcher or condition is not understood.
        """
        self.policy_set = policy_set
        self.program = compile_program(policy_set, None)
        self.count = len(self.program.tokens)
        self.decide: Callable[[tuple[Any, ...]], bool | None] = self.program.decide or (lambda _values: None)

    def ask(self, values: tuple[Any, ...]) -> tuple[Program, Mapping[str, Any], Verdict]:
        """Returns the verdict on a request, with the program that gave it and the tokens that it was asked with.

        Raises:
            InvalidRequestError: there are more or fewer values than the model says.
        """
        context = context_of(values[0]) if values else None
        program, values = (self.program, values) if context is None else (self._program_of(context), values[1:])
        if len(values) != len(program.tokens):
            names = ", ".join(f"`{name}`" for name in program.tokens)
            message = f"a request has {len(program.tokens)} values ({names}), this one has {len(values)}: give each"
            raise InvalidRequestError("rvals", message)
        tokens = dict(zip(program.tokens, values, strict=True))
        return program, tokens, evaluate(program, tokens)

    def _program_of(self, context: EnforceContext) -> Program:
        if context == USUAL:
            return self.program
        raise InvalidRequestError("rvals", f"the sections of `{context}` are not in the model: name those that are")

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
            links.setdefault(edge.gtype, []).append((edge.child, edge.parent, *edge.domains))
        return links

    @cached_property
    def _neighbours(self) -> Mapping[str, tuple[_Neighbours, _Neighbours]]:
        """Holds, for each type of links, the parents of each child and the children of each parent."""
        return {gtype: (_neighbours(links, 0, 1), _neighbours(links, 1, 0)) for gtype, links in self._links.items()}


_Neighbours = Mapping[Fields, Sequence[str]]
_NOBODY: tuple[_Neighbours, _Neighbours] = ({}, {})


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
