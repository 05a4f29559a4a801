"""What might be in the way of a denied question, one edit at a time.

Owns the guesses: each is an edit of the question, of the directory or of the rules that takes away one thing that is in
the way. Nothing here says that it helps: `changes` decides under each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gatebook.compiler.roles import reach
from gatebook.engine.obligations import demands_mask
from gatebook.expression.moments import NOW, TIME_MATCH, Moment, time_match
from gatebook.expression.residual import residual
from gatebook.expression.tree import Expression, Literal
from gatebook.expression.truth import Functions
from gatebook.governance.witness import Goal, search
from gatebook.policy.casts import cast_row
from gatebook.policy.dataset import Dataset
from gatebook.policy.directory import Subject
from gatebook.policy.names import ROLE_PREFIX
from gatebook.policy.rule_text import read_condition
from gatebook.policy.subject_files import ATTRIBUTES_MAX
from gatebook.replay.world import EditKind, World, held, line_of
from gatebook.values import Decision, Effect, Enforcer, MaskKind, ObligationKind, Reason, Rule

SUBJECT, RESOURCE, ACTION, PURPOSE, CONDITION, OUTCOME = range(6)
"""Where the fields of a governed rule stand."""
RULES_MAX = 200
PURPOSES_MAX = 50
ROLES_MAX = 3
_FUNCTIONS: Functions = {TIME_MATCH: time_match}
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.@ -]{1,128}")
"""Ids that can stand in a condition of a rule without being misread."""
_FLOW = re.compile(r"(\s*purposes:\s*\[)([^\]]*)(\].*)")


class Files(msgspec.Struct, frozen=True):
    """The files that edits are made of."""

    policy: Mapping[str, bytes]
    directory: Mapping[str, bytes]


def repairs(world: World, decision: Decision | None, files: Files) -> Iterator[World]:
    """Yields worlds with one more edit each."""
    if decision is None:
        return
    for repair in _REPAIRS:
        yield from repair(world, decision, files)


def _columns(decision: Decision, *reasons: Reason) -> list[str]:
    """Returns the columns that were denied for one of some reasons, or for any."""
    return [
        it.column for it in decision.columns if it.effect is not Effect.ALLOW and (not reasons or it.reason in reasons)
    ]


def _dataset(world: World) -> Dataset | None:
    catalogue = world.policy_set.catalogue
    return None if catalogue is None else catalogue.datasets.get(world.request.resource)


def declare(world: World, decision: Decision, _files: Files) -> Iterator[World]:
    """The enforcer declares what is asked of it, and no more."""
    reasons = {decision.reason, *(it.reason for it in decision.columns)}
    if Reason.OBLIGATION_NOT_SUPPORTED not in reasons:
        return
    able = Enforcer(world.request.enforcer.id, frozenset(MaskKind) - {MaskKind.UNSPECIFIED}, frozenset(ObligationKind))
    able = msgspec.structs.replace(
        able, supported_obligations=able.supported_obligations - {ObligationKind.UNSPECIFIED}
    )
    tried = msgspec.structs.replace(world, request=msgspec.structs.replace(world.request, enforcer=able)).decide()
    if tried is not None and tried.effect is Effect.ALLOW:
        kinds = frozenset(mask.kind for it in tried.columns for mask in it.masks) - {MaskKind.NONE}
        had = world.request.enforcer
        able = Enforcer(had.id, had.supported_masks | kinds, had.supported_obligations | frozenset(tried.must_apply))
    words = sorted(kind.name.lower() for kind in able.supported_masks - world.request.enforcer.supported_masks)
    more = f" and the masks {', '.join(words)}" if words and len(words) < len(MaskKind) - 1 else ""
    obligations = sorted(
        k.name.lower() for k in able.supported_obligations - world.request.enforcer.supported_obligations
    )
    text = f"the enforcer declares {', '.join(obligations) or 'its obligations'}{more}"
    yield world.asking(EditKind.DECLARE_OBLIGATIONS, text, enforcer=able)


def name_purpose(world: World, decision: Decision, _files: Files) -> Iterator[World]:
    """Another purpose is named, which the notice permits."""
    purposes, dataset = world.policy_set.purposes, _dataset(world)
    if purposes is None or dataset is None or any(e.kind is EditKind.NAME_PURPOSE for e in world.edits):
        return
    if decision.reason in (Reason.UNKNOWN_SUBJECT, Reason.UNKNOWN_ACTION, Reason.UNKNOWN_COLUMN):
        return
    permitted = [name for name in purposes.names if not set(dataset.purposes).isdisjoint(purposes.lineage(name))]
    for name in permitted[:PURPOSES_MAX]:
        if name != world.request.purpose:
            yield world.asking(EditKind.NAME_PURPOSE, f"name the purpose `{name}`", purpose=name)


def leave_out(world: World, decision: Decision, _files: Files) -> Iterator[World]:
    """The columns that are denied are left out, where others are allowed."""
    kept = tuple(it.column for it in decision.columns if it.effect is Effect.ALLOW)
    denied = _columns(decision)
    dataset = _dataset(world)
    if decision.reason is Reason.UNKNOWN_COLUMN and dataset is not None:
        denied = [name for name in world.request.columns if name not in dataset.columns]
        kept = tuple(name for name in world.request.columns if name in dataset.columns)
    if kept and denied:
        some = ", ".join(denied[:5]) + (f" and {len(denied) - 5} more" if len(denied) > 5 else "")  # noqa: PLR2004  # enough to tell
        yield world.asking(EditKind.LEAVE_OUT_COLUMNS, f"leave out {some}", columns=kept)


def add_mask(world: World, decision: Decision, files: Files) -> Iterator[World]:
    """A tag that demands a mask gets one, the strictest, for whom a rule allows it."""
    columns, dataset, catalogue = _columns(decision, Reason.MASK_REQUIRED), _dataset(world), world.policy_set.catalogue
    if not columns or dataset is None or catalogue is None:
        return
    role = next((r.fields[SUBJECT] for r in _relevant(world, "allow") if r.fields[SUBJECT] in held(world)), "")
    demanding = {
        name: [tag for tag in dataset.columns[name].tags if demands_mask((tag,), catalogue.mask_tags)]
        for name in columns
    }
    common = set.intersection(*(set(tags) for tags in demanding.values()))
    nodes = [dataset.columns[columns[0]].node] if len(columns) == 1 else sorted(common)[:1]
    nodes = nodes or [dataset.columns[columns[0]].node]
    file = _last_file(world, files)
    if not role or not file:
        return
    purpose, action = world.request.purpose, world.request.action
    rule = _rule("p2", (role, nodes[0], action, purpose, "True", "nullify"), file)
    yield world.with_rule(EditKind.ADD_MASK, f"give `{nodes[0]}` a mask: `{rule.text}`", rule)


def give_role(world: World, _decision: Decision, files: Files) -> Iterator[World]:
    """The subject gets the role of a rule that allows this."""
    subject, mine, tried = world.subject, held(world), set[str]()
    for rule in _relevant(world, "allow"):
        role = rule.fields[SUBJECT]
        if subject is None or role in mine or role in tried or not role.startswith(ROLE_PREFIX):
            continue
        tried.add(role)
        with_role = msgspec.structs.replace(subject, groups=(*subject.groups, role))
        made = world.with_subject(EditKind.GIVE_ROLE, f"give `{subject.id}` `{role}`", with_role, files.directory)
        if made is not None:
            yield made


def state_context(world: World, _decision: Decision, _files: Files) -> Iterator[World]:
    """A circumstance is stated, by a caller who is believed."""
    believed = world.policy_set.settings.believed(world.caller).context
    for values in _witnesses(world, "ctx", believed):
        context = {**world.request.context, **values}
        told = ", ".join(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in sorted(values.items()))
        yield world.asking(EditKind.STATE_CONTEXT, f"state {told} in the context", context=context)


def set_attribute(world: World, _decision: Decision, files: Files) -> Iterator[World]:
    """The subject gets an attribute that a condition asks for."""
    subject = world.subject
    if subject is None:
        return
    for values in _witnesses(world, "sub", None):
        attributes = {**subject.attributes, **values}
        if "id" in values or len(attributes) > ATTRIBUTES_MAX:
            continue
        told = ", ".join(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in sorted(values.items()))
        other: Subject = msgspec.structs.replace(subject, attributes=attributes)
        text = f"give `{subject.id}` the attribute {told}"
        made = world.with_subject(EditKind.SET_ATTRIBUTE, text, other, files.directory)
        if made is not None:
            yield made


def permit_purpose(world: World, decision: Decision, files: Files) -> Iterator[World]:
    """The dataset, and its notice, permit the purpose."""
    catalogue, dataset, purpose = world.policy_set.catalogue, _dataset(world), world.request.purpose
    if decision.reason is not Reason.PURPOSE_NOT_PERMITTED or catalogue is None or dataset is None:
        return
    notice = catalogue.notice_of(dataset)
    lineage = () if world.policy_set.purposes is None else world.policy_set.purposes.lineage(purpose)
    in_notice = not set(notice.purposes).isdisjoint(lineage)
    place = _purposes_line(files, catalogue.file, dataset.line if in_notice else notice.line, purpose)
    if place is None or not notice.in_force(world.time):
        return
    line, before, after = place
    datasets, notices = dict(catalogue.datasets), dict(catalogue.notices)
    if in_notice or dataset.purposes == notice.purposes:
        datasets[dataset.id] = msgspec.structs.replace(dataset, purposes=(*dataset.purposes, purpose))
    if not in_notice:
        notices[notice.id] = msgspec.structs.replace(notice, purposes=(*notice.purposes, purpose))
    changed = msgspec.structs.replace(catalogue, datasets=datasets, notices=notices)
    where = f"`{dataset.id}`" if in_notice else f"the notice `{notice.id}`"
    yield world.with_catalogue(f"{where} permits `{purpose}`", changed, line, before, after)


def _purposes_line(files: Files, file: str, start: int, purpose: str) -> tuple[int, str, str] | None:
    """Returns the line `purposes: [...]` of a block that begins at a line, as it is and with one more."""
    indent = None
    for line in range(start, start + 40):
        text = line_of(files.policy, file, line)
        depth = len(text) - len(text.lstrip())
        if indent is None:
            indent = depth
        elif text.strip() and depth <= indent:
            return None
        match = _FLOW.fullmatch(text)
        if match is not None:
            return line, text, f"{match[1]}{match[2]}, {purpose}{match[3]}"
    return None


def add_grant(world: World, decision: Decision, files: Files) -> Iterator[World]:
    """A rule allows a role of the subject's, of the fewest people, what is denied."""
    subject, dataset, file = world.subject, _dataset(world), _last_file(world, files)
    columns = _columns(decision, Reason.NO_MATCHING_RULE, Reason.PURPOSE_NOT_GRANTED)
    if subject is None or dataset is None or not columns or not file or not world.request.purpose:
        return
    node = dataset.id if len(columns) > 1 else dataset.columns[columns[0]].node
    for role in _rarest(world)[:ROLES_MAX]:
        fields = (role, node, world.request.action, world.request.purpose, "True", "allow")
        rule = _rule("p", fields, file)
        yield world.with_rule(EditKind.ADD_GRANT, f"add the rule `{rule.text}`", rule)


