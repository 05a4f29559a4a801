"""`Enforcer`: the questions of `casbin.Enforcer`, answered by Gatebook's engine.

Owns the way from a model and rules to answers. Rules:

1. what is refused is refused when it is loaded, with every finding; nothing is ever loaded in part, and what was loaded
   before goes on deciding;
2. loading again builds a new state and swaps one reference, so any number of threads may ask meanwhile;
3. a request of the wrong number of values is an error, and never a denial that looks like one;
4. nothing here changes a policy, and nothing switches the decisions off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from gatebook.enforcer.additions import Additions, Link, called_by
from gatebook.enforcer.context import EnforceContext
from gatebook.enforcer.loaded import Loaded, fields_that_decided, is_allowed
from gatebook.enforcer.roles import RoleQuestions
from gatebook.enforcer.sources import files_of, read_model, read_policy
from gatebook.enforcer.writes import Writes
from gatebook.engine.explain import explain
from gatebook.errors import PolicySetRefusedError
from gatebook.policy.brought import Condition, Match
from gatebook.policy.library import load_plain
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Finding, NearRule, Rule, Severity

SHOWN_MAX = 20
"""Findings in the message of a refusal."""

NO_FUNCTIONS: Mapping[str, Callable[..., object]] = {}


def utc_now() -> datetime:
    """Returns the time."""
    return datetime.now(UTC)


class Explanation(msgspec.Struct, frozen=True):
    """Why a request is allowed or denied.

    `rule` decided it, if one did; `unknown` could not be evaluated on the way there, since a value is missing or of
    another type; `near` are the rules that came nearest to allowing what is denied, with what each lacks.
    """

    allowed: bool
    rule: Rule | None = None
    unknown: tuple[Rule, ...] = ()
    near: tuple[NearRule, ...] = ()


class Enforcer(RoleQuestions, Writes):
    """Decides requests by a model and rules of Casbin's."""

    def __init__(
        self,
        model: object,
        policy: object = None,
        *,
        strict: bool = True,
        functions: Mapping[str, Callable[..., object]] = NO_FUNCTIONS,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Takes what `casbin.Enforcer` takes: paths, a model of Casbin's, an adapter; or the texts themselves.

        `functions` may be called by matchers and by the conditions of rules; those of matchers can be added later.
        `clock` tells what time it is to `timeMatch` and to links between two times, which are in UTC: of a time
        with a zone, that of UTC counts, of one without, what it shows (`datetime.now` is Casbin's clock).
        What Casbin reads otherwise than it looks is refused, or read as Casbin does if not `strict` (`warnings`).

        Raises:
            PolicySetRefusedError: there are findings of severity error; it carries all findings.
            SourceError: the model or the policy cannot be read.
        """
        self._model = read_model(model)
        self._source = (policy, model)
        self._files = files_of(model, policy)
        self._strict, self._clock = strict, clock
        # Held by who loads; who asks takes the reference that was swapped in last.
        self._changing = threading.Lock()
        self._loaded = self._load(msgspec.structs.replace(called_by(self._model), functions=dict(functions)))

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Returns what is odd in the model and rules; where not `strict`, also what would be refused."""
        return self._loaded.policy_set.warnings

    def load_policy(self) -> None:
        """Reads the rules again, and decides by them from then on; or goes on as before, where they are refused.

        Raises:
            PolicySetRefusedError: there are findings of severity error; it carries all findings.
            SourceError: the policy cannot be read.
        """
        with self._changing:
            self._loaded = self._load(self._loaded.additions)

    def enforce(self, *rvals: Any) -> bool:  # noqa: ANN401  # a value of a request is anything
        """Tells whether a request, given value by value in the order of the model, is allowed.

        Raises:
            InvalidRequestError: there are more or fewer values than the model says.
        """
        loaded = self._loaded
        if len(rvals) == loaded.count:
            allowed = loaded.decide(rvals)
            if allowed is not None:
                return allowed
        return is_allowed(loaded.ask(rvals, self._clock)[2])

    def enforce_ex(self, *rvals: Any) -> tuple[bool, list[str]]:  # noqa: ANN401  # as above
        """Tells the same, with the fields of the rule that decided: of the allow, or of the deny.

        The list is empty where no rule decided, and where the matcher reads no rule.
        """
        verdict = self._loaded.ask(rvals, self._clock)[2]
        return is_allowed(verdict), fields_that_decided(verdict)

    def batch_enforce(self, requests: Iterable[Sequence[Any]]) -> list[bool]:
        """Tells of each request whether it is allowed."""
        return [self.enforce(*request) for request in requests]

    def explain(self, *rvals: Any) -> Explanation:  # noqa: ANN401  # as above
        """Tells why a request is allowed or denied."""
        program, tokens, verdict = self._loaded.ask(rvals, self._clock)
        allowed = is_allowed(verdict)
        near: tuple[NearRule, ...] = () if allowed or verdict.rules else explain(program, tokens)
        return Explanation(allowed, next(iter(verdict.rules), None), verdict.unknown, near)

    @staticmethod
    def new_enforce_context(suffix: str) -> EnforceContext:
        """Returns the context of the sections of one number: `r2`, `p2`, `e2` and `m2` for `2`."""
        return EnforceContext.of_suffix(suffix)

    @staticmethod
    def is_filtered() -> bool:
        """Tells that a policy is always loaded as a whole."""
        return False

    def add_function(self, name: str, func: Callable[..., object]) -> None:
        """Adds a function that matchers may call; where it raises, or has no answer, it allows nothing."""
        self._add(lambda additions: additions.with_function(name, func))

    def add_named_matching_func(self, ptype: str, fn: Match) -> bool:
        """Lets names of a relation match as patterns: a link of what matches a name is a link of the name."""
        self._loaded.links_of(ptype)
        self._add(lambda additions: additions.with_match(ptype, fn))
        return True

    def add_named_domain_matching_func(self, ptype: str, fn: Match) -> bool:
        """Lets domains of a relation match as patterns."""
        self._loaded.links_of(ptype)
        self._add(lambda additions: additions.with_domain_match(ptype, fn))
        return True

    def add_named_link_condition_func(self, ptype: str, user: str, role: str, fn: Condition) -> bool:
        """Lets a link hold only while a function of its parameters is True; a link without one never holds."""
        return self._add_condition(ptype, (user, role), fn)

    def add_named_domain_link_condition_func(
        self, ptype: str, user: str, role: str, domain: str, fn: Condition
    ) -> bool:
        """Lets a link in a domain hold only while a function of its parameters is True."""
        return self._add_condition(ptype, (user, role, domain), fn)

    def set_named_link_condition_func_params(self, ptype: str, user: str, role: str, *params: Any) -> bool:  # noqa: ANN401  # of the function
        """Gives the condition of a link other parameters than those in the policy."""
        return self._set_parameters(ptype, (user, role), params)

    def set_named_domain_link_condition_func_params(
        self,
        ptype: str,
        user: str,
        role: str,
        domain: str,
        *params: Any,  # noqa: ANN401  # of the function
    ) -> bool:
        """Gives the condition of a link in a domain other parameters than those in the policy."""
        return self._set_parameters(ptype, (user, role, domain), params)

    def _add_condition(self, ptype: str, link: Link, fn: Condition) -> bool:
        self._loaded.links_of(ptype)
        self._add(lambda additions: additions.with_condition(ptype, link, fn))
        return True

    def _set_parameters(self, ptype: str, link: Link, params: tuple[Any, ...]) -> bool:
        self._loaded.links_of(ptype)
        self._add(lambda additions: additions.with_parameters(ptype, link, params))
        return True

    def _add(self, change: Callable[[Additions], Additions]) -> None:
        """Compiles what is loaded anew, with something added."""
        with self._changing:
            self._loaded = Loaded(self._loaded.policy_set, change(self._loaded.additions))

    def _load(self, additions: Additions) -> Loaded:
        return Loaded(self._read(additions), additions)

    def _read(self, additions: Additions) -> PolicySet:
        rules = read_policy(*self._source)
        try:
            read = load_plain(self._model, rules, strict=self._strict, brought=additions.brought())
        except PolicySetRefusedError as err:
            raise _refused(err, self._files) from None
        return msgspec.structs.replace(read, warnings=_located(read.warnings, self._files))


def _located(findings: Iterable[Finding], files: Mapping[str, str]) -> tuple[Finding, ...]:
    """Returns findings with the paths that the user gave."""
    return tuple(msgspec.structs.replace(finding, file=files.get(finding.file, finding.file)) for finding in findings)


def _refused(err: PolicySetRefusedError, files: Mapping[str, str]) -> PolicySetRefusedError:
    """Returns a refusal that tells all that is wrong, since who sees it sees nothing but its message."""
    findings = _located(err.findings, files)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    lines = [f"{f.file}:{f.line}:{f.column}: {f.message}" if f.line else f"{f.file}: {f.message}" for f in errors]
    more = [f"and {len(lines) - SHOWN_MAX} more, in `findings` of this error"] if len(lines) > SHOWN_MAX else []
    return PolicySetRefusedError("\n".join([*lines[:SHOWN_MAX], *more]), findings)
