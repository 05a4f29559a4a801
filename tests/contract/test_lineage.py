"""Where tables come from counts: reported over gRPC, HTTP and from a file, in two governed sets, across restarts."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.run_events import output, run_event, source
from tests.serving import POLICIES, RunningServer, gatebook, serving
from tests.telemetry_sets import telemetry_without_consent

from gatebook.cli.output import details_of
from gatebook.v1 import access_service_pb2, types_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

FEATURES = "mlops.training_features"
MADE_OF_KEYS = run_event(output(FEATURES, {"action_seq": [source("mci.keystroke_events.key_text")]}))
"""AT-04."""
BUCKET = "mlops.keystroke_copy"


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of the telemetry set with purposes that need no consent, which answers HTTP too."""
    folder = telemetry_without_consent(tmp_path / "set")
    with serving(tmp_path / "data", [folder], "--dev", "--http", "127.0.0.1:0") as running:
        yield running


def record(server: RunningServer, event: bytes) -> pb.RecordLineageResponse:
    """Reports an event over gRPC."""
    with server.channel() as channel:
        return PolicyServiceStub(channel).RecordLineage(pb.RecordLineageRequest(event_json=event))


def inherited(server: RunningServer, dataset: str, policy_set: str = "") -> pb.InheritedDataset:
    """Returns what a dataset inherits."""
    with server.channel() as channel:
        request = pb.GetLineageRequest(dataset=dataset, policy_set=policy_set)
        [found] = PolicyServiceStub(channel).GetLineage(request).datasets
    return found


def tags_of(dataset: pb.InheritedDataset, column: str) -> dict[str, bool]:
    """Returns the tags that a column inherits, each with whether it is masked on every way."""
    [found] = [one for one in dataset.columns if one.column == column]
    return {tag.tag: tag.masked for tag in found.inherited}


def reason(server: RunningServer, subject: str, resource: str, purpose: str, *columns: str, kind: str = "user") -> str:
    """Asks whether somebody may read, and returns why or why not."""
    request = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type=kind, id=subject),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id=resource, columns=columns),
        purpose=purpose,
        enforcer=types_pb2.Enforcer(
            supported_masks=types_pb2.MaskKind.values()[1:], supported_obligations=types_pb2.ObligationKind.values()[1:]
        ),
    )
    with server.channel() as channel:
        answered = AccessServiceStub(channel).CheckAccess(access_service_pb2.CheckAccessRequest(access=request))
    return types_pb2.ReasonCode.Name(answered.decision.reason).removeprefix("REASON_CODE_")


def post(server: RunningServer, body: bytes, kind: str = "application/json; charset=utf-8") -> tuple[int, str]:
    """Reports an event as OpenLineage's HTTP transport does; returns status and body."""
    connection = http.client.HTTPConnection(server.http, timeout=30)
    try:
        connection.request("POST", "/api/v1/lineage", body, {"content-type": kind})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except ConnectionError:  # it was closed while the rest was sent
        return 413, ""
    finally:
        connection.close()


def test_at_04_a_declared_table_inherits(telemetry: RunningServer) -> None:
    """AT-04: tags, ceiling, retention and purposes are those that all leave, at once; other runs add nothing."""
    purpose = "model_training.feature_extraction"
    before = reason(telemetry, "svc-train", FEATURES, purpose, "session_id", kind="service")
    first = record(telemetry, MADE_OF_KEYS)
    again = record(telemetry, run_event(output(FEATURES, {"action_seq": [source("mci.keystroke_events.key_text")]})))
    after = reason(telemetry, "svc-train", FEATURES, purpose, "session_id", kind="service")
    found = inherited(telemetry, FEATURES)

    assert [one.changed for one in first.outputs] == [True]
    assert [(one.changed, one.index) for one in again.outputs] == [(False, first.outputs[0].index)]
    assert tags_of(found, "action_seq") == {"behavior.keystroke": False, "incidental.special": False}
    assert tags_of(found, "session_id") == {}
    assert (list(found.ceiling_roles), found.ceiling_people_max) == (["role:mci_researcher"], 40)
    assert (found.retention_days, list(found.purposes), found.sensitivity) == (7, [purpose], "sealed")
    assert (found.declared, found.origins[0].dataset, found.origins[0].job) == (
        True,
        "mci.keystroke_events",
        "training/make_features",
    )
    assert (before, after) == ("ALLOWED", "CEILING_EXCEEDED")