def _rarest(world: World) -> list[str]:
    """Returns the roles that the directory gives the subject, those of the fewest subjects first."""
    directory, subject = world.snapshot.directory, world.subject
    if directory is None or subject is None:
        return []
    held_by = Counter(group for other in directory.subjects.values() for group in other.groups)
    return sorted(subject.groups, key=lambda role: (held_by[role], role))


def lift_denies(world: World, decision: Decision, _files: Files) -> Iterator[World]:
    """A rule that denies spares the subject, or goes."""
    if not _columns(decision, Reason.DENIED_BY_RULE, Reason.EVALUATION_ERROR):
        return
    named = {(rule.file, rule.line) for rule in decision.rules if rule.effect == "deny"}
    subject = world.request.subject.id
    for rule in [rule for rule in _relevant(world, "deny") if (rule.file, rule.line) in named]:
        place = f"{rule.file}:{rule.line}"
        if _PLAIN_ID.fullmatch(subject):
            condition = rule.fields[CONDITION]
            spared = f"r.sub.id != '{subject}'"
            narrowed = spared if condition == "True" else f"({condition}) && {spared}"
            fields = (*rule.fields[:CONDITION], narrowed, *rule.fields[CONDITION + 1 :])
            instead = msgspec.structs.replace(_rule(rule.ptype, fields, rule.file), line=rule.line)
            yield world.instead_of(EditKind.NARROW_DENY, f"{place} spares `{subject}`: `{instead.text}`", rule, instead)
        yield world.instead_of(EditKind.REMOVE_DENY, f"remove {place} `{rule.text}`", rule, None)


