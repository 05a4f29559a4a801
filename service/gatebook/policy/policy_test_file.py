"""Reads policy tests: what people and services must get, written down by those who are answerable.

Owns the format of `tests/*.yaml` (its JSON schema: `schemas/policy_test.schema.json`):

    subjects:                        # names for whom the tests speak of; an empty one has its name as id
      farah:
      trainer: {id: svc-train, type: service}
    resources:                       # names for what they speak of
      prompts: mci.prompts
      prompt_text: {id: mci.prompts, columns: [prompt_text]}
    tests:
      - name: researchers train on prompts, and nobody else reads them
        subjects: [farah, trainer, noor]
        actions: [read, export]
        resources: [prompts, prompt_text]
        purpose: model_training      # and, all optional: context, row, caller, time, allow_partial,
        context: {network: corp}     # action_properties, enforcer {masks, obligations}
        expect:                      # by subject, then resource, then action; what stands at a level
          farah:                     # holds for all below it, `others` for all that are not named
            prompts: {read: ALLOW, export: NO_MATCHING_RULE}
            prompt_text:
              read: {outcome: ALLOW, masks: {prompt_text: redact}, minimum_group: 5}
              export: DENY
          others: DENY

Rules:

1. an outcome is `ALLOW`, `DENY` (for whatever reason) or the reason code of a denial, or a mapping of
   `outcome` with `columns` (the withheld ones with their reasons), `masks` (all masks of all
   columns, in order, a conditional one as `nullify if row.secret == True`) and `minimum_group`;
2. every combination has an expectation: a blank is a finding, never an assumption;
3. an enforcer can do everything, unless the test says what it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gatebook.policy.expectation import QUESTIONS_MAX, PolicyQuestion
from gatebook.policy.expectation_table import OTHERS, OUTCOME, ExpectationTable
from gatebook.policy.source import read_text
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_nodes import Listing, Node, Scalar, Table
from gatebook.policy.yaml_reader import UNKNOWN_NAME, WRONG_VALUE, Reader, cut, shown
from gatebook.values import AccessRequest, Enforcer, Entity, Finding, MaskKind, ObligationKind, Severity

DEFAULT_TYPE = "user"
MASK_NAMES = {kind.name.lower(): kind for kind in MaskKind if kind is not MaskKind.UNSPECIFIED}
OBLIGATION_NAMES = {kind.name.lower(): kind for kind in ObligationKind if kind is not ObligationKind.UNSPECIFIED}
ABLE_TO_ALL = Enforcer("policy-test", frozenset(MASK_NAMES.values()), frozenset(OBLIGATION_NAMES.values()))

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
_WORD = re.compile(r"[^\s,](?:[^,\n]*[^\s,])?")
_RESOURCE_KEYS = ("id", "columns", "type", "properties")
_SUBJECT_KEYS = ("id", "type", "properties")
_REQUIRED_KEYS = ("name", "subjects", "actions", "resources", "expect")
_OPTIONAL_KEYS = ("purpose", "context", "row", "caller", "time", "allow_partial", "action_properties", "enforcer")


class _Resource(msgspec.Struct, frozen=True):
    id: str
    columns: tuple[str, ...] = ()
    type: str = ""
    properties: Mapping[str, Any] = {}


def read_policy_tests(file: str, content: bytes) -> tuple[tuple[PolicyQuestion, ...], list[Finding]]:
    """Returns the questions of a test file, test by test, and what is wrong with the file.

    With a finding there are no questions.
    """
    text, findings = read_text(file, content)
    if text is None or findings:
        return (), findings
    reader = _TestReader(file)
    questions = reader.questions(text)
    return (() if reader.failed else questions), sorted(set(reader.findings))


class _TestReader(Reader):
    """Reads one test file. Lives for one call of `read_policy_tests`."""

    def questions(self, text: str) -> tuple[PolicyQuestion, ...]:
        """Returns the questions of the whole file."""
        root = self.root(text)
        found = None if root is None else self.fields(root, self.file, ("subjects", "resources", "tests"), ("tests",))
        if found is None:
            return ()
        subjects = self._subjects(found.get("subjects"))
        resources = self._resources(found.get("resources"))
        questions: list[PolicyQuestion] = []
        for node in self.items(found["tests"], "tests") if "tests" in found else ():
            for question in self._test(node, subjects, resources):
                questions.append(question)
                if len(questions) > QUESTIONS_MAX:
                    self.refuse(node, "TOO_MANY", f"a file has at most {QUESTIONS_MAX:,} expectations; split it")
                    return ()
        return tuple(questions)

    def _subjects(self, node: Node | None) -> dict[str, Entity]:
        subjects = {}
        for key, value in () if node is None else self.entries(node, "subjects"):
            where = f"subjects.{cut(key.text)}"
            name = self._own_name(key, "subjects", "farah")
            fields = self._short_or_fields(value, where, _SUBJECT_KEYS)
            if name is None or fields is None:
                continue
            subjects[name] = Entity(
                type=self._word(fields.get("type"), f"{where}.type") or DEFAULT_TYPE,
                id=self._word(fields.get("id"), f"{where}.id") or name,
                properties=self._values(fields.get("properties"), f"{where}.properties"),
            )
        return subjects

    def _resources(self, node: Node | None) -> dict[str, _Resource]:
        resources = {}
        for key, value in () if node is None else self.entries(node, "resources"):
            where = f"resources.{cut(key.text)}"
            name = self._own_name(key, "resources", "prompts")
            fields = self._short_or_fields(value, where, _RESOURCE_KEYS)
            if name is None or fields is None:
                continue
            resources[name] = _Resource(
                id=self._word(fields.get("id"), f"{where}.id") or name,
                columns=self._words(fields.get("columns"), f"{where}.columns"),
                type=self._word(fields.get("type"), f"{where}.type"),
                properties=self._values(fields.get("properties"), f"{where}.properties"),
            )
        return resources

    def _test(
        self, node: Node, subjects: Mapping[str, Entity], resources: Mapping[str, _Resource]
    ) -> Iterator[PolicyQuestion]:
        found = self.fields(node, "tests", _REQUIRED_KEYS + _OPTIONAL_KEYS, _REQUIRED_KEYS)
        if found is None or any(key not in found for key in _REQUIRED_KEYS):
            return
        test = self.text(found["name"], "name")
        who = self._chosen(found["subjects"], "subjects", subjects)
        what = self._chosen(found["resources"], "resources", resources)
        actions = self._words(found["actions"], "actions")
        for key in ("subjects", "resources", "actions"):
            empty = found[key]
            if isinstance(empty, Listing) and not empty.items:
                message = f"`{key}` is empty, so this test claims nothing; name at least one"
                finding = Finding(self.file, empty.line, empty.column, "EMPTY_TEST", message, Severity.WARNING)
                self.findings.append(finding)
        if test is None or not (who and what and actions):
            return
        if len(who) * len(what) * len(actions) > QUESTIONS_MAX:
            self.refuse(node, "TOO_MANY", f"a test has at most {QUESTIONS_MAX:,} expectations; split it")
            return
        cells = ExpectationTable(self, {"subject": who, "resource": what, "action": actions}).fill(found["expect"])
        shared = self._shared(found)
        time = self.moment(found["time"], "time") if "time" in found else None
        caller = self._word(found.get("caller"), "caller")
        for (subject, resource, action), expectation in cells.items():
            asked = resources[resource]
            request = AccessRequest(
                subject=subjects[subject],
                action=action,
                resource=asked.id,
                columns=asked.columns,
                resource_type=asked.type,
                resource_properties=asked.properties,
                **shared,
            )
            yield PolicyQuestion(self.file, test, request, expectation, caller, time)

    def _shared(self, found: Mapping[str, Node]) -> dict[str, Any]:
        """Returns the parts of the request that all questions of a test share."""
        partial = self.flag(found["allow_partial"], "allow_partial") if "allow_partial" in found else False
        return {
            "purpose": self._word(found.get("purpose"), "purpose"),
            "context": self._values(found.get("context"), "context"),
            "row": self._values(found["row"], "row") if "row" in found else None,
            "allow_partial": bool(partial),
            "action_properties": self._values(found.get("action_properties"), "action_properties"),
            "enforcer": self._enforcer(found.get("enforcer")),
        }

    def _enforcer(self, node: Node | None) -> Enforcer:
        found = None if node is None else self.fields(node, "enforcer", ("masks", "obligations"))
        if found is None:
            return ABLE_TO_ALL
        masks = self.items(found["masks"], "enforcer.masks") if "masks" in found else ()
        obligations = self.items(found["obligations"], "enforcer.obligations") if "obligations" in found else ()
        mask_names = [self.choice(item, "enforcer.masks", MASK_NAMES) for item in masks]
        obligation_names = [self.choice(item, "enforcer.obligations", OBLIGATION_NAMES) for item in obligations]
        return Enforcer(
            ABLE_TO_ALL.id,
            frozenset(MASK_NAMES[name] for name in mask_names if name),
            frozenset(OBLIGATION_NAMES[name] for name in obligation_names if name),
        )

    def _own_name(self, key: Scalar, where: str, example: str) -> str | None:
        if key.text in (OTHERS, OUTCOME):
            self.refuse(key, WRONG_VALUE, f"`{key.text}` has a meaning of its own in `expect`; choose another name")
            return None
        return self.name(key, where, _NAME, example)

    def _chosen(self, node: Node, where: str, known: Mapping[str, object]) -> tuple[str, ...]:
        chosen = []
        for name, item in self.names(node, where, _NAME, next(iter(known), "farah")):
            if name in known:
                chosen.append(name)
            else:
                hint = did_you_mean(name, known)
                self.refuse(item, UNKNOWN_NAME, f"`{name}` is not among the `{where}` at the top of the file{hint}")
        return tuple(chosen)

    def _short_or_fields(self, node: Node, where: str, keys: Sequence[str]) -> Mapping[str, Node] | None:
        """Returns the fields of a mapping; a bare text is the id, and nothing leaves the id to the name."""
        if isinstance(node, Scalar):
            return {} if node.value is None else {"id": node}
        return self.fields(node, where, keys)

    def _word(self, node: Node | None, where: str) -> str:
        return "" if node is None else self.name(node, where, _WORD, "mci.prompts") or ""

    def _words(self, node: Node | None, where: str) -> tuple[str, ...]:
        return () if node is None else tuple(name for name, _ in self.names(node, where, _WORD, "read"))

    def _values(self, node: Node | None, where: str) -> Mapping[str, Any]:
        if node is None:
            return {}
        if not isinstance(node, Table):
            self.refuse(node, WRONG_VALUE, f"`{where}` must be a mapping, not {shown(node)}")
            return {}
        return {key.text: _value(value) for key, value in node.entries}


def _value(node: Node) -> Any:  # noqa: ANN401  # whatever the author wrote
    match node:
        case Scalar(value):
            return value
        case Listing(items):
            return [_value(item) for item in items]
        case Table(entries):
            return {key.text: _value(value) for key, value in entries}