def test_at_04_an_inherited_tag_demands_a_mask(telemetry: RunningServer) -> None:
    """A column that a rule showed in clear demands the mask of the tag that it inherits, and grants nobody anything."""
    purpose = "model_training.feature_extraction"
    before = reason(telemetry, "farah", FEATURES, purpose, "action_seq")
    record(telemetry, MADE_OF_KEYS)

    assert (before, reason(telemetry, "farah", FEATURES, purpose, "action_seq")) == ("ALLOWED", "MASK_REQUIRED")
    assert reason(telemetry, "farah", FEATURES, purpose, "session_id") == "ALLOWED"


def test_at_04_a_new_table_inherits_over_http_and_from_a_file(telemetry: RunningServer, tmp_path: Path) -> None:
    """A table that no catalogue declares comes to be with what it inherits: by a filter too, and over several steps."""
    copy = output(
        "mlops.copied",
        {"keys": [source("mci.keystroke_events.key_text")], "who": [source("mci.keystroke_events.subject_id")]},
        schema={"keys": "VARCHAR(200)", "who": "string"},
        dataset=[source("mci.prompts.prompt_text", kind="INDIRECT")],
    )
    unknown = reason(telemetry, "farah", "mlops.copied", "model_training")
    status, body = post(telemetry, run_event(copy, inputs=["mci.keystroke_events", "mci.prompts"]))
    file = tmp_path / "event.json"
    file.write_bytes(run_event(output("mlops.twice", {"keys": [source("mlops.copied.keys", masking=True)]})))
    told = gatebook("lineage", "record", str(file), "--target", telemetry.target, check=True)
    copied, twice = inherited(telemetry, "mlops.copied"), inherited(telemetry, "mlops.twice")
    shown = gatebook("lineage", "show", "mlops.twice", "--target", telemetry.target, check=True).stdout

    assert unknown == "UNCATALOGUED"
    assert (status, json.loads(body)["outputs"][0]["changed"]) == (200, True)
    assert told.stdout.startswith("mlops.twice inherits from what it is made of, by entry ")
    assert not copied.declared
    assert tags_of(copied, "who") == dict.fromkeys(
        ("content.prompt", "id.pseudo", "source.chatgpt", "source.claude", "source.internal"), False
    )
    assert [(one.column, one.type) for one in copied.columns] == [("keys", "text"), ("who", "text")]
    assert tags_of(twice, "keys") == {**dict.fromkeys(tags_of(copied, "keys"), True)}
    assert (copied.retention_days, list(twice.ceiling_roles)) == (
        30,
        ["role:mci_researcher", "role:incident_responder"],
    )
    assert "\n    from mlops.copied.keys, masked\n      from mci.keystroke_events.key_text\n" in shown
    assert reason(telemetry, "farah", "mlops.copied", "model_training") == "NO_MATCHING_RULE"


