"""A server of the telemetry set that asks for approvals, and people with tokens of their own who call it over TLS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from tests import long_ago
from tests.authorised import gatebook_set, publishing
from tests.certificates import authority, server_of
from tests.serving import RunningServer, serving
from tests.telemetry_sets import TELEMETRY
from tests.tokens import SigningKey, key_set

from gatebook.cli.output import details_of
from gatebook.policy.bundle import read_folder
from gatebook.v1 import audit_service_pb2, entry_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

Files = dict[str, bytes]
SECONDS = 120
APPROVALS = """
approvals:
  approvers: [role:privacy_officer, role:mci_owner, role:hrbp]
  loosening: {people: 2, one_of: [role:privacy_officer]}
  tightening: {people: 1}
  expire_hours: 24
"""
ROLES = (
    "g, token, role:approver",
    "g, corp:kai, role:publisher",
    "g, corp:kai, role:pipeline",
    "g, corp:hana, role:publisher",
    "g, corp:gus, role:zone_administrator",
    "g, corp:jo, role:auditor",
)
"""Everybody with a token may call ApproveRevision: whose approval counts, the set itself says."""
CALLERS = """issuers:
  corp:
    issuer: https://id.corp.example
    audiences: [gatebook]
    algorithms: [ES256]
    jwks: keys.json
    subject: {type: user}
quotas:
  corp:kai: {changes_per_second: 50, changes_in_flight: 4}
  corp:hana: {changes_per_second: 50}
  corp:gus: {changes_per_second: 50}
