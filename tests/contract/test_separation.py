"""Delegated administration and separation of duties: nobody publishes past everybody else, whatever they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.approving import Guarded, edited, guarded, refused

from gatebook.cli.output import details_of
from gatebook.v1 import access_service_pb2, audit_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

CATALOGUE, SETTINGS = "catalogue.yaml", "gatebook.yaml"
MCI, USAGE, OVERSIGHT, ROLES = "policy/mci.csv", "policy/ai_usage.csv", "policy/oversight.csv", "policy/roles.csv"
WITHIN = "p, role:mci_researcher, mci.prompts, aggregate, model_training, True, allow\n"
BEYOND_CEILING = "p, role:employee, mci.prompts, read, model_training, True, allow\n"
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
PERSONAS = ("dana", "eli", "farah", "gus", "hana", "ivan", "jo", "kai", "omar", "rosa", "noor")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server whose set asks for approvals, and has the zone `mci`, which gus administers."""
    with guarded(tmp_path_factory.mktemp("zoned")) as running:
        yield running


def findings(server: Guarded, name: str, files: dict[str, bytes]) -> list[tuple[str, str]]:
    """Publishes what must be refused; returns what was found, and where."""
    with pytest.raises(grpc.RpcError) as caught:
        server.publish(name, files)
    why = error_details_pb2.PreconditionFailure()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert any(detail.Unpack(why) for detail in details_of(caught.value))
    return [(violation.type, violation.subject) for violation in why.violations]


def added(server: Guarded, path: str, line: str) -> dict[str, bytes]:
    """Returns the files of the set with one more line."""
    return {**server.files, path: server.files[path] + line.encode()}


def line_count(server: Guarded, path: str) -> int:
    """Returns how many lines a file has."""
    return server.files[path].count(b"\n")


