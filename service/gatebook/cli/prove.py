"""`gatebook policy prove`: whether guardrails hold, which rules change nothing, whether two sets are equivalent."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from gatebook.cli.output import NO, USAGE, YES, counted, errors_told, fail, json_option, stderr, stdout, table
from gatebook.governance import smt
from gatebook.governance.dead import unneeded_rules
from gatebook.governance.equivalence import Differing, Sameness, Side, compare
from gatebook.governance.prove import Prover, Result, Verdict
from gatebook.policy import bundle
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import PolicySet, load
from gatebook.revisions.guarded import INSTALL, counterexample, finding_of, told_access, told_unsaid, why_unknown
from gatebook.revisions.separation import separation_findings
from gatebook.values import Counterexample, Finding, Severity


class _Timed(msgspec.Struct, frozen=True):
    """A verdict with how long it took, and its finding where it is not proved."""

    verdict: Verdict
    seconds: float
    finding: Finding | None


@click.command(short_help="Prove what a policy set must never allow.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the subjects; else the `directory/` of the set.",
)
@click.option(
    "--equivalent",
    metavar="NEW",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead, prove that the set in NEW answers every request as that in FOLDER does.",
)
@json_option
def prove(folder: Path, directory: Path | None, equivalent: Path | None, as_json: bool) -> None:  # noqa: FBT001  # click passes flags by name
    """Prove the guardrails of the policy set in FOLDER, for anybody who could ever be in a directory.

    Each is PROVED, REFUTED by a counterexample that the rules really allow, or UNKNOWN, which counts as not proved.
    Rules that change nothing are told as warnings.

    With --equivalent, both sets are compared: they are EQUIVALENT, DIFFERENT by a request that they really answer
    otherwise, or it is UNKNOWN.
    """
    if not smt.installed():
        fail(INSTALL, USAGE)
    if equivalent is not None:
        if directory is not None:
            fail("`--equivalent` is about anybody: leave out `--directory`", USAGE)
        sys.exit(_compare(folder, equivalent, as_json=as_json))
    with errors_told():
        policy_set = _governed(folder)
        people = directory or bundle.directory_beside(folder)
        known = None if people is None else load_directory(bundle.read_directory_folder(people))
    timed = list(_verdicts(policy_set))
    findings = _people(policy_set, known)
    warnings = unneeded_rules(Prover(policy_set), _Telling("looking for rules that change nothing"))
    if as_json:
        click.echo(
            msgspec.json.format(msgspec.json.encode(_as_json(policy_set, timed, (*findings, *warnings)))).decode()
        )
    else:
        _show(policy_set, timed, (*findings, *warnings))
    holds = all(it.verdict.result is Result.PROVED for it in timed)
    sys.exit(YES if holds and all(it.severity is not Severity.ERROR for it in findings) else NO)


def _governed(folder: Path) -> PolicySet:
    policy_set = load(bundle.read_folder(folder), folder.resolve().name)
    if policy_set.catalogue is None:
        fail(f"policy set `{policy_set.name}` has no catalogue, and so no guardrails", USAGE)
    return policy_set


def _compare(folder: Path, other: Path, *, as_json: bool) -> int:
    """Tells whether two sets answer alike; returns the exit code."""
    with errors_told():
        old, new = _governed(folder), _governed(other)
    found = compare(old, new, _Telling("comparing"))
    differing = found.differing
    example = None
    if differing is not None:
        allowing = new if differing.allowed_by is Side.NEW else old
        example = counterexample(allowing, differing.shown, datetime.now(UTC))
    hard = (*(told_unsaid(it) for it in found.unsaid), *found.why)
    if as_json:
        told = {
            "old": old.digest,
            "new": new.digest,
            "result": found.result.value,
            "allowed_by": None if differing is None else differing.allowed_by.value,
            "answers": None if differing is None else {"old": differing.old, "new": differing.new},
            "counterexample": None if example is None else msgspec.to_builtins(example),
            "why": hard,
        }
        click.echo(msgspec.json.format(msgspec.json.encode(told)).decode())
    else:
        console = stdout()
        for line in (*(() if differing is None else _told(differing, example)), *hard):
            console.print(line, markup=False, soft_wrap=True)
        console.print(f"{old.digest[:12]} and {new.digest[:12]}: {found.result.value}", markup=False)
    return YES if found.result is Sameness.EQUIVALENT else NO


def _told(differing: Differing, example: Counterexample | None) -> Iterator[str]:
    """Yields a request, and what each set answers."""
    yield told_access(differing.shown)
    if example is not None:
        stated = (("context", example.context_json), ("row", example.row_json), ("caller", example.caller))
        yield ", ".join(f"{name} {text}" for name, text in stated if text) or "whatever context and row"
        if example.why_not:
            yield f"the rules allow it, though now it would be denied: {example.why_not}"
    for side, answer in ((Side.OLD, differing.old), (Side.NEW, differing.new)):
        yield f"{side.value}: {f'allowed, {answer}' if answer else 'denied'}"


def _verdicts(policy_set: PolicySet) -> Iterator[_Timed]:
    telling = _Telling("proving")
    prover = Prover(policy_set, pause=telling)
    for guardrail in policy_set.guardrails:
        telling.what = f"proving {guardrail.name}"
        began = time.perf_counter()
        verdict = prover.verdict(guardrail)
        proved = verdict.result is Result.PROVED
        finding = None if proved else finding_of(policy_set, verdict, datetime.now(UTC))
        yield _Timed(verdict, time.perf_counter() - began, finding)


def _people(policy_set: PolicySet, directory: Directory | None) -> tuple[Finding, ...]:
    """Returns who of a directory has both of what is to be separate."""
    return () if directory is None else separation_findings(policy_set, directory, pause=_Telling("looking at people"))


class _Telling:
    """A pause that tells people now and then what is under way."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._console = stderr()
        self._at = time.monotonic() + 2

    def __call__(self) -> None:
        if self._console.is_terminal and time.monotonic() > self._at:
            self._at = time.monotonic() + 2
            self._console.print(f"{self.what} ...", markup=False, style="dim")