_REPAIRS = (
    declare,
    name_purpose,
    state_context,
    leave_out,
    add_mask,
    set_attribute,
    give_role,
    permit_purpose,
    add_grant,
    lift_denies,
)


def _relevant(world: World, effect: str) -> list[Rule]:
    """Returns the rules of an effect that speak of a column that is asked for, and of a purpose above the named one."""
    dataset, purposes = _dataset(world), world.policy_set.purposes
    if dataset is None:
        return []
    above: dict[str, list[str]] = {}
    for edge in world.policy_set.edges:
        if edge.gtype == "g2":
            above.setdefault(edge.child, []).append(edge.parent)
    nodes = set[str]().union(*(reach(above, dataset.columns[name].node) for name in world.dataset_columns))
    lineage = () if purposes is None else purposes.lineage(world.request.purpose)
    found = (
        rule
        for rule in world.policy_set.rules
        if rule.ptype == "p" and rule.fields[OUTCOME] == effect and rule.fields[RESOURCE] in nodes
    )
    return [rule for rule in found if rule.fields[PURPOSE] in lineage][:RULES_MAX]


def _witnesses(world: World, root: str, names: frozenset[str] | None) -> Iterator[Mapping[str, Any]]:
    """Yields values of paths under a root with which an allow of the subject's applies and no deny does."""
    mine, dataset = held(world), _dataset(world)
    if dataset is None or names == frozenset():
        return
    allows = [rule for rule in _relevant(world, "allow") if rule.fields[SUBJECT] in mine]
    denies = [rule for rule in _relevant(world, "deny") if rule.fields[SUBJECT] in mine]
    seen: list[Mapping[str, Any]] = []
    for allow in allows:
        goals: list[Goal] = []
        for rule, wanted in ((allow, True), *((deny, False) for deny in denies)):
            left = _left(world, rule, root, names)
            if isinstance(left, bool) and left is wanted:
                continue
            goals.append((left, wanted) if not isinstance(left, bool | None) else (Literal(value=False), True))
        types = {name: column.type for name, column in dataset.columns.items()}
        found = search(goals, types, now=Moment(world.time)).witness if goals else None
        values = {} if found is None else {path[2]: value for path, value in found.values.items() if path[1] == root}
        if values and values not in seen:
            seen.append(values)
            yield values


