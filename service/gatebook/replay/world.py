"""A question, the rules and the subject that it concerns, and edits of any of them.

Owns `World`: what decides one question, and nothing else, so that deciding under an edit costs next to nothing. Rules,
links and subjects that do not concern the question are left out, since they do not change its answer. Each edit is made
twice, of the values here and of a line of a file; that both come to the same is tried before an edit is told.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import msgspec

from gatebook.authorize import question_of
from gatebook.compiler.roles import reach
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.errors import GatebookError
from gatebook.policy.catalogue import Catalogue
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.policy_set import PolicySet
from gatebook.replay.again import decide_one
from gatebook.values import AccessRequest, Decision, Edge, Effect, Rule

MASTER = bytes(32)
"""Stands for the master secret of mask keys, which no edit depends on."""
Lines = Mapping[tuple[bool, str, int], str]
"""Lines as they are by edits: whether of the directory, file and line."""


class EditKind(enum.IntEnum):
    """The kinds of edits, those that give the least first. See `EditKind` in access_service.proto."""

    UNSPECIFIED = 0
    DECLARE_OBLIGATIONS = 1
    NAME_PURPOSE = 2
    STATE_CONTEXT = 3
    LEAVE_OUT_COLUMNS = 4
    ADD_MASK = 5
    SET_ATTRIBUTE = 6
    GIVE_ROLE = 7
    PERMIT_PURPOSE = 8
    ADD_GRANT = 9
    NARROW_DENY = 10
    REMOVE_DENY = 11


class Edit(msgspec.Struct, frozen=True):
    """One edit: of the question, or of a line of a file, which `after` replaces; line 0: it is appended."""

    kind: EditKind
    text: str
    file: str = ""
    line: int = 0
    before: str = ""
    after: str = ""
    in_directory: bool = False


class World(msgspec.Struct, frozen=True):
    """What decides one question, after some edits."""

    snapshot: Snapshot
    policy_set: PolicySet
    subject: Subject | None
    request: AccessRequest
    caller: str
    time: datetime
    plan_dialect: str = ""
    edits: tuple[Edit, ...] = ()
    lines: Lines = {}

    def decide(self) -> Decision | None:
        """Decides the question; None where it is not taken."""
        people = {} if self.subject is None else {self.subject.id: self.subject}
        directory, actor = self.snapshot.directory, self.request.actor
        if directory is not None and actor is not None and actor.id not in people and actor.id in directory.subjects:
            people[actor.id] = directory.subjects[actor.id]
        try:
            built = build_snapshot(
                self.policy_set,
                self.snapshot.policy_revision,
                Directory("", people),
                self.snapshot.directory_revision,
                mask_master=MASTER,
            )
            built = msgspec.structs.replace(built, not_proved=self.snapshot.not_proved)
            question = question_of(built, self.request, caller=self.caller)
            return decide_one(built, question, self.time, self.plan_dialect)[0]
        except GatebookError:
            return None

    @property
    def dataset_columns(self) -> tuple[str, ...]:
        """Returns the columns that are asked for; none of a dataset that is not known."""
        catalogue = self.policy_set.catalogue
        dataset = None if catalogue is None else catalogue.datasets.get(self.request.resource)
        if dataset is None:
            return ()
        return tuple(name for name in self.request.columns or dataset.columns if name in dataset.columns)

    def asking(self, kind: EditKind, text: str, **changes: Any) -> World:  # noqa: ANN401  # fields of a request
        """Returns the world in which something else is asked."""
        request = msgspec.structs.replace(self.request, **changes)
        return msgspec.structs.replace(self, request=request, edits=(*self.edits, Edit(kind, text)))

    def with_rule(self, kind: EditKind, text: str, rule: Rule) -> World:
        """Returns the world in which a line is appended to a file of rules."""
        edit = Edit(kind, text, rule.file, 0, "", rule.text)
        policy_set = msgspec.structs.replace(self.policy_set, rules=(*self.policy_set.rules, rule))
        return msgspec.structs.replace(self, policy_set=policy_set, edits=(*self.edits, edit))

    def instead_of(self, kind: EditKind, text: str, rule: Rule, instead: Rule | None) -> World:
        """Returns the world in which a rule is another one, or is gone."""
        edit = Edit(kind, text, rule.file, rule.line, rule.text, "" if instead is None else instead.text)
        same = [(instead if it == rule else it) for it in self.policy_set.rules]
        rules = tuple(it for it in same if it is not None)
        policy_set = msgspec.structs.replace(self.policy_set, rules=rules)
        return msgspec.structs.replace(self, policy_set=policy_set, edits=(*self.edits, edit))

    def with_catalogue(self, text: str, catalogue: Catalogue, line: int, before: str, after: str) -> World:
        """Returns the world in which the catalogue permits another purpose."""
        edit = Edit(EditKind.PERMIT_PURPOSE, text, catalogue.file, line, before, after)
        policy_set = msgspec.structs.replace(self.policy_set, catalogue=catalogue)
        return msgspec.structs.replace(self, policy_set=policy_set, edits=(*self.edits, edit))

    def with_subject(self, kind: EditKind, text: str, subject: Subject, files: Mapping[str, bytes]) -> World | None:
        """Returns the world in which the subject has other groups or attributes; None where its line cannot say so."""
        if self.subject is None:
            return None
        place = (True, subject.file, subject.line)
        before = self.lines.get(place) or line_of(files, subject.file, subject.line)
        after = _written(subject, before, files)
        if not after or after == before:
            return None
        edit = Edit(kind, text, subject.file, subject.line, before, after, in_directory=True)
        lines = {**self.lines, place: after}
        return msgspec.structs.replace(self, subject=subject, edits=(*self.edits, edit), lines=lines)


def world_of(
    snapshot: Snapshot, request: AccessRequest, caller: str, time: datetime, plan_dialect: str = ""
) -> World | None:
    """Returns what decides a question of a governed set; None where the set is plain or does not know the dataset."""
    catalogue, directory = snapshot.policy_set.catalogue, snapshot.directory
    dataset = None if catalogue is None else catalogue.datasets.get(request.resource)
    if catalogue is None or dataset is None or directory is None:
        return None
    policy_set = snapshot.policy_set
    above = {gtype: _above(policy_set.edges, gtype) for gtype in ("g", "g2", "g3")}
    nodes = set().union(*(reach(above["g2"], column.node) for column in dataset.columns.values()))
    rules = tuple(r for r in policy_set.rules if r.fields[1] in nodes and r.fields[2] == request.action)
    spoken = {rule.fields[0] for rule in rules}
    names = set().union(*(reach(above["g"], name) for name in (*spoken, request.subject.id)))
    if request.subject.id in directory.subjects:
        names |= set().union(*(reach(above["g"], it) for it in directory.subjects[request.subject.id].groups), set())
    edges = tuple(
        edge for edge in policy_set.edges if edge.gtype == "g3" or edge.child in (names if edge.gtype == "g" else nodes)
    )
    reduced = msgspec.structs.replace(policy_set, rules=rules, edges=edges)
    subject = directory.find(request.subject.type, request.subject.id)
    return World(snapshot, reduced, subject, request, caller, time, plan_dialect)


def _above(edges: Iterable[Edge], gtype: str) -> dict[str, list[str]]:
    above: dict[str, list[str]] = {}
    for edge in edges:
        if edge.gtype == gtype:
            above.setdefault(edge.child, []).append(edge.parent)
    return above


def applied(files: Mapping[str, bytes], edits: Iterable[Edit]) -> dict[str, bytes]:
    """Returns files after edits of their lines: replaced ones first, which moves none, then those that are appended."""
    made = dict(files)
    for edit in sorted(edits, key=lambda edit: not edit.line):
        text = made[edit.file].decode()
        if edit.line:
            lines = text.split("\n")
            end = "\r" if lines[edit.line - 1].endswith("\r") else ""
            lines[edit.line - 1] = edit.after + end
            text = "\n".join(lines)
        else:
            text = f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{edit.after}\n"
        made[edit.file] = text.encode()
    return made


def line_of(files: Mapping[str, bytes], file: str, line: int) -> str:
    """Returns a line of a file, without its end; nothing where there is none."""
    lines = files.get(file, b"").decode().split("\n")
    return lines[line - 1].removesuffix("\r") if 0 < line <= len(lines) else ""


def _written(subject: Subject, before: str, files: Mapping[str, bytes]) -> str:
    """Returns the line of a subject that has other groups or attributes."""
    suffix = PurePosixPath(subject.file).suffix
    if suffix == ".jsonl":
        record = json.loads(before)
        record["groups"] = list(subject.groups)
        record["attributes"] = {name: _plain(value) for name, value in subject.attributes.items()}
        return json.dumps(record, ensure_ascii=False)
    header = line_of(files, subject.file, 1).split(",")
    cells = before.split(",")
    if suffix != ".csv" or len(header) != len(cells) or '"' in before:
        return ""
    written = dict(zip(header, cells, strict=True))
    if "groups" in written:
        written["groups"] = " ".join(subject.groups)
    elif subject.groups:
        return ""
    for name, value in subject.attributes.items():
        column = next((cell for cell in header if cell.partition(":")[0] == name), None)
        if column is None or not isinstance(value, str | int | float):
            return ""
        written[column] = str(value).lower() if isinstance(value, bool) else str(value)
    return ",".join(written[cell] for cell in header)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def allowed(decision: Decision | None) -> bool:
    """Tells whether a decision allows."""
    return decision is not None and decision.effect is Effect.ALLOW


def held(world: World) -> Collection[str]:
    """Returns the roles that the subject holds by whatever links, and its id."""
    subject = world.subject
    if subject is None:
        return frozenset()
    above = _above(world.policy_set.edges, "g")
    above[subject.id] = [*above.get(subject.id, ()), *subject.groups]
    return reach(above, subject.id)