def test_at_33_a_zone_is_administered_under_its_ceilings(server: Guarded) -> None:
    """Gus grants within his zone, with the approvals of others; what exceeds a ceiling is refused like anybody's."""
    proposal = server.publish("gus", added(server, MCI, WITHIN)).proposal
    own = refused(lambda: server.approve("gus", proposal))
    server.withdraw("gus", proposal)
    beyond = findings(server, "gus", added(server, MCI, BEYOND_CEILING))

    assert (proposal.loosens, proposal.people_missing) == (True, 2)
    assert own == (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REFUSED")
    assert {kind for kind, _ in beyond} == {"AUDIENCE_CEILING"}


OUTSIDE = {
    "another dataset": (
        USAGE,
        "p, role:mci_researcher, ai_usage.team_daily, read, adoption_visualisation, True, allow\n",
    ),
    "a rule of auditors": (OVERSIGHT, "p, role:auditor, gov.decisions, aggregate, audit_oversight, True, allow\n"),
    "a tag, which is everywhere": (MCI, "p2, role:mci_researcher, tag:hr, aggregate, model_training, True, redact\n"),
    "a link between roles": (ROLES, "g, role:jury, role:employee\n"),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_at_33_outside_of_the_zone_is_refused_by_its_line(server: Guarded, what: str) -> None:
    """What gus adds elsewhere is refused, with the file and the line that is outside."""
    path, line = OUTSIDE[what]

    found = findings(server, "gus", added(server, path, line))

    assert ("OUTSIDE_ZONE", f"{path}:{line_count(server, path) + 1}:1") in found


CHANGED = {
    "auditors lose a rule": (OVERSIGHT, "p, role:auditor, gov.decisions, read, audit_oversight, True, allow\n", ""),
    "the ceiling of the zone": (CATALOGUE, "people_max: 40", "people_max: 41"),
    "a lower ceiling of the zone": (CATALOGUE, "people_max: 40", "people_max: 39"),
    "a tag in the zone": (CATALOGUE, "[behavior.keystroke, incidental.special]", "[behavior.keystroke]"),
    "the zone itself": (SETTINGS, "datasets: [mci.*]", "datasets: [mci.*, hr.*]"),
    "the approvals": (SETTINGS, "expire_hours: 24", "expire_hours: 25"),
    "a purpose": ("purposes.yaml", "consent: opt_in", "consent: none"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_at_33_nothing_but_rules_is_administered(server: Guarded, what: str) -> None:
    """Gus cannot change who oversees him, how far his zone may reach, nor what the zone is."""
    path, before, after = CHANGED[what]

    found = findings(server, "gus", edited(server.files, path, (before, after)))

    assert {kind for kind, _ in found} >= {"OUTSIDE_ZONE"}
    assert any(place.startswith(path) for kind, place in found if kind == "OUTSIDE_ZONE")


def test_at_33_a_role_without_a_zone_publishes_nothing(server: Guarded) -> None:
    """Who has neither the right to publish the set nor a zone is denied, whatever the draft."""
    found = refused(lambda: server.publish("farah", added(server, MCI, WITHIN)))

    assert found == DENIED


def ask(server: Guarded, name: str, dataset: str, subject: str = "") -> tuple[str, types_pb2.Effect.ValueType | None]:
    """Asks for data as a person, about a subject (theirselves); returns the error, or the effect."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type="user", id=subject or name),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id=dataset),
        purpose="model_training",
    )
    request = access_service_pb2.CheckAccessRequest(policy_set="telemetry", access=access)
    with server.acting(name) as channel:
        try:
            return "", AccessServiceStub(channel).CheckAccess(request, timeout=60).decision.effect
        except grpc.RpcError as error:
            return error.code().name, None


def datasets(server: Guarded) -> list[str]:
    """Returns the datasets of the catalogue."""
    text = server.files[CATALOGUE].decode().partition("\ndatasets:\n")[2]
    return [line.strip(" :") for line in text.splitlines() if line.startswith("  ") and line[2] not in " #"]


def test_at_34_who_oversees_and_who_operates_read_no_data(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Jo sees every entry and no data of others, omar neither; no purpose of theirs opens a dataset of recordings."""
    with guarded(tmp_path_factory.mktemp("separate"), roles=("g, token, role:person",)) as server:
        names = datasets(server)
        answers = {(name, dataset): ask(server, name, dataset) for name in ("jo", "omar") for dataset in names}
        about_others = ask(server, "omar", "mci.prompts", "farah")
        with server.acting("jo") as channel:
            seen = AuditServiceStub(channel).ListEntries(audit_service_pb2.ListEntriesRequest(page_size=1_000)).entries
        with server.acting("omar") as channel:
            hidden = (
                AuditServiceStub(channel).ListEntries(audit_service_pb2.ListEntriesRequest(page_size=1_000)).entries
            )

    assert len(names) == 15
    assert set(answers.values()) == {("", types_pb2.EFFECT_DENY)}
    assert about_others == ("PERMISSION_DENIED", None)
    assert {record.entry.WhichOneof("body") for record in seen} >= {"decision", "policy", "system"}
    assert {record.entry.decision.subject_pseudonym for record in hidden} <= {
        record.entry.decision.subject_pseudonym for record in seen if record.request.subject.id == "omar"
    }


def test_at_34_nobody_publishes_and_approves_alone(server: Guarded) -> None:
    """Whoever may propose cannot make it active by themselves, and no one other person can either."""
    before = server.active()
    draft = edited(server.files, CATALOGUE, ("people_max: 8", "people_max: 9"))
    outcomes = {}
    for requester in ("kai", "hana"):
        proposal = server.publish(requester, draft).proposal
        for approver in PERSONAS:
            try:
                response = server.approve(approver, proposal)
                outcomes[requester, approver] = "active" if response.HasField("revision") else "waits"
            except grpc.RpcError:
                outcomes[requester, approver] = "refused"
            if outcomes[requester, approver] == "waits":
                server.withdraw(requester, proposal)
                proposal = server.publish(requester, draft).proposal
        server.withdraw(requester, proposal)
    after = server.active()

    assert "active" not in outcomes.values()
    assert {pair for pair, outcome in outcomes.items() if outcome == "waits"} == {
        ("kai", "hana"), ("kai", "gus"), ("kai", "eli"), ("hana", "gus"), ("hana", "eli"),
    }  # fmt: skip
    assert before == after


def test_of_concurrent_publishes_one_wins_and_the_others_are_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Drafts made from one revision and published at once: one becomes active, each other is told what is."""
    with guarded(tmp_path_factory.mktemp("raced"), block="\n") as server:
        base = server.active()[0]
        drafts = [edited(server.files, CATALOGUE, ("people_max: 8", f"people_max: {count}")) for count in (3, 4, 5, 6)]

        def publish(draft: dict[str, bytes]) -> str:
            try:
                return server.publish("kai", draft, base=base).revision.digest
            except grpc.RpcError as error:
                info = error_details_pb2.ErrorInfo()
                assert any(detail.Unpack(info) for detail in details_of(error))  # noqa: PT017  # it may pass
                return f"{error.code().name} {info.reason} {info.metadata['active']}"

        with ThreadPoolExecutor(len(drafts)) as pool:
            outcomes = list(pool.map(publish, drafts))
        active = server.active()
        late = refused(lambda: server.publish("kai", drafts[0] | {USAGE: server.files[USAGE] + b"# late\n"}, base=base))

    won = [outcome for outcome in outcomes if " " not in outcome]
    assert active == (won[0], 2)
    assert sorted(outcomes) == sorted([won[0], *itertools.repeat(f"ABORTED REVISION_MOVED {won[0]}", 3)])
    assert late == (grpc.StatusCode.ABORTED, "REVISION_MOVED")