def test_at_04_a_wider_grant_is_refused(telemetry: RunningServer, tmp_path: Path) -> None:
    """A draft that declares and grants a derived table beyond what it inherits is refused, by the run that made it."""
    record(telemetry, run_event(output(BUCKET, {"keys": [source("mci.keystroke_events.key_code")]})))
    folder = telemetry_without_consent(tmp_path / "draft")
    catalogue, rules = folder / "catalogue.yaml", folder / "policy" / "mci.csv"
    declared = (
        f"\n  {BUCKET}:\n    sensitivity: internal\n    subject_keys: []\n    retention_days: 3000\n"
        "    notice: mci-2026-05\n    ceiling: {roles: [role:employee, role:mci_researcher], people_max: all}\n"
        "    columns:\n      keys: int\n"
    )
    text = catalogue.read_text()
    catalogue.write_text(text.rstrip("\n") + "\n" + declared)
    wide = f"p, role:employee, {BUCKET}, read, model_training, True, allow\n"
    wide += f"p2, role:employee, {BUCKET}.keys, read, model_training, True, none\n"
    narrow = wide.replace("role:employee", "role:mci_researcher")
    shipped = rules.read_text()
    rules.write_text(shipped + wide)
    refused = gatebook("policy", "publish", str(folder), "--target", telemetry.target)
    offline = gatebook("policy", "test", str(folder))
    rules.write_text(shipped + narrow)
    accepted = gatebook("policy", "publish", str(folder), "--target", telemetry.target)

    assert (refused.returncode, offline.returncode, accepted.returncode) == (1, 0, 0), accepted.stderr
    assert "(AUDIENCE_CEILING)" in refused.stdout + refused.stderr
    assert (
        f"{BUCKET} is made of mci.keystroke_events by training/make_features, run " in refused.stdout + refused.stderr
    )
    assert reason(telemetry, "noor", BUCKET, "model_training") == "NO_MATCHING_RULE"
    assert reason(telemetry, "farah", BUCKET, "model_training") == "ALLOWED"


def test_a_rule_of_a_namespace_grants_a_new_table_within_its_ceiling_alone(tmp_path: Path) -> None:
    """A derived table that a namespace's rule reaches is denied to whoever is beyond what it inherits."""
    folder = telemetry_without_consent(tmp_path / "set")
    rules = folder / "policy" / "mci.csv"
    grants = "p, role:mci_researcher, mlops.*, read, model_training.feature_extraction, True, allow\n"
    grants += "p, role:training_job, mlops.*, read, model_training.feature_extraction, True, allow\n"
    rules.write_text(rules.read_text() + grants)
    event = run_event(output("mlops.sessions", {"session": [source("mci.keystroke_events.session_id")]}))
    with serving(tmp_path / "data", [folder], "--dev") as server:
        record(server, event)
        purpose = "model_training.feature_extraction"
        within = reason(server, "farah", "mlops.sessions", purpose)
        beyond = reason(server, "svc-train", "mlops.sessions", purpose, kind="service")

    assert (within, beyond) == ("ALLOWED", "CEILING_EXCEEDED")


def test_what_descends_from_something_unknown_is_sealed(telemetry: RunningServer) -> None:
    """Nobody is allowed what is made of a table of which nothing is known, until its catalogue knows it."""
    purpose = "model_training.feature_extraction"
    record(
        telemetry, run_event(output(FEATURES, {"session_id": [source("lake.raw.id"), source("mci.prompts.prompt_id")]}))
    )

    assert inherited(telemetry, FEATURES).sealed_by == "lake.raw"
    assert reason(telemetry, "farah", FEATURES, purpose, "feature_id") == "UNCATALOGUED"


@pytest.mark.parametrize("workers", [1, 2])
def test_lineage_is_there_after_a_kill_and_in_every_worker(tmp_path: Path, workers: int) -> None:
    """What was acknowledged decides in every worker at once, and after a kill."""
    folder, book = telemetry_without_consent(tmp_path / "set"), tmp_path / "data" / "book"
    purpose = "model_training.feature_extraction"
    arguments = ["--dev", "--workers", str(workers)] if workers > 1 else ["--dev"]
    server = RunningServer(tmp_path / "data", "--policies", str(folder), *arguments, "--http", "127.0.0.1:0")
    try:
        statuses = {post(server, MADE_OF_KEYS)[0] for _ in range(6)}
        before = {reason(server, "farah", FEATURES, purpose, "action_seq") for _ in range(8)}
    finally:
        server.kill()
    with serving(tmp_path / "data", [], *arguments) as again:
        after = {reason(again, "farah", FEATURES, purpose, "action_seq") for _ in range(8)}
        found = inherited(again, FEATURES)

    assert (statuses, before, after) == ({200}, {"MASK_REQUIRED"}, {"MASK_REQUIRED"})
    assert tags_of(found, "action_seq") == {"behavior.keystroke": False, "incidental.special": False}
    assert gatebook("audit", "verify", str(book), "--vkey", str(book / "vkey")).returncode == 0