def _show(policy_set: PolicySet, timed: list[_Timed], others: tuple[Finding, ...]) -> None:
    console = stdout()
    if timed:
        rows = (
            (
                it.verdict.guardrail.name,
                it.verdict.result.value,
                f"{it.seconds:.2f} s",
                it.verdict.guardrail.description,
            )
            for it in timed
        )
        console.print(table("guardrail", "result", "time", "", rows=rows))
    for finding in (*(it.finding for it in timed if it.finding is not None), *others):
        level = "error" if finding.severity is Severity.ERROR else "warning"
        place = f"{finding.file}:{finding.line}:{finding.column}"
        console.print(f"{place}: {level}: {finding.message} ({finding.invariant})", markup=False, soft_wrap=True)
    proved = sum(it.verdict.result is Result.PROVED for it in timed)
    told = f"{proved} of {counted(len(timed), 'guardrail')} proved"
    console.print(
        f"{policy_set.name} {policy_set.digest[:12]}: {told}, {counted(len(others), 'other finding')}", markup=False
    )


def _as_json(policy_set: PolicySet, timed: list[_Timed], others: tuple[Finding, ...]) -> dict[str, Any]:
    return {
        "policy_set": policy_set.name,
        "digest": policy_set.digest,
        "guardrails": [
            {
                "name": it.verdict.guardrail.name,
                "kind": it.verdict.guardrail.kind.value,
                "result": it.verdict.result.value,
                "seconds": round(it.seconds, 3),
                "why": why_unknown(it.verdict) if it.verdict.result is Result.UNKNOWN else "",
                "finding": None if it.finding is None else msgspec.to_builtins(it.finding),
            }
            for it in timed
        ],
        "findings": [msgspec.to_builtins(finding) for finding in others],
    }
