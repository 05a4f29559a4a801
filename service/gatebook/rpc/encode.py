"""Converts the values of the core to messages."""

from __future__ import annotations

from google.protobuf import struct_pb2

from gatebook import values
from gatebook.expression import tree
from gatebook.governance.judge import Level
from gatebook.governance.listing import Listing
from gatebook.revisions.validate import Validation
from gatebook.v1 import policy_service_pb2, types_pb2


def revision(value: values.Revision) -> types_pb2.Revision:
    """Returns a revision as a message."""
    return types_pb2.Revision(digest=value.digest, number=value.number)


def outcome(value: values.Outcome) -> types_pb2.Decision:
    """Returns what the gate found as a message, which lacks what each decision has of its own."""
    message = types_pb2.Decision(
        effect=int(value.effect),  # type: ignore[arg-type]  # the numbers are equal, see the contract test
        reason=int(value.reason),  # type: ignore[arg-type]  # as above
        message=value.message,
        policy_revision=revision(value.policy_revision),
        columns=[column_outcome(c) for c in value.columns],
        must_apply=[int(kind) for kind in value.must_apply],  # type: ignore[misc]  # as above
        rules=[rule_ref(rule) for rule in value.rules],
        notice_id=value.notice_id,
    )
    if value.directory_revision is not None:
        message.directory_revision.CopyFrom(revision(value.directory_revision))
    if value.minimum_group is not None:
        message.minimum_group.k = value.minimum_group.k
        message.minimum_group.entity_columns.extend(value.minimum_group.entity_columns)
    return message


def row_filter_kind(outcome: values.Outcome, *, row_given: bool) -> types_pb2.RowFilterKind.ValueType:
    """Returns which rows a decision covers: a question about one row is answered for that row alone."""
    if outcome.effect is not values.Effect.ALLOW:
        return types_pb2.ROW_FILTER_KIND_NO_ROWS
    return types_pb2.ROW_FILTER_KIND_ASKED_ROW if row_given else types_pb2.ROW_FILTER_KIND_ALL_ROWS


def column_outcome(value: values.ColumnOutcome) -> types_pb2.ColumnOutcome:
    """Returns a column's outcome as a message."""
    return types_pb2.ColumnOutcome(
        column=value.column,
        effect=int(value.effect),  # type: ignore[arg-type]  # the numbers are equal, see the contract test
        reason=int(value.reason),  # type: ignore[arg-type]  # as above
        masks=[mask(m) for m in value.masks],
    )


def mask(value: values.Mask) -> types_pb2.Mask:
    """Returns a mask as a message."""
    message = types_pb2.Mask(kind=int(value.kind), key_id=value.key_id)  # type: ignore[arg-type]  # numbers are equal
    if value.parameters:
        parameters = struct_pb2.Struct()
        parameters.update(dict(value.parameters))
        message.parameters.CopyFrom(parameters)
    if value.condition is not None:
        message.condition.CopyFrom(expression(value.condition))
    return message


def expression(node: tree.Expression) -> types_pb2.Expression:
    """Returns an expression tree as a message."""
    match node:
        case tree.Literal(value=value):
            return types_pb2.Expression(literal=expression_value(value))
        case tree.Path(names=names):
            return types_pb2.Expression(path=types_pb2.AttributePath(names=names))
        case tree.Call(op=op, operands=operands):
            return types_pb2.Expression(call=types_pb2.Call(op=op, operands=[expression(o) for o in operands]))


def expression_value(value: tree.Value) -> types_pb2.Value:
    """Returns a literal as a message; null is a message with no field set.

    A whole number beyond 64 bits, which neither message nor column holds, is null: unknown, and so masked or denied.
    """
    match value:
        case bool():
            return types_pb2.Value(bool_value=value)
        case int():
            return types_pb2.Value(int_value=value) if -(1 << 63) <= value < 1 << 63 else types_pb2.Value()
        case float():
            return types_pb2.Value(double_value=value)
        case str():
            return types_pb2.Value(string_value=value)
        case tuple():
            return types_pb2.Value(list_value=types_pb2.ValueList(values=[expression_value(v) for v in value]))
        case None:
            return types_pb2.Value()


def rule_ref(value: values.RuleRef) -> types_pb2.RuleRef:
    """Returns a reference to a rule as a message."""
    return types_pb2.RuleRef(rule=value.rule, file=value.file, line=value.line, effect=value.effect)