"""


def telemetry(folder: Path, block: str = APPROVALS) -> Path:
    """Copies the telemetry set with a block of approvals, without its tests and guardrails: they take their time."""
    made = folder / "telemetry"
    shutil.copytree(TELEMETRY, made, ignore=shutil.ignore_patterns("tests", "guardrails.yaml"))
    settings = made / "gatebook.yaml"
    kept = settings.read_text(encoding="utf-8").partition("\napprovals:")[0]
    settings.write_text(kept + block, encoding="utf-8")
    return made


class Guarded:
    """The server, and how its people call it."""

    def __init__(self, server: RunningServer, folder: Path, key: SigningKey, ca: bytes) -> None:
        """Takes the server, the folder of its set, the key that signs tokens and the authority of its certificate."""
        self.server = server
        self.folder = folder
        self.files: Files = read_folder(folder)
        self._key = key
        self._ca = ca

    @contextmanager
    def acting(self, name: str) -> Iterator[grpc.Channel]:
        """Opens a channel whose every call shows the token of a person."""
        shown = grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(self._ca), grpc.access_token_call_credentials(self._key.token(sub=name))
        )
        with grpc.secure_channel(self.server.target, shown) as channel:
            yield channel

    def options(self, name: str) -> tuple[str, ...]:
        """Returns what a command line needs to call as a person."""
        token = self.folder.parent / f"{name}.token"
        token.write_text(self._key.token(sub=name))
        ca = self.folder.parent / "ca.crt"
        ca.write_bytes(self._ca)
        return ("--target", self.server.target, "--tls-ca", str(ca), "--token-file", str(token))

    def publish(self, name: str, files: Mapping[str, bytes], **fields: Any) -> pb.PublishPolicySetResponse:  # noqa: ANN401  # of the request
        """Publishes the set as a person."""
        sent = [pb.PolicyFile(path=path, content=content) for path, content in files.items()]
        request = pb.PublishPolicySetRequest(policy_set="telemetry", files=sent, **fields)
        with self.acting(name) as channel:
            return PolicyServiceStub(channel).PublishPolicySet(request, timeout=SECONDS)

    def approve(self, name: str, proposal: pb.Proposal, diff_digest: str = "") -> pb.ApproveRevisionResponse:
        """Approves a proposal as a person."""
        diff = diff_digest or proposal.diff_digest
        request = pb.ApproveRevisionRequest(policy_set="telemetry", digest=proposal.digest, diff_digest=diff)
        with self.acting(name) as channel:
            return PolicyServiceStub(channel).ApproveRevision(request, timeout=SECONDS)

    def withdraw(self, name: str, proposal: pb.Proposal) -> pb.WithdrawProposalResponse:
        """Withdraws a proposal as a person."""
        request = pb.WithdrawProposalRequest(policy_set="telemetry", digest=proposal.digest)
        with self.acting(name) as channel:
            return PolicyServiceStub(channel).WithdrawProposal(request, timeout=SECONDS)

    def direct(self, name: str, people: bytes) -> pb.PublishDirectoryResponse:
        """Publishes a directory of one file as a person."""
        files = [pb.PolicyFile(path="personas.jsonl", content=people)]
        with self.acting(name) as channel:
            request = pb.PublishDirectoryRequest(files=files)
            return PolicyServiceStub(channel).PublishDirectory(request, timeout=SECONDS)

    def govern(self, name: str, folder: Path) -> pb.PublishPolicySetResponse:
        """Publishes the set that governs the door as a person."""
        with self.acting(name) as channel:
            return PolicyServiceStub(channel).PublishPolicySet(publishing(folder), timeout=SECONDS)

    def roll_back(self, name: str, number: int) -> pb.PublishPolicySetResponse:
        """Publishes an earlier revision of the set as a person."""
        request = pb.RollbackPolicySetRequest(policy_set="telemetry", number=number)
        with self.acting(name) as channel:
            return PolicyServiceStub(channel).RollbackPolicySet(request, timeout=SECONDS).published

    def active(self) -> tuple[str, int]:
        """Returns the active revision."""
        with self.acting("kai") as channel:
            record = PolicyServiceStub(channel).GetRevision(pb.GetRevisionRequest(policy_set="telemetry")).record
        return record.revision.digest, record.revision.number

    def waiting(self) -> list[pb.Proposal]:
        """Returns what waits for approvals."""
        with self.acting("kai") as channel:
            return list(PolicyServiceStub(channel).ListProposals(pb.ListProposalsRequest(), timeout=SECONDS).proposals)

    def steps(self) -> list[entry_pb2.PolicyEntry]:
        """Returns the entries about the set, the oldest first."""
        request = audit_service_pb2.ListEntriesRequest(
            filter=audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_POLICY),
            order=audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST,
            page_size=1_000,
        )
        with self.acting("jo") as channel:
            found = AuditServiceStub(channel).ListEntries(request, timeout=SECONDS).entries
        return [one.entry.policy for one in found if one.entry.policy.policy_set == "telemetry"]


@contextmanager
def guarded(
    folder: Path, *arguments: str, block: str = APPROVALS, roles: Sequence[str] = (), days: int = 0
) -> Iterator[Guarded]:
    """Serves the set in a folder, where it is made if it is not there yet; on a clock that is some days behind."""
    made = folder / "telemetry"
    if not made.exists():
        telemetry(folder, block)
        ca, key = authority(), SigningKey("2026-11", "ES256")
        server_of(ca).write(folder, "server")
        (folder / "keys.json").write_text(key_set(key))
        (folder / "callers.yaml").write_text(CALLERS)
        MADE[folder] = (key, ca.pem)
    sets = [made, gatebook_set(folder, *ROLES, *roles)]
    options = ("--tls-cert", "server.crt", "--tls-key", "server.key", "--callers", "callers.yaml")
    named = [word if word.startswith("--") else str(folder / word) for word in options]
    program = (*long_ago.PROGRAM, str(days)) if days else ("-m", "gatebook")
    with serving(folder / "data", sets, *named, *arguments, program=program) as server:
        yield Guarded(server, made, *MADE[folder])


MADE: dict[Path, tuple[SigningKey, bytes]] = {}
"""The keys of each folder, so that it can be served again."""


def refused(act: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Does what must be refused; returns the code and the reason."""
    with pytest.raises(grpc.RpcError) as caught:
        act()
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in details_of(caught.value))
    return caught.value.code(), info.reason


def edited(files: Mapping[str, bytes], path: str, *pairs: tuple[str, str]) -> Files:
    """Returns files of which one says something else."""
    text = files[path].decode()
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after, 1)
    return {**files, path: text.encode()}
