"""The policy set `gatebook`: who may call what of the server itself.

Owns its vocabulary and the one shape that its model has, which the door relies on:

    sub   the caller, with `id`, `kind` (local, certificate, token) and its attributes
    obj   what it wants: an operation, a type of subjects, `policy_set`, `zone`, `directory`, a kind of entries
    act   call, ask, read, publish or see
    set   the policy set concerned; empty where none is
    ctx   `dev`: whether the server runs with --dev
    row   the subject asked about, or the entry

It is a plain set that any Casbin tool reads. Its matcher is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gatebook.expression.moments import TIME_MATCH
from gatebook.expression.tree import Call
from gatebook.policy.bundle import MODEL_FILE, SETTINGS_FILE
from gatebook.policy.model import EffectKind, walk
from gatebook.policy.names import ROLE
from gatebook.policy.policy_set import PLAIN, PolicySet
from gatebook.policy.rules_file import field_column
from gatebook.policy.suggest import did_you_mean
from gatebook.values import Finding, Rule, Severity

GATEBOOK: Final = "gatebook"
REQUEST: Final = ("sub", "obj", "act", "set", "ctx", "row")
RULE: Final = ("sub", "obj", "act", "set", "cond", "eft")
ANY: Final = "*"

CALL: Final = "call"
ASK: Final = "ask"
READ: Final = "read"
PUBLISH: Final = "publish"
SEE: Final = "see"
ACTS: Final = (CALL, ASK, READ, PUBLISH, SEE)

KINDS: Final = ("local", "certificate", "token")
"""The kinds of callers, which may be given roles as callers are."""

POLICY_SET: Final = "policy_set"
ZONE: Final = "zone"
"""May be published by whoever administers it: rules about its datasets, and nothing else of the set."""
DIRECTORY: Final = "directory"

KEEPING: Final = ((PUBLISH, POLICY_SET, GATEBOOK), (CALL, "PublishPolicySet", ""))
"""What takes it to publish this very set: act, object and set of what the door asks."""

SHAPE: Final = "GATEBOOK_MODEL"
_NO_TIME: Final = "the door keeps an answer until the set is published again, whatever the time"

OPERATIONS: Final = (
    "CheckAccess",
    "BatchCheckAccess",
    "StreamCheckAccess",
    "Check",
    "PlanAccess",
    "SearchSubjects",
    "SearchResources",
    "SearchActions",
    "ExplainDecision",
    "ValidatePolicySet",
    "DiffPolicySet",
    "PublishPolicySet",
    "UploadPolicySet",
    "PublishDirectory",
    "UploadDirectory",
    "GetRevision",
    "ListRevisions",
    "WatchRevisions",
    "RollbackPolicySet",
    "ListProposals",
    "ApproveRevision",
    "WithdrawProposal",
    "RecordLineage",
    "GetLineage",
    "ReplayDecisions",
    "ShadowPolicySet",
    "ProposeReclassification",
    "ListEntries",
    "GetEntry",
    "TailEntries",
    "ListBooks",
    "GetCheckpoint",
    "GetInclusionProof",
    "GetConsistencyProof",
    "EraseSubject",
    "PruneEntries",
    "ServerReflection.ServerReflectionInfo",
    "Channelz.GetTopChannels",
    "Channelz.GetServers",
    "Channelz.GetServer",
    "Channelz.GetServerSockets",
    "Channelz.GetChannel",
    "Channelz.GetSubchannel",
    "Channelz.GetSocket",
    "Unimplemented",
)
"""Every operation of the server: the methods of `gatebook.v1` and Envoy's `Check` by their names, others with
their service, and calling what does not exist."""


def shape_findings(policy_set: PolicySet) -> list[Finding]:
    """Returns what keeps a set from being `gatebook`, and which of its rules name what does not exist."""
    return sorted((*_model(policy_set), *_settings(policy_set), *_rules(policy_set)))


def _model(policy_set: PolicySet) -> Iterator[Finding]:
    model = policy_set.model
    if policy_set.kind != PLAIN:
        yield _finding(MODEL_FILE, 0, 0, "the set `gatebook` is a plain set; remove its catalogue")
    for section, key, wanted, found in (
        ("request", "r", REQUEST, model.requests.get("r")),
        ("policy", "p", RULE, model.policies.get("p")),
    ):
        if found is None or found.tokens != wanted:
            text = f"[{section}_definition] {key} = {', '.join(wanted)}"
            yield _finding(
                MODEL_FILE, found.line if found else 0, 1 if found else 0, f"the door asks this: write `{text}`"
            )
    effect = model.effects["e"]
    if effect.kind is not EffectKind.ALLOW_AND_DENY:
        text = f"[policy_effect] e = {EffectKind.ALLOW_AND_DENY.value}"
        yield _finding(MODEL_FILE, effect.line, 1, f"what no rule allows is refused at the door: write `{text}`")


def _settings(policy_set: PolicySet) -> Iterator[Finding]:
    if policy_set.settings.request:
        yield _finding(SETTINGS_FILE, 0, 0, "the door supplies the tokens itself; remove `request`")
    if policy_set.settings.role_conditions:
        yield _finding(SETTINGS_FILE, 0, 0, f"{_NO_TIME}; remove `role_conditions`")
    for matcher in policy_set.model.matchers.values():
        if any(isinstance(node, Call) and node.op == TIME_MATCH for node in walk(matcher.expression)):
            yield _finding(MODEL_FILE, matcher.line, 1, f"{_NO_TIME}; remove `{TIME_MATCH}`")


def _rules(policy_set: PolicySet) -> Iterator[Finding]:
    definition = policy_set.model.policies.get("p")
    if definition is None or definition.tokens != RULE:
        return
    groups = {edge.parent for edge in policy_set.edges if edge.gtype == "g2"}
    for edge in policy_set.edges:
        if edge.gtype == "g" and not ROLE.fullmatch(edge.parent):
            message = f"`{edge.parent}` is no role, so nobody can be given it: write `role:name`"
            yield _finding(edge.file, edge.line, 1, message)
        if edge.gtype == "g2" and edge.child not in (*groups, *OPERATIONS) and _is_operation(edge.child):
            yield _unknown_operation(edge.file, edge.line, 1, edge.child)
    for rule in policy_set.rules:
        if rule.ptype == "p":
            yield from _rule(rule, groups)


def _rule(rule: Rule, groups: set[str]) -> Iterator[Finding]:
    what, does = rule.fields[RULE.index("obj")], rule.fields[RULE.index("act")]
    if does not in ACTS:
        column = field_column(rule, RULE.index("act"))
        message = f"`{does}` is nothing that the door asks{did_you_mean(does, ACTS)}: write {', '.join(ACTS)}"
        yield _finding(rule.file, rule.line, column, message)
    elif does == CALL and what not in (ANY, *groups, *OPERATIONS) and not set(what) & set("*{}:["):
        yield _unknown_operation(rule.file, rule.line, field_column(rule, RULE.index("obj")), what)
    if f"{TIME_MATCH}(" in rule.fields[RULE.index("cond")]:
        yield _finding(
            rule.file, rule.line, field_column(rule, RULE.index("cond")), f"{_NO_TIME}; remove `{TIME_MATCH}`"
        )


def _is_operation(name: str) -> bool:
    """Tells whether a name looks like that of an operation: the types of subjects begin in lower case."""
    return name[:1].isupper()


def _unknown_operation(file: str, line: int, column: int, name: str) -> Finding:
    message = f"this version has no operation `{name}`{did_you_mean(name, OPERATIONS)}"
    return Finding(file, line, column, "UNKNOWN_OPERATION", message, Severity.WARNING)


def _finding(file: str, line: int, column: int, message: str) -> Finding:
    return Finding(file, line, column, SHAPE, message)