def _left(world: World, rule: Rule, root: str, names: frozenset[str] | None) -> bool | Expression | None:
    """Returns what a condition leaves when all is known but some paths under a root, and the row if it is not known."""
    dataset, request, subject = _dataset(world), world.request, world.subject
    believed = world.policy_set.settings.believed(world.caller)
    stated = {key: value for key, value in request.subject.properties.items() if key in believed.subject}
    attributes = {**stated, **({} if subject is None else subject.attributes), "id": request.subject.id}
    known = {
        "sub": attributes,
        "ctx": {key: value for key, value in request.context.items() if key in believed.context},
        "row": None if request.row is None or dataset is None else cast_row(dataset, request.row),
        "act": request.action,
        "purpose": request.purpose,
        NOW: Moment(world.time),
    }

    def open_path(path: tuple[str, ...]) -> tuple[str, ...] | None:
        opened = len(path) > 2 and path[1] == root and path[2] != "id" and (names is None or path[2] in names)  # noqa: PLR2004  # r, its token, and a name
        return path if opened else None

    return residual(read_condition(world.policy_set.model, rule.fields[CONDITION]), {"r": known}, _FUNCTIONS, open_path)


def _rule(ptype: str, fields: Sequence[str], file: str) -> Rule:
    quoted = [field if not set(field) & set(',"') else '"' + field.replace('"', '""') + '"' for field in fields]
    return Rule(ptype, tuple(fields), file, 0, ", ".join((ptype, *quoted)))


def _last_file(world: World, files: Files) -> str:
    """Returns the file of rules that speaks of the dataset, else any."""
    rules = [rule.file for rule in world.policy_set.rules if rule.file in files.policy]
    return rules[0] if rules else next((p for p in sorted(files.policy) if p.endswith(".csv")), "")
