"""The service as a platform team runs it: TLS, callers by certificate, a set `gatebook` of their own, two workers."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from tests.certificates import CLIENT, Pair, authority, leaf, tls_options
from tests.serving import POLICIES, RunningServer, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, entry_pb2, policy_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

CA = authority()
NAMES = ("trino", "notebook", "auditor", "keeper", "nobody")
GRANTS = """
g, spiffe://corp.example/trino, role:service
g, spiffe://corp.example/notebook, role:service
g, spiffe://corp.example/auditor, role:auditor
g, spiffe://corp.example/keeper, role:keeper
"""
CONNECTIONS = 40
"""So many that the kernel leaves neither of two workers out, but for once in a trillion runs."""


def spiffe(name: str) -> str:
    """Returns the id of a caller."""
    return f"spiffe://corp.example/{name}"


@dataclass
class Production:
    """A running service and the certificates of its callers."""

    server: RunningServer
    http: str
    gatebook: Path
    callers: dict[str, Pair]

    @contextmanager
    def channel(self, name: str) -> Iterator[grpc.Channel]:
        """Opens a connection of its own as a caller."""
        pair = self.callers[name]
        credentials = grpc.ssl_channel_credentials(CA.pem, pair.key_pem, pair.pem)
        own = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(self.server.target, credentials, options=own) as channel:
            yield channel

    def check(self, name: str, request: pb.CheckAccessRequest) -> types_pb2.Decision | str:
        """Asks as a caller on a new connection; returns the decision, or the code of the error."""
        with self.channel(name) as channel:
            try:
                return AccessServiceStub(channel).CheckAccess(request, timeout=20).decision
            except grpc.RpcError as error:
                return str(error.code().name)

    def publish(self, name: str) -> str:
        """Publishes the set `gatebook` as it is now; returns the code."""
        files = [
            policy_service_pb2.PolicyFile(path=str(path.relative_to(self.gatebook)), content=path.read_bytes())
            for path in self.gatebook.rglob("*")
            if path.is_file()
        ]
        with self.channel(name) as channel:
            try:
                request = policy_service_pb2.PublishPolicySetRequest(policy_set="gatebook", files=files)
                PolicyServiceStub(channel).PublishPolicySet(request, timeout=60)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    """Serves the telemetry set for the callers of `corp.example`."""
    callers = {name: leaf(CA, uris=[spiffe(name)], purposes=(CLIENT,)) for name in NAMES}
    gatebook, telemetry = tmp_path / "gatebook", tmp_path / "telemetry"
    shutil.copytree(POLICIES / "gatebook", gatebook)
    with (gatebook / "policy.csv").open("a", encoding="utf-8") as file:
        file.write(GRANTS)
    shutil.copytree(POLICIES / "telemetry", telemetry)
    settings = telemetry / "gatebook.yaml"
    told = settings.read_text(encoding="utf-8")
    named = f"attribute_sources:\n  {spiffe('trino')}: {{context: [network]}}\n"
    settings.write_text(told.replace("attribute_sources:\n", named), encoding="utf-8")
    options = (*tls_options(tmp_path, CA), "--http", "127.0.0.1:0", "--workers", "2")
    with serving(tmp_path / "var", [gatebook, telemetry], *options) as server:
        [http, *_] = [str(line["listen"]) for line in server.lines if line.get("event") == "http"]
        yield Production(server, http, gatebook, callers)


def transcripts() -> pb.CheckAccessRequest:
    """Asks for what the company's network alone may read."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type="user", id="farah", properties_json=b'{"level": 9}'),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(type="dataset", id="mci.transcripts"),
        purpose="model_training",
        context_json=b'{"network": "corp"}',
        enforcer=types_pb2.Enforcer(
            id="trino",
            supported_masks=[k for k in types_pb2.MaskKind.values() if k],
            supported_obligations=[k for k in types_pb2.ObligationKind.values() if k],
        ),
    )
    return pb.CheckAccessRequest(policy_set="telemetry", access=access)


