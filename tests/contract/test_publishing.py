"""Publishing: validate, test, store, write, swap; or refuse and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.v1 import access_service_pb2, audit_service_pb2, entry_pb2, types_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

FOLDER = POLICIES / "basic"
BASIC = {str(path.relative_to(FOLDER)): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of the plain set `basic`."""
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as running:
        yield running


def files(changed: dict[str, bytes]) -> list[pb.PolicyFile]:
    """Returns the files of the set `basic`, some of them changed."""
    return [pb.PolicyFile(path=path, content=content) for path, content in {**BASIC, **changed}.items()]


def with_rule(line: str) -> list[pb.PolicyFile]:
    """Returns the set `basic` with one more line in its policy."""
    return files({"policy.csv": BASIC["policy.csv"] + line.encode() + b"\n"})


def allowed(channel: grpc.Channel, subject: str, action: str = "read") -> tuple[bool, int]:
    """Asks whether a subject may see the weekly report, and by which revision."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id=subject),
        action=types_pb2.Action(name=action),
        resource=types_pb2.Resource(id="report:weekly"),
    )
    request = access_service_pb2.CheckAccessRequest(access=access)
    decision = AccessServiceStub(channel).CheckAccess(request).decision
    return decision.effect == types_pb2.EFFECT_ALLOW, decision.policy_revision.number


def policy_steps(channel: grpc.Channel) -> list[entry_pb2.PolicyStep.ValueType]:
    """Returns the policy entries of the book, the oldest first."""
    request = audit_service_pb2.ListEntriesRequest(
        filter=audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_POLICY),
        order=audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST,
    )
    entries = [record.entry.policy for record in AuditServiceStub(channel).ListEntries(request).entries]
    return [entry.step for entry in entries if entry.policy_set != "gatebook"]


def test_a_publish_takes_effect_with_the_next_check(server: RunningServer) -> None:
    """A new revision decides as soon as it is acknowledged, and its activation is an entry."""
    with server.channel() as channel:
        before = allowed(channel, "zoe")
        response = PolicyServiceStub(channel).PublishPolicySet(
            pb.PublishPolicySetRequest(policy_set="basic", files=with_rule("g, zoe, role:viewer"))
        )
        after = allowed(channel, "zoe")
        steps = policy_steps(channel)

    assert (before, response.changed, after) == ((False, 1), True, (True, 2))
    assert steps == [entry_pb2.POLICY_STEP_ACTIVATED, entry_pb2.POLICY_STEP_ACTIVATED]


REFUSED = {
    "a rule type that Casbin drops": {"policy.csv": b"pp, alice, report:weekly, read, deny\n"},
    "an effect that Casbin ignores": {"policy.csv": b"p, alice, report:weekly, read, dney\n"},
    "a broken model": {"model.conf": b"[request_definition]\nr = sub\n"},
    "a test that fails": {"policy.csv": b"p, role:viewer, report:weekly, write, allow\n"},
    "no model": {"model.conf": b""},
    "bytes that are no text": {"policy.csv": b"p, \xff\xfe, x, y, allow\n"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_publish_changes_nothing(server: RunningServer, name: str) -> None:
    """A set with a finding or failing test is refused, the active revision stays, and the refusal is an entry."""
    with server.channel() as channel:
        with pytest.raises(grpc.RpcError) as refused:
            PolicyServiceStub(channel).PublishPolicySet(
                pb.PublishPolicySetRequest(policy_set="basic", files=files(REFUSED[name]))
            )
        after = allowed(channel, "alice")
        steps = policy_steps(channel)
    metadata: dict[str, bytes] = dict(refused.value.trailing_metadata())  # type: ignore[arg-type]  # pairs, in fact
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, failure = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()

    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert status.details[0].Unpack(info)
    assert info.reason == "POLICY_SET_REFUSED"
    assert status.details[1].Unpack(failure)
    assert failure.violations
    assert after == (True, 1)
    assert steps[-1] == entry_pb2.POLICY_STEP_REFUSED


def test_publishing_the_same_again_changes_nothing(server: RunningServer) -> None:
    """A repeated publish, by content or by request id, leaves the revision and the book as they are."""
    with server.channel() as channel:
        stub = PolicyServiceStub(channel)
        first = stub.PublishPolicySet(
            pb.PublishPolicySetRequest(policy_set="basic", files=with_rule("g, zoe, role:viewer"), request_id="a")
        )
        stub.PublishPolicySet(pb.PublishPolicySetRequest(policy_set="basic", files=files({})))
        retried = stub.PublishPolicySet(
            pb.PublishPolicySetRequest(policy_set="basic", files=with_rule("g, zoe, role:viewer"), request_id="a")
        )
        same = stub.PublishPolicySet(pb.PublishPolicySetRequest(policy_set="basic", files=files({})))
        active = allowed(channel, "zoe")

    assert (first.revision.number, retried.revision.number, retried.changed) == (2, 2, False)
    assert (same.revision.number, same.changed) == (3, False)
    assert active == (False, 3)


def test_validate_only_changes_nothing_and_is_written(server: RunningServer) -> None:
    """Validation tells what would happen, activates nothing, and is an entry."""
    with server.channel() as channel:
        stub = PolicyServiceStub(channel)
        told = stub.ValidatePolicySet(
            pb.ValidatePolicySetRequest(policy_set="basic", files=files({"policy.csv": b"pp, a\nq\n"}))
        )
        stub.PublishPolicySet(
            pb.PublishPolicySetRequest(policy_set="basic", files=with_rule("g, zoe, role:viewer"), validate_only=True)
        )
        active = allowed(channel, "zoe")
        steps = policy_steps(channel)

    assert {(f.file, f.line) for f in told.findings} >= {("policy.csv", 1), ("policy.csv", 2)}
    assert active == (False, 1)
    assert steps[1:] == [entry_pb2.POLICY_STEP_VALIDATED, entry_pb2.POLICY_STEP_VALIDATED]


def test_revisions_are_listed_and_shown_with_their_files(server: RunningServer) -> None:
    """Every activation is listed, page by page, and the exact files of each are there."""
    with server.channel() as channel:
        stub = PolicyServiceStub(channel)
        for name in ("zoe", "yan"):
            stub.PublishPolicySet(
                pb.PublishPolicySetRequest(policy_set="basic", files=with_rule(f"g, {name}, role:viewer"))
            )
        first = stub.ListRevisions(pb.ListRevisionsRequest(policy_set="basic", page_size=2))
        second = stub.ListRevisions(
            pb.ListRevisionsRequest(policy_set="basic", page_size=2, page_token=first.next_page_token)
        )
        oldest = stub.GetRevision(pb.GetRevisionRequest(digest=second.records[0].revision.digest))

    numbers = [(r.revision.number, r.active) for r in (*first.records, *second.records)]
    assert numbers == [(3, True), (2, False), (1, False)]
    assert {file.path: file.content for file in oldest.files} == BASIC


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.GetRevisionRequest(digest="0" * 64), grpc.StatusCode.NOT_FOUND),
        (pb.GetRevisionRequest(policy_set="nosuch"), grpc.StatusCode.NOT_FOUND),
        (pb.ListRevisionsRequest(page_token="x"), grpc.StatusCode.INVALID_ARGUMENT),  # noqa: S106 - a page token
        (pb.ListRevisionsRequest(page_size=-1), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ListRevisionsRequest(page_size=1_001), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (pb.PublishPolicySetRequest(policy_set="basic"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.PublishPolicySetRequest(files=files({})), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.PublishPolicySetRequest(policy_set="My Set", files=files({})), grpc.StatusCode.INVALID_ARGUMENT),
        (
            pb.PublishPolicySetRequest(policy_set="basic", files=[pb.PolicyFile(path="../model.conf", content=b"x")]),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        (
            pb.PublishPolicySetRequest(files=[pb.PolicyFile(path="model.conf"), pb.PolicyFile(path="model.conf")]),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            pb.PublishPolicySetRequest(files=[pb.PolicyFile(path="policy.csv", content=bytes(9 << 20))]),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ),
    ],
)
def test_malformed_requests_are_refused(
    server: RunningServer,
    request_: pb.GetRevisionRequest | pb.ListRevisionsRequest | pb.PublishPolicySetRequest,
    code: grpc.StatusCode,
) -> None:
    """What does not exist, is malformed or too large gets its own code."""
    method = type(request_).__name__.removesuffix("Request")
    with server.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        getattr(PolicyServiceStub(channel), method)(request_)

    assert refused.value.code() is code


def test_a_finding_is_told_where_it_is(tmp_path: Path) -> None:
    """Line 100, which a terminal might take for a picture (`:100:`), is told as a number like any other."""
    (tmp_path / "model.conf").write_bytes((POLICIES / "basic" / "model.conf").read_bytes())
    (tmp_path / "policy.csv").write_text("p, ana, report, read, allow\n" * 99 + "pp, ana, report, read, allow\n")
    lint = gatebook("policy", "lint", str(tmp_path))

    assert (1, True) == (lint.returncode, "policy.csv:100:1: error: " in lint.stdout)


def test_the_commands_lint_test_publish_list_and_show(server: RunningServer, tmp_path: Path) -> None:
    """The command line does the same, for people and as JSON."""
    target = ("--target", server.target)
    folder = tmp_path / "basic"
    shown = gatebook("policy", "show", *target, "--out", str(folder), check=True)
    lint = gatebook("policy", "lint", str(folder), check=True)
    tested = gatebook("policy", "test", str(folder), "--json", check=True)
    published = gatebook("policy", "publish", str(folder), *target, check=True)
    (folder / "policy.csv").write_text("pp, alice, x, read, allow\n")
    refused = gatebook("policy", "publish", str(folder), *target)
    listed = gatebook("policy", "list", *target, check=True)

    assert "basic revision 1 active" in shown.stdout
    assert "0 errors" in lint.stdout
    assert '"tests_run": 17' in tested.stdout
    assert "was active already" in published.stdout
    assert (refused.returncode, "policy.csv:1:1:" in refused.stderr) == (1, True)
    assert "active" in listed.stdout
