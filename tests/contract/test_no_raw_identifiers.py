"""No file that a server writes, and nothing that it tells operators, has an identifier as it was given."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.v1 import access_service_pb2
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

TELEMETRY = POLICIES / "telemetry"
GIVEN = {
    "subject": "zq-subject-7041",
    "stranger": 'zq-stranger/"7042"-ä',
    "actor": "zq-actor-7043",
    "data subject": "zq-datasubject-7044",
    "attribute": "zq-attribute-7045",
    "context": "zq-context-7046",
    "row value": "zq-rowvalue-7047",
    "request id": "zq-requestid-7048",
    "resource": "zq-resource-7049",
    "column": "zq-column-7050",
    "action": "zq-action-7051",
    "purpose": "zq-purpose-7052",
    "enforcer": "zq-enforcer-7053",
    "reader's filter": "zq-filter-7054",
    "erased": "zq-erased-7055",
    "requested by": "zq-requester-7056",
    "approved by": "zq-approver-7057",
    "AuthZEN": "zq-authzen-7058",
    "decision asked for": "zq-decision-7059",
    "resource property": "zq-property-7060",
    "request id of a publish": "zq-publish-7061",
}
DIRECTORY = "directory"
"""The folder of directory snapshots: what a policy set is given to know its subjects by. It alone names them."""


def forms(text: str) -> Iterator[bytes]:
    """Yields a text in the forms in which it could stand in a file."""
    raw = text.encode()
    yield raw
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    for shift in range(3):  # wherever it begins within what is encoded
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * shift + raw)
            yield encoded[4 if shift else 0 : -4]


FORMS = {name: sorted(set(forms(text))) for name, text in GIVEN.items()}


EMPTY = re.compile(rb"\0{64,}")
"""What a log that was made in its full size is mostly of."""


def found_in(content: bytes) -> list[str]:
    """Returns which of what was given stands in some form in a content."""
    content = EMPTY.sub(bytes(64), content)
    return [name for name, wanted in FORMS.items() if any(form in content for form in wanted)]


@pytest.mark.parametrize("name", GIVEN)
def test_the_search_finds_every_form(name: str) -> None:
    """What this looks for is found where it is: raw, escaped, in base64 at any offset, in hexadecimal, in UTF-16."""
    text = GIVEN[name]
    for content in (
        text.encode(),
        json.dumps({"x": text}).encode(),
        base64.b64encode(b"12" + text.encode() + b"345"),
        base64.b64encode(b"123" + text.encode() + b"45"),
        b"0" + text.encode().hex().encode(),
        ("-" + text).encode("utf-16-le"),
    ):
        assert name in found_in(content)


def access(**changed: Any) -> dict[str, Any]:  # noqa: ANN401  # parts of a request in JSON
    """Returns a question with all that a caller can state."""
    return {
        "subject": {
            "type": "user",
            "id": GIVEN["subject"],
            "properties_json": _json({"mail": GIVEN["attribute"]}),
        },
        "actor": {"type": "agent", "id": GIVEN["actor"]},
        "action": {"name": "read"},
        "resource": {"id": "hr.performance_metrics", "columns": ["rating", GIVEN["column"]]},
        "purpose": "performance_evaluation.review",
        "context_json": _json({"ticket": GIVEN["context"]}),
        "enforcer": {"id": GIVEN["enforcer"]},
        **changed,
    }


def _json(value: Mapping[str, str]) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def ask_everything(server: RunningServer) -> None:
    """Calls whatever takes an identifier; whether it is answered or refused does not matter."""
    row = {"subject_id": GIVEN["data subject"], "narrative_text": GIVEN["row value"]}
    questions = [
        access(),
        access(subject={"type": "user", "id": GIVEN["stranger"]}),
        access(subject={"type": "user", "id": "eli"}, actor=None, row_json=_json(row)),
        access(resource={"id": GIVEN["resource"], "properties_json": _json({"owner": GIVEN["resource property"]})}),
        access(action={"name": GIVEN["action"]}),
        access(purpose=GIVEN["purpose"]),
        access(subject={"type": "user", "id": GIVEN["erased"]}, row_json=_json({"subject_id": GIVEN["erased"]})),
    ]
    accesses = [{part: stated for part, stated in one.items() if stated is not None} for one in questions]
    named = {"request_id": GIVEN["request id"]}
    items = [{"access": one, "correlation_id": GIVEN["request id"]} for one in accesses]
    searched = {"access": {"subject": access()["subject"], "action": {"name": "read"}, "purpose": GIVEN["purpose"]}}
    two = {"requested_by": GIVEN["requested by"], "approved_by": GIVEN["approved by"], "reason": "T-1"}
    with server.channel() as channel:
        books, checks = AuditServiceStub(channel), AccessServiceStub(channel)
        calls: list[tuple[Any, Any, dict[str, Any]]] = [
            (checks.BatchCheckAccess, access_service_pb2.BatchCheckAccessRequest, {**named, "items": items}),
            *(
                (checks.CheckAccess, access_service_pb2.CheckAccessRequest, {**named, "access": one})
                for one in accesses
            ),
            (checks.SearchResources, access_service_pb2.SearchResourcesRequest, searched),
            (checks.SearchActions, access_service_pb2.SearchActionsRequest, searched),
            (checks.SearchSubjects, access_service_pb2.SearchSubjectsRequest, searched),
            (checks.PlanAccess, access_service_pb2.PlanAccessRequest, {"access": access()}),
            (books.ListEntries, pb.ListEntriesRequest, {"filter": {"subject_id": GIVEN["reader's filter"]}}),
            (books.ListEntries, pb.ListEntriesRequest, {"filter": {"subject_id": GIVEN["data subject"]}}),
            (books.ListEntries, pb.ListEntriesRequest, {"filter": {"resource_id": GIVEN["resource"]}}),
            (books.GetEntry, pb.GetEntryRequest, {"decision_id": GIVEN["decision asked for"]}),
            (books.EraseSubject, pb.EraseSubjectRequest, {**two, "subject_id": GIVEN["erased"], "validate_only": True}),
            (books.EraseSubject, pb.EraseSubjectRequest, {**two, "subject_id": GIVEN["erased"]}),
        ]
        for call, kind, fields in calls:
            request = json_format.ParseDict(fields, kind())
            try:
                call(request, timeout=60)
            except grpc.RpcError as error:
                assert error.code() is not grpc.StatusCode.INTERNAL, (call, error.details())  # noqa: PT017  # others may be


def ask_authzen(server: RunningServer) -> None:
    """Asks over HTTP."""
    body = {
        "subject": {"type": "user", "id": GIVEN["AuthZEN"], "properties": {"mail": GIVEN["attribute"]}},
        "action": {"name": "read"},
        "resource": {"type": "dataset", "id": "hr.performance_metrics"},
        "context": {"ticket": GIVEN["context"]},
    }
    request = urllib.request.Request(
        f"http://{server.http}/access/v1/evaluation",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-Request-ID": GIVEN["request id"]},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # this server
        assert answer.status == 200


def test_no_file_has_what_was_given(tmp_path: Path) -> None:
    """Log, tiles, bundles, index, people, revisions, backups, memory of commands, metrics: none names anybody."""
    data, state = tmp_path / "data", tmp_path / "state"
    with serving(data, [TELEMETRY], "--dev", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0") as server:
        ask_everything(server)
        ask_authzen(server)
        published = gatebook("audit", "list", "--subject", GIVEN["subject"], "--target", server.target, state=state)
        metrics = next(str(line["listen"]) for line in server.lines if line["event"] == "metrics")
        told = urllib.request.urlopen(f"http://{metrics}/metrics", timeout=30).read()
        running = files_with_identifiers(data)
        backup = gatebook("backup", str(tmp_path / "backup"), "--data", str(data), state=state)
        archive = gatebook("backup", str(tmp_path / "backup.tar"), "--data", str(data), state=state)
        assert server.stop() == 0
        log = "\n".join(server.raw).encode()

    assert published.returncode == 0, published.stderr
    assert GIVEN["subject"] in published.stdout
    assert backup.returncode == archive.returncode == 0
    assert found_in(told) == []
    assert found_in(log) == []
    assert running == {}
    assert files_with_identifiers(data) == {}
    assert files_with_identifiers(tmp_path / "backup") == {}
    assert found_in((tmp_path / "backup.tar").read_bytes()) == []
    assert files_with_identifiers(state) == {}
    assert (data / DIRECTORY).is_dir()


def files_with_identifiers(folder: Path) -> dict[str, list[str]]:
    """Returns what stands in which file of a folder, free pages and logs of databases too."""
    found = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file() and (names := found_in(path.read_bytes())):
            found[path.relative_to(folder).as_posix()] = names
    return found


def test_directory_snapshots_are_sealed_or_named(tmp_path: Path) -> None:
    """The directory is the policy's own input. Its subjects stand in its snapshot if anywhere, and in no other file."""
    data = tmp_path / "data"
    with serving(data, [TELEMETRY], "--dev"):
        pass
    subjects = [b"eli.", b'"farah"', b'"eli"']
    named = {
        path.relative_to(data).parts[0]
        for path in data.rglob("*")
        if path.is_file() and any(subject in path.read_bytes() for subject in subjects)
    }

    assert named <= {DIRECTORY, "revisions"}