def test_only_who_is_granted_something_gets_an_answer(production: Production) -> None:
    """A named service gets decisions; a certificate alone gets nothing, and what is missing is not told."""
    outcomes = {name: production.check(name, transcripts()) for name in NAMES}
    elsewhere = transcripts()
    elsewhere.policy_set = "no-such-set"
    missing = {name: production.check(name, elsewhere) for name in ("trino", "nobody")}

    assert {"trino", "notebook"} == {name for name, told in outcomes.items() if not isinstance(told, str)}
    assert {"PERMISSION_DENIED"} == {told for told in outcomes.values() if isinstance(told, str)}
    assert {"trino": "NOT_FOUND", "nobody": "PERMISSION_DENIED"} == missing


def test_what_a_caller_states_counts_where_the_set_names_it(production: Production) -> None:
    """The network counts from the service that is named as its source, and from no other, whatever it sends."""
    named, other = production.check("trino", transcripts()), production.check("notebook", transcripts())
    assert isinstance(named, types_pb2.Decision)
    assert isinstance(other, types_pb2.Decision)

    assert types_pb2.REASON_CODE_CONSENT_REQUIRED == named.reason  # the rules allow; consent is asked after them
    assert types_pb2.REASON_CODE_NO_MATCHING_RULE == other.reason


def test_a_service_sees_its_own_decisions_and_an_auditor_all(production: Production) -> None:
    """Entries of all workers, told apart by who may see them."""
    for _ in range(CONNECTIONS // 2):
        production.check("trino", transcripts())
        production.check("notebook", transcripts())

    def seen(name: str) -> dict[str, int]:
        only = audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_DECISION)
        request = audit_service_pb2.ListEntriesRequest(filter=only, page_size=1_000)
        found: dict[str, int] = {}
        with production.channel(name) as channel:
            while True:
                page = AuditServiceStub(channel).ListEntries(request, timeout=20)
                for record in page.entries:
                    found[record.entry.caller] = found.get(record.entry.caller, 0) + 1
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    return found

    each = CONNECTIONS // 2
    assert {spiffe("trino"): each} == seen("trino")
    assert {spiffe("trino"): each, spiffe("notebook"): each} == seen("auditor")


def test_a_revocation_is_in_force_at_every_worker_once_it_is_answered(production: Production) -> None:
    """After a keeper has taken a service out, no connection of it is answered, not even one that is open."""
    with production.channel("trino") as before:
        AccessServiceStub(before).CheckAccess(transcripts(), timeout=20)
        policy = production.gatebook / "policy.csv"
        policy.write_text(policy.read_text(encoding="utf-8").replace(f"g, {spiffe('trino')}, role:service\n", ""))
        refused = production.publish("auditor")
        published = production.publish("keeper")
        with pytest.raises(grpc.RpcError) as caught:
            AccessServiceStub(before).CheckAccess(transcripts(), timeout=20)
        after = {str(production.check("trino", transcripts())) for _ in range(CONNECTIONS)}

    assert ("PERMISSION_DENIED", "OK") == (refused, published)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert {"PERMISSION_DENIED"} == after


def test_authzen_over_https_knows_the_same_callers(production: Production, tmp_path: Path) -> None:
    """A certificate that gRPC takes is taken over HTTPS, with the same rights."""
    question = {
        "subject": {"type": "user", "id": "kai"},
        "action": {"name": "read"},
        "resource": {"type": "dataset", "id": "ai_usage.team_daily"},
        "context": {"purpose": "adoption_visualisation.team_dashboard"},
    }
    codes = {}
    for name in ("trino", "nobody", "auditor"):
        certificate, key = production.callers[name].write(tmp_path, name)
        trusted = ssl.create_default_context(cadata=CA.pem.decode())
        trusted.load_cert_chain(certificate, key)
        with httpx.Client(base_url=f"https://{production.http}", verify=trusted) as client:
            codes[name] = client.post("/telemetry/access/v1/evaluation", json=question).status_code
    with httpx.Client(
        base_url=f"https://{production.http}", verify=ssl.create_default_context(cadata=CA.pem.decode())
    ) as client:
        codes["no certificate"] = client.post("/telemetry/access/v1/evaluation", json=question).status_code

    assert {"trino": 200, "nobody": 403, "auditor": 403, "no certificate": 401} == codes