def test_at_04_in_another_set(tmp_path: Path) -> None:
    """In the clinic, what is made of visits and results is for those of both, and keeps what is psychiatric apart."""
    made = output(
        "clinic.summary",
        {"note": [source("clinic.visits.therapist_note")], "value": [source("clinic.lab_results.result")]},
        schema={"note": "text", "value": "decimal(10, 2)", "ward": "text"},
    )
    with serving(tmp_path / "data", [POLICIES / "clinic"], "--dev") as server:
        record(server, run_event(made, inputs=["clinic.visits"]))
        found = inherited(server, "clinic.summary")

    assert tags_of(found, "note") == {"health.psychiatric": False}
    assert tags_of(found, "value") == {"health": False}
    assert tags_of(found, "ward") == {"health": False, "health.psychiatric": False, "identity": False}
    assert (list(found.ceiling_roles), found.ceiling_people_max) == (["role:physician", "role:consultant"], 4)
    assert (sorted(found.purposes), found.sensitivity, found.retention_days) == (
        ["own_records", "treatment"],
        "sealed",
        3650,
    )


HOSTILE = {
    "no JSON": b"{",
    "not an object": b"[]",
    "empty": b"",
    "deeply nested": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no run": b'{"eventTime": "2026-01-01T00:00:00Z", "producer": "p", "job": {"namespace": "n", "name": "j"}}',
    "a type that there is not": run_event(event_type="DONE"),
    "a run that is no UUID": run_event(run_id="../../etc"),
    "a masking that is text": run_event(
        output(
            "a.b", {"c": [{**source("mci.prompts.model"), "transformations": [{"type": "DIRECT", "masking": "true"}]}]}
        )
    ),
    "fields that are a list": run_event(
        {"namespace": "w", "name": "a.b", "facets": {"columnLineage": {"fields": [{"c": []}]}}}
    ),
    "an empty name": run_event(output("", {"c": [source("mci.prompts.model")]})),
    "a name with a line feed": run_event(output("a.b\nforged log line", {"c": [source("mci.prompts.model")]})),
    "half a character": run_event(output("a.\ud800", {"c": [source("mci.prompts.model")]})),
    "too many columns": run_event(output("a.b", {f"c{n}": [] for n in range(1_001)})),
    "too large": b" " * (1024 * 1024 + 1),
}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the clinic that nothing is reported to but rubbish."""
    with serving(
        tmp_path_factory.mktemp("clinic") / "data", [POLICIES / "clinic"], "--dev", "--http", "127.0.0.1:0"
    ) as it:
        yield it


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_run_event_is_refused_and_changes_nothing(clinic: RunningServer, name: str) -> None:
    """Each is refused as the caller's mistake over both transports, and is no entry."""
    status, _ = post(clinic, HOSTILE[name])
    with pytest.raises(grpc.RpcError) as refused:
        record(clinic, HOSTILE[name])

    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in details_of(refused.value))
    assert info.reason in ("INVALID_REQUEST", "LIMIT_EXCEEDED")
    assert status in (400, 413)
    with clinic.channel() as channel:
        assert not PolicyServiceStub(channel).GetLineage(pb.GetLineageRequest()).datasets


@pytest.mark.parametrize("event_type", ["START", "RUNNING", "ABORT", "FAIL", "OTHER"])
def test_what_is_not_complete_changes_nothing(clinic: RunningServer, event_type: str) -> None:
    """Only a run that is complete has made something."""
    made = output("clinic.copy", {"note": [source("clinic.visits.therapist_note")]})

    assert not record(clinic, run_event(made, event_type=event_type)).outputs
    assert post(clinic, run_event(made, event_type=event_type))[0] == 200


def test_who_may_not_report_is_refused(tmp_path: Path) -> None:
    """Without --dev nobody on this machine may report, over either transport."""
    with serving(tmp_path / "data", [POLICIES / "basic"], "--http", "127.0.0.1:0") as server:
        status, _ = post(server, MADE_OF_KEYS)
        with pytest.raises(grpc.RpcError) as refused:
            record(server, MADE_OF_KEYS)

    assert (status, refused.value.code()) == (403, grpc.StatusCode.PERMISSION_DENIED)