def explanation(near: tuple[values.NearRule, ...], roles: tuple[str, ...]) -> types_pb2.Explanation:
    """Returns an explanation as a message."""
    rules = [types_pb2.NearRule(rule=rule_ref(n.rule), lacked=n.lacked) for n in near]
    return types_pb2.Explanation(near_rules=rules, roles=roles)


def finding(value: values.Finding) -> policy_service_pb2.Finding:
    """Returns a finding as a message."""
    message = policy_service_pb2.Finding(
        invariant=value.invariant,
        severity=int(value.severity),  # type: ignore[arg-type]  # the numbers are equal, see the contract test
        message=value.message,
        file=value.file,
        line=value.line,
        column=value.column,
        dataset=value.dataset,
        action=value.action,
        excess=value.excess,
        ceiling=value.ceiling,
    )
    if value.counterexample is not None:
        message.counterexample.CopyFrom(counterexample(value.counterexample, value.dataset, value.action))
    return message


def counterexample(value: values.Counterexample, dataset: str, action: str) -> policy_service_pb2.Counterexample:
    """Returns a counterexample as a message, with a request that can be asked as it is."""
    request = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type=value.subject_type, id=value.subject),
        action=types_pb2.Action(name=action),
        resource=types_pb2.Resource(id=dataset, columns=value.columns),
        purpose=value.purpose,
        context_json=value.context_json.encode(),
        row_json=value.row_json.encode(),
        enforcer=types_pb2.Enforcer(
            id="counterexample",
            supported_masks=[int(kind) for kind in values.MaskKind if kind],  # type: ignore[misc]  # numbers are equal
            supported_obligations=[int(kind) for kind in values.ObligationKind if kind],  # type: ignore[misc]  # as above
        ),
    )
    if value.audience:
        request.action.properties.update({"audience": list(value.audience)})
    if value.properties_json:
        request.subject.properties_json = value.properties_json.encode()
    return policy_service_pb2.Counterexample(
        subject=value.subject,
        subject_type=value.subject_type,
        path=[path_step(step) for step in value.path],
        request=request,
        caller=value.caller,
        confirmed=value.confirmed,
        why_not=value.why_not,
    )


def path_step(value: values.PathStep) -> policy_service_pb2.PathStep:
    """Returns a link or rule as a message."""
    return policy_service_pb2.PathStep(text=value.text, file=value.file, line=value.line)


_CERTAINTY = {
    Level.CERTAIN: policy_service_pb2.CERTAINTY_CERTAIN,
    Level.POSSIBLE: policy_service_pb2.CERTAINTY_POSSIBLE,
    Level.OWN: policy_service_pb2.CERTAINTY_OWN_ROWS,
}


def audience(value: Listing, node: str) -> policy_service_pb2.Audience:
    """Returns an audience as a message."""
    reach, services = value.reach, value.services
    return policy_service_pb2.Audience(
        node=node,
        people_certain=(reach.certain & ~services).bit_count(),
        people_possible=(reach.possible & ~services).bit_count(),
        people_own_rows=(reach.own & ~services).bit_count(),
        services=services.bit_count(),
        members=[
            policy_service_pb2.AudienceMember(
                subject=member.subject.id,
                subject_type=member.subject.type,
                dataset=member.dataset,
                columns=member.columns,
                action=member.action,
                purposes=member.purposes,
                certainty=_CERTAINTY[member.level],
                condition=member.condition,
                path=[path_step(step) for step in member.path],
            )
            for member in value.members
        ],
        subjects_left_out=value.left_out,
    )


def validation(value: Validation) -> policy_service_pb2.ValidatePolicySetResponse:
    """Returns all that is known of a draft as a message."""
    return policy_service_pb2.ValidatePolicySetResponse(
        digest=value.digest,
        findings=[finding(found) for found in value.findings],
        test_failures=[test_failure(failed) for failed in value.test_failures],
        tests_run=value.tests_run,
    )


def test_failure(value: values.TestFailure) -> policy_service_pb2.TestFailure:
    """Returns a failed expectation as a message."""
    return policy_service_pb2.TestFailure(
        file=value.file,
        line=value.line,
        test=value.test,
        question=value.question,
        expected=value.expected,
        actual=value.actual,
    )
