"""A policy set: everything its files say, accepted as a whole or refused with every finding.

Owns `load`, the only way from files to a `PolicySet`. Rules:

1. all files are read before anything is refused, so that every finding is reported at once; only a
   set that is too large is refused unread;
2. a set with one finding of severity error is refused; nothing is ever loaded in part;
3. a set with `catalogue.yaml` is governed and has purposes and settings too; one without is plain,
   and `model.conf` with `policy.csv` is enough; it may bring the subjects and resources that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from gatebook.errors import PolicySetRefusedError
from gatebook.pace import Pause, no_pause
from gatebook.policy.brought import NOTHING_BROUGHT, Brought, named_by
from gatebook.policy.bundle import (
    CATALOGUE_FILE,
    DIRECTORY_FOLDER,
    GUARDRAILS_FILE,
    MODEL_FILE,
    PURPOSES_FILE,
    RESOURCES_FOLDER,
    SETTINGS_FILE,
    check_names,
    check_size,
    digest,
    entity_files,
    policy_test_files,
)
from gatebook.policy.casbin_files import read_casbin
from gatebook.policy.catalogue import Catalogue, parse_catalogue
from gatebook.policy.draft import Draft
from gatebook.policy.entities import Entities, read_entities
from gatebook.policy.guardrails import Guardrail
from gatebook.policy.guardrails_file import Vocabulary, parse_guardrails
from gatebook.policy.lint import lint
from gatebook.policy.model import Model, Sections
from gatebook.policy.oracle import compare_reading
from gatebook.policy.policy_test_file import read_policy_tests
from gatebook.policy.purposes import Purposes, parse_purposes
from gatebook.policy.settings import Settings, parse_settings
from gatebook.policy.source import read_text
from gatebook.values import Edge, Finding, Rule, Severity

FINDINGS_MAX = 1_000
"""How many findings of one set are reported."""

T = TypeVar("T")
PLAIN = "plain"
GOVERNED = "governed"


class PolicySet(msgspec.Struct, frozen=True):
    """A policy set that may decide.

    `rules` stand in the order in which Casbin evaluates them. `edges` are all links of all
    relations: those of the rule files, of the catalogue (`g2`) and of the purposes (`g3`). `subjects` and
    `resources` are those that a plain set knows, or None where it does not say. `guardrails` are what a governed set
    promises of itself.
    """

    name: str
    kind: str
    digest: str
    model: Model
    rules: tuple[Rule, ...]
    edges: tuple[Edge, ...]
    settings: Settings
    catalogue: Catalogue | None
    purposes: Purposes | None
    files: Mapping[str, bytes]
    warnings: tuple[Finding, ...]
    subjects: Entities | None = None
    resources: Entities | None = None
    guardrails: tuple[Guardrail, ...] = ()

    @property
    def sections(self) -> Sections:
        """Returns what decides a plain set, and what allows or denies in a governed one."""
        return self.model.sections(self.settings.matcher)


def load(
    files: Mapping[str, bytes],
    name: str = "",
    *,
    accepted: bool = False,
    pause: Pause = no_pause,
    brought: Brought = NOTHING_BROUGHT,
    settings: Settings | None = None,
) -> PolicySet:
    """Reads a policy set from its files.

    Args:
        files: The files by their paths.
        name: The name of a set that gives itself none in its `gatebook.yaml`.
        accepted: Whether these very files were accepted by this version already, so that neither the
            findings across files nor Casbin's reading of them need be looked for again.
        pause: Is called after every few lines.
        brought: What the set may speak of, though its files do not hold it.
        settings: The settings of a set that has no `gatebook.yaml`.

    Raises:
        PolicySetRefusedError: there are findings of severity error; it carries all findings, sorted.
    """
    findings = check_size(files)
    if findings:
        raise refused(findings)  # before any work is done on so much
    findings = check_names(files)
    governed = CATALOGUE_FILE in files
    settings = _parse(files, SETTINGS_FILE, partial(parse_settings, governed=governed), findings) or settings
    purposes = _parse(files, PURPOSES_FILE, parse_purposes, findings)
    actions = settings.actions if settings else None
    catalogue = _parse(files, CATALOGUE_FILE, partial(parse_catalogue, purposes=purposes, actions=actions), findings)
    vocabulary = _vocabulary(settings, catalogue, purposes)
    guardrails = _parse(files, GUARDRAILS_FILE, partial(parse_guardrails, vocabulary=vocabulary), findings) or ()
    subjects, resources = _entities(files, findings)
    findings += _missing_files(files)
    are_parts_valid = not _has_error(findings)
    brought = brought if settings is None else named_by(settings, brought)
    casbin, casbin_findings = read_casbin(files, pause, brought)
    findings += casbin_findings
    findings += [finding for path in policy_test_files(files) for finding in read_policy_tests(path, files[path])[1]]
    edges = casbin.edges
    edges += () if catalogue is None else tuple(catalogue.edges())
    edges += () if purposes is None else tuple(purposes.edges())
    draft = Draft(casbin.model, casbin.rules, edges, settings or Settings(), catalogue, purposes, files)
    if are_parts_valid and MODEL_FILE in files and not accepted:
        findings += lint(draft)
    if not accepted and not _has_error(findings):
        findings += compare_reading(files, casbin)
    if _has_error(findings):
        raise refused(findings)
    return PolicySet(
        name=draft.settings.name or name,
        kind=GOVERNED if governed else PLAIN,
        digest=digest(files),
        model=draft.model,
        rules=draft.rules,
        edges=draft.edges,
        settings=draft.settings,
        catalogue=catalogue,
        purposes=purposes,
        files=dict(files),
        warnings=tuple(sorted(findings)),
        subjects=subjects,
        resources=resources,
        guardrails=guardrails,
    )


def _vocabulary(settings: Settings | None, catalogue: Catalogue | None, purposes: Purposes | None) -> Vocabulary:
    """Returns the names that guardrails may mention, as far as they could be read."""
    datasets = () if catalogue is None else catalogue.datasets.values()
    sources = () if settings is None else settings.attribute_sources.values()
    return Vocabulary(
        roles=None if settings is None else settings.roles,
        nodes=None if catalogue is None else catalogue.nodes(),
        actions=None if settings is None else settings.actions,
        purposes=purposes,
        context=None if settings is None else {key for source in sources for key in source.context},
        columns=None if catalogue is None else {name for dataset in datasets for name in dataset.columns},
    )


def _parse(
    files: Mapping[str, bytes],
    file: str,
    parse: Callable[[str, str], tuple[T | None, list[Finding]]],
    findings: list[Finding],
) -> T | None:
    """Returns what a file says, or None when there is no such file or it says nothing valid.

    YAML ends lines where an editor does not, so a file with odd characters is not read further.
    """
    if file not in files:
        return None
    text, text_findings = read_text(file, files[file])
    findings += text_findings
    if text is None or text_findings:
        return None
    value, more = parse(text, file)
    findings += more
    return value


def _entities(files: Mapping[str, bytes], findings: list[Finding]) -> tuple[Entities | None, Entities | None]:
    """Returns the subjects and the resources that a plain set knows; a governed set may bring neither."""
    kinds = []
    for folder, instead in ((DIRECTORY_FOLDER, "publish it with `gatebook directory publish`"), (RESOURCES_FOLDER, "")):
        entities, wrong = read_entities(files, folder)
        if CATALOGUE_FILE in files:
            message = f"of a set with a `{CATALOGUE_FILE}` this is no part; {instead or 'its catalogue names them'}"
            wrong = [Finding(path, 0, 0, "UNKNOWN_FILE", message) for path in entity_files(files, folder)]
        findings += wrong
        kinds.append(entities)
    return kinds[0], kinds[1]


def _missing_files(files: Mapping[str, bytes]) -> list[Finding]:
    governed = CATALOGUE_FILE in files
    if governed:
        missing = [file for file in (SETTINGS_FILE, PURPOSES_FILE) if file not in files]
        message = f"a set with a `{CATALOGUE_FILE}` needs this file; add it"
    else:
        because = next((file for file in (PURPOSES_FILE, GUARDRAILS_FILE) if file in files), "")
        missing = [CATALOGUE_FILE] if because else []
        message = f"a set with a `{because}` needs this file; add it"
    return [Finding(file, 0, 0, "MISSING_FILE", message) for file in missing]


def _has_error(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)


def refused(findings: Iterable[Finding]) -> PolicySetRefusedError:
    """Returns the refusal of findings, of which at least one is an error: it names the first, and carries them."""
    ordered = sorted(set(findings))
    errors = sum(finding.severity is Severity.ERROR for finding in ordered)
    first = next(finding for finding in ordered if finding.severity is Severity.ERROR)
    where = f"{first.file}:{first.line}:{first.column}" if first.line else first.file
    more = f", and {errors - 1} more findings" if errors > 1 else ""
    return PolicySetRefusedError(f"{where}: {first.message}{more}", ordered[:FINDINGS_MAX])
